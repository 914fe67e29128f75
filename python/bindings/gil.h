// Work without the GIL that is safe until the interpreter's end. Any thread that runs Python.
#pragma once

#include "bindings.h"

namespace octavo {

// Raises SystemExit at the interpreter's exit in every thread but the one that ends it: the daemon
// threads that are left end silently, as Python would end them.
void leave_at_exit();

// The GIL is released for as long as this lives.
//
// A thread that asks for the GIL of an interpreter that has ended is killed by Python, which C++
// does not survive. So the exit waits for those that live, and afterwards the constructor raises
// SystemExit instead of releasing the GIL.
class WithoutGil {
 public:
  WithoutGil() = default;
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  struct CountedCall {
    CountedCall();
    ~CountedCall();
  };

  CountedCall counted_;  // until the GIL is held again
  nb::gil_scoped_release release_;
};

// For a thread of C++ that will want the GIL: until end_call the exit waits for it.
void begin_call();
void end_call();

// At the exit, on the thread that ends the interpreter. First `begin_exit`, with the GIL held; when
// nothing new can begin, `wait_for_calls` without it.
void begin_exit();
void wait_for_calls();

// In a forked child, where the threads of its parent's calls do not exist.
void forget_calls();

}  // namespace octavo
