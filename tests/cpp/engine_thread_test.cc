// The engine's thread, on an engine whose steps wait and fail when the test says so.
#include "octavo/engine_thread.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>
#include <set>
#include <thread>

#include "scripted_engine.h"

namespace octavo {
namespace {

using namespace std::chrono_literals;
using test::Script;

constexpr auto kForever = std::chrono::milliseconds::max();
constexpr std::array<int32_t, 3> kPrompt{1, 2, 3};

// A running thread with its script.
struct Stage {
  Stage() {
    test::script = &script;
    engine = std::make_shared<Engine>(EngineConfig{});
    thread = std::make_unique<EngineThread>(engine);
  }
  ~Stage() {
    script.hold(false);
    thread.reset();
  }

  RequestId add(const SamplingParams& params, const std::shared_ptr<OutputQueue>& to = nullptr) {
    return thread->add_request(kPrompt, params, to ? to : queue);
  }
  // What comes until a request of `count` has finished.
  std::vector<RequestOutput> take_finished(int count, OutputQueue& from) {
    std::vector<RequestOutput> all;
    while (count > 0) {
      for (RequestOutput& output : from.take(kForever)) {
        count -= output.request_finished ? 1 : 0;
        all.push_back(std::move(output));
      }
    }
    return all;
  }
  // Returns when the inbox is empty.
  void settle() {
    thread->run_between_steps([](Engine&) {});
  }
  // A request that is within a step, which is held there.
  RequestId add_held(const SamplingParams& params) {
    script.hold(true);
    const int begun = script.steps_begun;  // the thread idles
    const RequestId id = add(params);
    script.wait_for_steps(begun + 1);
    return id;
  }

  Script script;
  std::shared_ptr<Engine> engine;
  std::shared_ptr<OutputQueue> queue = std::make_shared<OutputQueue>();
  std::unique_ptr<EngineThread> thread;
};

SamplingParams tokens(int32_t max_tokens, int32_t n = 1) {
  return {.n = n, .max_tokens = max_tokens};
}

SamplingParams endless(int32_t n = 1) { return {.n = n}; }

bool readable(int fd) {
  pollfd poll_fd{.fd = fd, .events = POLLIN};
  return poll(&poll_fd, 1, 0) == 1;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

TEST_CASE("outputs go to the queue that the request named, under its id, in order") {
  Stage stage;
  auto other = std::make_shared<OutputQueue>();
  const RequestId a = stage.add(tokens(20)), b = stage.add(tokens(10), other);
  CHECK(b == a + 1);
  int32_t expected = 0;
  for (const RequestOutput& output : stage.take_finished(1, *stage.queue)) {
    CHECK(output.request_id == a);
    CHECK(output.new_token_ids == std::vector{expected++});
    CHECK(output.finished() == (expected == 20));
  }
  for (const RequestOutput& output : stage.take_finished(1, *other)) {
    CHECK(output.request_id == b);
  }
  CHECK(stage.thread->num_unfinished() == 0);
  CHECK(stage.queue->take(0ms).empty());
  stage.settle();
  CHECK(stage.thread->stats().num_running == 0);
}

TEST_CASE("whole delivery: one output for each sample, when it ends") {
  Stage stage;
  const RequestId a =
      stage.thread->add_request(kPrompt, tokens(20, 2), stage.queue, {}, Delivery::kWhole);
  const std::vector<RequestOutput> outputs = stage.take_finished(1, *stage.queue);
  REQUIRE(outputs.size() == 2);
  std::vector<int32_t> expected(20);
  std::iota(expected.begin(), expected.end(), 0);
  for (const RequestOutput& output : outputs) {
    CHECK(output.request_id == a);
    CHECK(output.new_token_ids == expected);
    CHECK(output.finish_reason == FinishReason::kLength);
    CHECK(output.request_finished == (&output == &outputs.back()));
  }
  CHECK(outputs[0].sample_index != outputs[1].sample_index);
}

TEST_CASE("whole delivery: an abort gives what there is") {
  Stage stage;
  const RequestId a =
      stage.thread->add_request(kPrompt, endless(), stage.queue, {}, Delivery::kWhole);
  while (stage.thread->stats().num_steps < 3) std::this_thread::yield();
  stage.thread->abort(a);
  const std::vector<RequestOutput> outputs = stage.take_finished(1, *stage.queue);
  REQUIRE(outputs.size() == 1);
  CHECK(outputs[0].finish_reason == FinishReason::kAbort);
  REQUIRE(outputs[0].new_token_ids.size() >= 2);
  for (size_t i = 0; i < outputs[0].new_token_ids.size(); ++i) {
    CHECK(outputs[0].new_token_ids[i] == static_cast<int32_t>(i));
  }
  stage.settle();
  CHECK(stage.queue->take(0ms).empty());
}

TEST_CASE("whole delivery: an abort of a sample, and one before the engine has the request") {
  Stage stage;
  const RequestId a =
      stage.thread->add_request(kPrompt, endless(2), stage.queue, {}, Delivery::kWhole);
  while (stage.thread->stats().num_steps < 3) std::this_thread::yield();
  stage.thread->abort_sample(a, 1);
  std::vector<RequestOutput> outputs = stage.queue->take(kForever);
  REQUIRE(outputs.size() == 1);
  CHECK(outputs[0].sample_index == 1);
  CHECK(outputs[0].finish_reason == FinishReason::kAbort);
  CHECK_FALSE(outputs[0].request_finished);
  stage.thread->abort(a);
  outputs = stage.take_finished(1, *stage.queue);
  REQUIRE(outputs.size() == 1);
  CHECK(outputs[0].sample_index == 0);
  stage.thread->pause();
  const RequestId b =
      stage.thread->add_request(kPrompt, endless(), stage.queue, {}, Delivery::kWhole);
  stage.thread->abort(b);
  outputs = stage.take_finished(1, *stage.queue);
  REQUIRE(outputs.size() == 1);
  CHECK(outputs[0].request_id == b);
  CHECK(outputs[0].new_token_ids.empty());
}

TEST_CASE("the time of submission is the caller's, not the step's") {
  Stage stage;
  stage.thread->pause();
  const double before = now();
  stage.add(tokens(2));
  const double after = now();
  stage.thread->resume();
  for (const RequestOutput& output : stage.take_finished(1, *stage.queue)) {
    CHECK(output.times.queued >= before);
    CHECK(output.times.queued <= after);
  }
}

TEST_CASE("validation throws at the caller and takes no id") {
  Stage stage;
  const RequestId first = stage.add(tokens(1));
  CHECK_THROWS_AS(stage.thread->add_request({}, tokens(1), stage.queue), InvalidArgument);
  CHECK_THROWS_AS(stage.thread->add_request(kPrompt, tokens(1), nullptr), InvalidArgument);
  CHECK(stage.add(tokens(1)) == first + 1);
  CHECK_THROWS_AS(EngineThread(nullptr), InvalidArgument);
}

TEST_CASE("no call waits for a step") {
  Stage stage;
  const RequestId held = stage.add_held(endless());
  const RequestId other = stage.add(endless());
  stage.thread->abort_sample(other, 0);
  stage.thread->abort(held);
  CHECK(stage.thread->num_unfinished() == 0);
  CHECK(stage.thread->stats().num_steps == 0);
  stage.thread->pause();
  CHECK(stage.thread->paused());
  stage.thread->resume();
  CHECK_FALSE(stage.thread->paused());
}

TEST_CASE("an abort drops the outputs of the step in progress") {
  Stage stage;
  const RequestId a = stage.add_held(endless());
  stage.thread->abort(a);
  stage.thread->abort(a);
  stage.thread->abort(a + 77);
  const RequestId b = stage.add(tokens(3));
  stage.script.hold(false);
  for (const RequestOutput& output : stage.take_finished(1, *stage.queue)) {
    CHECK(output.request_id == b);
  }
  CHECK(stage.script.aborted == std::vector<RequestId>{1000});
}

TEST_CASE("an abort of a request in the inbox removes it there") {
  Stage stage;
  const RequestId held = stage.add_held(endless());
  auto other = std::make_shared<OutputQueue>();
  const RequestId b = stage.add(endless(), other);
  const RequestId c = stage.add(endless(2), other);
  CHECK(other.use_count() == 3);
  stage.thread->abort(b);
  stage.thread->abort_sample(c, 0);
  stage.thread->abort_sample(c, 1);
  CHECK(other.use_count() == 1);  // the requests are gone, with what they held
  stage.thread->abort(held);
  stage.script.hold(false);
  stage.settle();
  CHECK(stage.script.added.size() == 1);
  CHECK(other->take(0ms).empty());
}

TEST_CASE("an aborted sample is silent, the others go on") {
  Stage stage;
  stage.thread->pause();
  const RequestId id = stage.add(tokens(5, 3));
  stage.thread->abort_sample(id, 2);  // in the inbox
  stage.settle();
  stage.thread->abort_sample(id, 0);  // before the prompt, which it computes for the others
  stage.thread->abort_sample(id, 3);
  stage.thread->abort_sample(id, -1);
  stage.settle();
  CHECK(stage.script.samples_aborted == std::vector{std::pair<RequestId, int32_t>(1000, 2)});
  stage.thread->resume();
  const std::vector<RequestOutput> outputs = stage.take_finished(1, *stage.queue);
  CHECK(outputs.size() == 5);
  for (const RequestOutput& output : outputs) CHECK(output.sample_index == 1);
  CHECK(stage.script.samples_aborted.back() == std::pair<RequestId, int32_t>(1000, 0));
  CHECK(stage.thread->num_unfinished() == 0);
}

TEST_CASE("a request whose samples are all aborted is forgotten") {
  Stage stage;
  stage.thread->pause();
  const RequestId id = stage.add(endless(2));
  stage.settle();
  stage.thread->abort_sample(id, 0);
  CHECK(stage.thread->num_unfinished() == 1);
  stage.thread->abort_sample(id, 1);
  CHECK(stage.thread->num_unfinished() == 0);
  stage.settle();
  CHECK(stage.script.aborted == std::vector<RequestId>{1000});  // without a step
  CHECK(stage.script.steps_begun == 0);
}

TEST_CASE("the last output of a request says so, also where another sample was aborted") {
  Stage stage;
  stage.thread->pause();
  const RequestId id = stage.add(tokens(2, 2));
  stage.settle();
  stage.script.hold(true);
  stage.thread->resume();
  // The samples end in the second and the third step.
  stage.script.wait_for_steps(1);
  stage.thread->abort_sample(id, 1);
  stage.script.hold(false);
  const std::vector<RequestOutput> outputs = stage.take_finished(1, *stage.queue);
  CHECK(outputs.size() == 2);
  CHECK(outputs.back().finish_reason == FinishReason::kLength);
}

TEST_CASE("a queue is woken once for a step") {
  Stage stage;
  const int fd = stage.queue->fd();
  CHECK(stage.queue->fd() == fd);
  CHECK_FALSE(readable(fd));
  stage.thread->pause();
  for (int i = 0; i < 8; ++i) stage.add(tokens(1));
  stage.thread->resume();
  pollfd poll_fd{.fd = fd, .events = POLLIN};
  CHECK(poll(&poll_fd, 1, -1) == 1);
  stage.settle();
  eventfd_t count = 0;
  CHECK(eventfd_read(fd, &count) == 0);
  CHECK(count == 1);
  CHECK(stage.queue->take(0ms).size() == 8);
}

TEST_CASE("the descriptor is readable exactly while outputs wait") {
  Stage stage;
  stage.add(tokens(3));
  while (stage.thread->num_unfinished() > 0) std::this_thread::yield();
  const int fd = stage.queue->fd();  // made after they came
  CHECK(readable(fd));
  CHECK(stage.queue->take(kForever).size() == 3);
  CHECK_FALSE(readable(fd));
  CHECK(stage.queue->take(1ms).empty());
  stage.add(tokens(1));
  CHECK(stage.queue->take(kForever).size() == 1);
  CHECK_FALSE(readable(fd));
}

TEST_CASE("a queue that only its requests hold collects") {
  Stage stage;
  auto lone = std::make_shared<OutputQueue>();
  const std::weak_ptr<OutputQueue> watch = lone;
  stage.thread->pause();
  stage.add(tokens(50), lone);
  lone.reset();
  CHECK_FALSE(watch.expired());
  stage.thread->resume();
  stage.add(tokens(100));
  stage.take_finished(1, *stage.queue);
  CHECK(watch.expired());
}

TEST_CASE("no step begins while it is paused") {
  Stage stage;
  stage.thread->pause();
  stage.add(tokens(1));
  stage.settle();
  CHECK(stage.script.steps_begun == 0);
  CHECK(stage.thread->num_unfinished() == 1);
  CHECK(stage.thread->stats().num_running == 1);
  stage.thread->resume();
  stage.take_finished(1, *stage.queue);
}

TEST_CASE("no step begins while the engine sleeps") {
  Stage stage;
  stage.thread->run_between_steps([](Engine& engine) { engine.sleep(1); });
  stage.add(tokens(1));
  stage.settle();
  CHECK(stage.script.steps_begun == 0);
  stage.thread->run_between_steps([](Engine& engine) { engine.wake_up(); });
  stage.take_finished(1, *stage.queue);

  // Past the thread: the step throws, which breaks nothing.
  stage.settle();
  stage.add_held(tokens(2));
  stage.script.sleep_in_step = true;
  stage.script.hold(false);
  stage.settle();
  stage.script.sleep_in_step = false;
  stage.thread->run_between_steps([](Engine& engine) { engine.wake_up(); });
  const std::vector<RequestOutput> outputs = stage.take_finished(1, *stage.queue);
  CHECK(outputs.size() == 2);
  CHECK(outputs.back().error.empty());
}

TEST_CASE("an idle thread does nothing") {
  Stage stage;
  stage.add(tokens(3));
  stage.take_finished(1, *stage.queue);
  stage.settle();
  stage.settle();
  const int looks = stage.script.num_looks;
  std::this_thread::sleep_for(50ms);
  CHECK(stage.script.num_looks - looks <= 1);  // after the settling
}

TEST_CASE("a request that the engine refuses after all ends with its error") {
  Stage stage;
  stage.script.add_error = "structured_outputs: gone";
  stage.add(endless(3));
  const std::vector<RequestOutput> outputs = stage.take_finished(1, *stage.queue);
  REQUIRE(outputs.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(outputs[i].sample_index == static_cast<int32_t>(i));
    CHECK(outputs[i].finish_reason == FinishReason::kError);
    CHECK(outputs[i].error == "structured_outputs: gone");
    CHECK(outputs[i].request_finished == (i == 2));
  }
  CHECK(stage.thread->num_unfinished() == 0);
}

TEST_CASE("a broken engine ends every request with the error, and nothing else") {
  Stage stage;
  auto other = std::make_shared<OutputQueue>();
  stage.add_held(endless());
  const RequestId waiting = stage.add(endless(2), other);
  stage.script.step_error = "scheduler: broken";
  stage.script.hold(false);
  const std::vector<RequestOutput> first = stage.take_finished(1, *stage.queue);
  CHECK(first.back().error == "scheduler: broken");
  const std::vector<RequestOutput> second = stage.take_finished(1, *other);
  REQUIRE(second.size() == 2);
  CHECK(second[0].request_id == waiting);
  CHECK(second[1].finish_reason == FinishReason::kError);
  CHECK(stage.thread->num_unfinished() == 0);
  CHECK_THROWS_WITH_AS(stage.add(tokens(1)), "scheduler: broken", Error);
  int calls = 0;
  stage.thread->run_between_steps([&](Engine&) { ++calls; });
  CHECK(calls == 1);
  stage.thread->abort(waiting);
  CHECK(stage.script.steps_begun == 1);
  stage.thread->close();
}

TEST_CASE("functions run on the thread, in order with requests, and throw at their caller") {
  Stage stage;
  stage.thread->pause();
  stage.add(endless());
  std::thread::id where;
  size_t added = 0;
  stage.thread->run_between_steps([&](Engine& engine) {
    where = std::this_thread::get_id();
    added = stage.script.added.size();
    CHECK(&engine == stage.engine.get());
    CHECK_THROWS_AS(stage.thread->run_between_steps([](Engine&) {}), Error);
    CHECK_THROWS_AS(stage.thread->close(), Error);
    stage.add(endless());  // the others may be called here
    CHECK(stage.thread->num_unfinished() == 2);
  });
  CHECK(where != std::this_thread::get_id());
  CHECK(added == 1);
  CHECK_THROWS_WITH_AS(
      stage.thread->run_between_steps([](Engine&) { throw std::out_of_range("mine"); }), "mine",
      std::out_of_range);
  stage.settle();
  CHECK(stage.script.added.size() == 2);
}

TEST_CASE("closing ends all that waits") {
  Stage stage;
  const RequestId held = stage.add_held(endless(2));
  const RequestId waiting = stage.add(endless());
  std::atomic<int> calls = 0, errors = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&] {
      try {
        stage.thread->run_between_steps([&](Engine&) { ++calls; });
      } catch (const Error&) {
        ++errors;
      }
    });
  }
  std::thread closer([&] { stage.thread->close(); });
  // Closing has begun when calls are refused.
  while (true) {
    try {
      static_cast<void>(stage.thread->stats());
    } catch (const Error&) {
      break;
    }
  }
  stage.script.hold(false);
  for (std::thread& caller : callers) caller.join();
  closer.join();
  CHECK(calls + errors == 3);
  CHECK(errors == 3);
  std::set<std::pair<RequestId, int32_t>> ended;
  for (const RequestOutput& output : stage.queue->take(kForever)) {
    if (!output.finished()) continue;
    CHECK(output.finish_reason == FinishReason::kAbort);
    CHECK(output.error.find("closed") != std::string::npos);
    ended.emplace(output.request_id, output.sample_index);
  }
  CHECK(ended == std::set<std::pair<RequestId, int32_t>>{{held, 0}, {held, 1}, {waiting, 0}});
  CHECK(stage.engine.use_count() == 1);
  CHECK_FALSE(stage.engine->has_unfinished_requests());
}

TEST_CASE("everything but close throws after close") {
  Stage stage;
  const RequestId id = stage.add(endless());
  stage.thread->close();
  stage.thread->close();
  CHECK_THROWS_AS(stage.add(tokens(1)), Error);
  CHECK_THROWS_AS(stage.thread->abort(id), Error);
  CHECK_THROWS_AS(stage.thread->abort_sample(id, 0), Error);
  CHECK_THROWS_AS(stage.thread->run_between_steps([](Engine&) {}), Error);
  CHECK_THROWS_AS(stage.thread->pause(), Error);
  CHECK_THROWS_AS(stage.thread->resume(), Error);
  CHECK_THROWS_AS(static_cast<void>(stage.thread->paused()), Error);
  CHECK_THROWS_AS(static_cast<void>(stage.thread->num_unfinished()), Error);
  CHECK_THROWS_WITH_AS(static_cast<void>(stage.thread->stats()),
                       "engine: it is closed; expected an open one", Error);
}

TEST_CASE("a function may drop the thread that it runs on") {
  Stage stage;
  const std::weak_ptr<Engine> watch = stage.engine;
  stage.engine.reset();
  stage.add(endless());
  EngineThread* thread = stage.thread.release();
  CHECK_NOTHROW(thread->run_between_steps([&](Engine&) { delete thread; }));
  while (!watch.expired()) std::this_thread::yield();
}

TEST_CASE("an endless stream of requests starves no step") {
  Stage stage;
  std::atomic<bool> stop = false;
  auto nobody = std::make_shared<OutputQueue>();
  std::thread adder([&] {
    while (!stop) stage.add(tokens(1), nobody);
  });
  stage.add(tokens(30));
  CHECK(stage.take_finished(1, *stage.queue).size() == 30);
  stop = true;
  adder.join();
}

TEST_CASE("ids count up in the order of submission, whoever submits") {
  Stage stage;
  stage.thread->pause();
  std::vector<std::vector<RequestId>> ids(4);
  std::vector<std::thread> threads;
  for (auto& mine : ids) {
    threads.emplace_back([&stage, &mine] {
      for (int i = 0; i < 500; ++i) mine.push_back(stage.add(tokens(1)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<RequestId> all;
  for (const auto& mine : ids) {
    CHECK(std::ranges::is_sorted(mine));
    all.insert(mine.begin(), mine.end());
  }
  CHECK(all.size() == 2000);
  CHECK(*all.rbegin() == 1999);
  CHECK(stage.thread->num_unfinished() == 2000);
  stage.thread->resume();
  // The engine got them in this order too.
  RequestId next = 0;
  for (const RequestOutput& output : stage.take_finished(2000, *stage.queue)) {
    CHECK(output.request_id == next++);
  }
}

// Runs `body` in a child, where 0 is success.
void check_in_child(const std::function<bool()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(body() ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

bool refuses(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return std::string_view(error.what()).find("forked") != std::string_view::npos;
  }
  return false;
}

TEST_CASE("a forked child is told so, and destroys without waiting") {
  Stage stage;
  const RequestId id = stage.add_held(endless());
  std::thread taker([&] { stage.queue->take(kForever); });
  check_in_child([&] {
    EngineThread& thread = *stage.thread;
    const bool told =
        refuses([&] { stage.add(tokens(1)); }) && refuses([&] { thread.abort(id); }) &&
        refuses([&] { thread.abort_sample(id, 0); }) && refuses([&] { thread.pause(); }) &&
        refuses([&] { thread.resume(); }) && refuses([&] { thread.run_between_steps({}); }) &&
        refuses([&] { static_cast<void>(thread.paused()); }) &&
        refuses([&] { static_cast<void>(thread.stats()); }) &&
        refuses([&] { static_cast<void>(thread.num_unfinished()); }) &&
        refuses([&] { stage.queue->take(0ms); }) &&
        refuses([&] { static_cast<void>(stage.queue->fd()); });
    thread.close();
    stage.thread.reset();
    delete new OutputQueue();
    stage.queue.reset();
    return told;
  });
  stage.script.hold(false);
  taker.join();
  stage.thread->abort(id);
  stage.settle();
  stage.queue->take(0ms);
  stage.add(tokens(2));
  CHECK(stage.take_finished(1, *stage.queue).size() == 2);
}

}  // namespace
}  // namespace octavo
