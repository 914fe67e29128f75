#include "gil.h"

#include <atomic>
#include <chrono>
#include <thread>

namespace octavo {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// A process whose threads do not come back from a call is left all the same.
constexpr milliseconds kExitPatience(1000);

std::atomic<bool> at_exit = false;
std::thread::id exiting_thread;  // set before
std::atomic<int> calls_without_gil = 0;

}  // namespace

void leave_at_exit() {
  if (!at_exit || std::this_thread::get_id() == exiting_thread) return;
  PyErr_SetNone(PyExc_SystemExit);
  throw nb::python_error();
}

// The GIL is held, as in begin_exit: who is not counted in time sees that it has begun.
WithoutGil::CountedCall::CountedCall() {
  leave_at_exit();
  begin_call();
}

WithoutGil::CountedCall::~CountedCall() { end_call(); }

void begin_call() { ++calls_without_gil; }
void end_call() { --calls_without_gil; }

void begin_exit() {
  exiting_thread = std::this_thread::get_id();
  at_exit = true;
}

void wait_for_calls() {
  const auto deadline = Clock::now() + kExitPatience;
  while (calls_without_gil > 0 && Clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(1));
  }
}

void forget_calls() { calls_without_gil = 0; }

}  // namespace octavo
