// OutputQueue and EngineThread. No call holds the GIL while it waits, the engine's thread never
// drops a Python object, and at the interpreter's exit no thread is left that could want the GIL.
#include "octavo/engine_thread.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <set>
#include <thread>

#include "bindings.h"
#include "gil.h"

namespace octavo {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// How long a waiting thread leaves signals unseen.
constexpr milliseconds kSlice(50);

// Every thread that was not closed. Guarded by the GIL; never destroyed.
std::set<std::shared_ptr<EngineThread>>& open_threads() {
  static auto* const threads = new std::set<std::shared_ptr<EngineThread>>;
  return *threads;
}

// An atexit function.
void exit_threads() {
  begin_exit();  // lets those that wait for outputs go
  const auto threads = open_threads();
  const nb::gil_scoped_release release;
  for (const auto& thread : threads) thread->close();
  wait_for_calls();
}

// Python's OutputQueue: the requests in flight share the queue, not this object.
class PyOutputQueue {
 public:
  const std::shared_ptr<OutputQueue>& shared() const { return queue_; }
  int fd() const { return queue_->fd(); }

  std::vector<RequestOutput> take(std::optional<double> timeout) {
    const auto deadline = deadline_of(timeout);
    while (true) {
      std::vector<RequestOutput> outputs;
      {
        const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
        const WithoutGil unlocked;
        outputs = queue_->take(std::clamp(left, milliseconds(0), kSlice));
      }
      if (!outputs.empty() || Clock::now() >= deadline) return outputs;
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      leave_at_exit();
    }
  }

 private:
  // Of what is longer than a year, and of None, there is no end.
  static Clock::time_point deadline_of(std::optional<double> timeout) {
    constexpr double kLongest = 365 * 86400.0;
    if (!timeout || *timeout > kLongest) return Clock::time_point::max();
    const std::chrono::duration<double> seconds(std::max(0.0, *timeout));
    return Clock::now() + std::chrono::duration_cast<Clock::duration>(seconds);
  }

  std::shared_ptr<OutputQueue> queue_ = std::make_shared<OutputQueue>();
};

// Python's EngineThread. The reference to Python's Engine is here alone, so that it is dropped with
// the GIL held, after the thread has ended.
class PyEngineThread {
 public:
  explicit PyEngineThread(nb::handle_t<Engine> engine) : engine_(nb::borrow(engine)) {
    const std::shared_ptr<Engine> borrowed(nb::cast<Engine*>(engine), [](Engine*) {});
    thread_ = std::make_shared<EngineThread>(borrowed);
    open_threads().insert(thread_);
  }
  PyEngineThread(const PyEngineThread&) = delete;
  PyEngineThread& operator=(const PyEngineThread&) = delete;

  ~PyEngineThread() {
    try {
      close();
    } catch (const Error&) {
      close_elsewhere();
    } catch (const nb::python_error&) {
      // The interpreter ends, and exit_threads has closed the thread.
    }
  }

  void close() {
    {
      const WithoutGil unlocked;
      thread_->close();
    }
    open_threads().erase(thread_);
    const nb::object dropped = std::move(engine_);
  }

  // Calls `function` with the thread and without the GIL.
  template <typename Function>
  auto with_thread(const Function& function) const {
    const nb::object kept = engine_;  // another thread may close this meanwhile
    const std::shared_ptr<EngineThread> thread = thread_;
    try {
      const WithoutGil unlocked;
      return function(*thread);
    } catch (const Error&) {
      leave_at_exit();
      throw;
    }
  }

 private:
  // A collection on the engine's thread, in a logits processor, has found this: the thread cannot
  // wait for itself.
  void close_elsewhere() {
    begin_call();  // until it has ended
    std::thread([thread = thread_, engine = engine_.release()] {
      thread->close();
      {
        const nb::gil_scoped_acquire acquire;
        open_threads().erase(thread);
        engine.dec_ref();
      }
      end_call();
    }).detach();
  }

  nb::object engine_;  // null after close()
  std::shared_ptr<EngineThread> thread_;
};

RequestId add_request(const PyEngineThread& self, nb::handle prompt, const SamplingParams& params,
                      const PyOutputQueue& outputs, const std::string& cache_salt,
                      std::optional<nb::set> owned, bool whole) {
  const std::vector<int32_t> ids = to_token_ids(prompt);
  const std::shared_ptr<OutputQueue>& queue = outputs.shared();
  const SamplingParams own = own_processors(params);
  const Delivery delivery = whole ? Delivery::kWhole : Delivery::kEachStep;
  const RequestId id = self.with_thread([&](EngineThread& thread) {
    return thread.add_request(ids, own, queue, cache_salt, delivery);
  });
  // Within the call: Python handles a signal only after it, when the caller knows the id.
  if (owned) owned->add(id);
  return id;
}

RequestId add_beam_search(const PyEngineThread& self, nb::handle prompt,
                          const BeamSearchParams& params, const PyOutputQueue& outputs,
                          const std::string& cache_salt, std::optional<nb::set> owned) {
  const std::vector<int32_t> ids = to_token_ids(prompt);
  const std::shared_ptr<OutputQueue>& queue = outputs.shared();
  BeamSearchParams own = params;
  own.tokens = own_processors(params.tokens);
  const RequestId id = self.with_thread(
      [&](EngineThread& thread) { return thread.add_beam_search(ids, own, queue, cache_salt); });
  if (owned) owned->add(id);  // as add_request
  return id;
}

void run_between_steps(const PyEngineThread& self, const nb::callable& function) {
  std::exception_ptr error;  // stays with this thread, which holds the GIL when it is destroyed
  self.with_thread([&](EngineThread& thread) {
    thread.run_between_steps([&](Engine&) {
      const nb::gil_scoped_acquire acquire;
      try {
        function();
      } catch (...) {
        error = std::current_exception();
      }
    });
  });
  if (error) std::rethrow_exception(error);
}

template <auto method>
auto call(const PyEngineThread& self) {
  return self.with_thread([](EngineThread& thread) { return (thread.*method)(); });
}

void bind_output_queue(nb::module_& m) {
  nb::class_<PyOutputQueue>(m, "OutputQueue",
                            "The outputs of one or more requests of an EngineThread.")
      .def(nb::init<>())
      .def("take", &PyOutputQueue::take, nb::arg("timeout") = nb::none())
      .def_prop_ro("fd", &PyOutputQueue::fd);
}

}  // namespace

void bind_engine_thread(nb::module_& m) {
  bind_output_queue(m);
  nb::class_<PyEngineThread>(m, "EngineThread", "Steps an engine while there is work.")
      .def(nb::init<nb::handle_t<Engine>>(), nb::arg("engine"))
      .def("add_request", &add_request, nb::arg("prompt_token_ids"), nb::arg("params"),
           nb::arg("outputs"), nb::arg("cache_salt") = "", nb::arg("owned") = nb::none(),
           nb::arg("whole") = false)
      .def("add_beam_search", &add_beam_search, nb::arg("prompt_token_ids"), nb::arg("params"),
           nb::arg("outputs"), nb::arg("cache_salt") = "", nb::arg("owned") = nb::none())
      .def(
          "abort",
          [](const PyEngineThread& self, RequestId id) {
            self.with_thread([&](EngineThread& thread) { thread.abort(id); });
          },
          nb::arg("request_id"))
      .def(
          "abort_sample",
          [](const PyEngineThread& self, RequestId id, int32_t index) {
            self.with_thread([&](EngineThread& thread) { thread.abort_sample(id, index); });
          },
          nb::arg("request_id"), nb::arg("sample_index"))
      .def("run_between_steps", &run_between_steps, nb::arg("function"))
      .def("pause", &call<&EngineThread::pause>)
      .def("resume", &call<&EngineThread::resume>)
      .def_prop_ro("paused", &call<&EngineThread::paused>)
      .def("num_unfinished", &call<&EngineThread::num_unfinished>)
      .def("stats",
           [](const PyEngineThread& self) { return to_dict(call<&EngineThread::stats>(self)); })
      .def("close", &PyEngineThread::close);
  // The threads of a forked child's calls stayed in its parent.
  pthread_atfork(nullptr, nullptr, &forget_calls);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&exit_threads));
}

}  // namespace octavo
