#include "base/thread_pool.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "octavo/error.h"

namespace octavo {
namespace {

TEST_CASE("every task runs exactly once") {
  for (const int32_t threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (const int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
      pool.parallel_for(tasks, [&](int64_t task) { ++runs[static_cast<size_t>(task)]; });
      for (const auto& count : runs) CHECK(count == 1);
    }
  }
}

TEST_CASE("no two concurrent calls have the same thread number") {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  std::atomic<int> clashes = 0;
  for (int loop = 0; loop < 200; ++loop) {
    pool.parallel_for(16, [&](int64_t, int32_t thread) {
      if (++inside[static_cast<size_t>(thread)] != 1) ++clashes;
      --inside[static_cast<size_t>(thread)];
    });
  }
  CHECK(clashes == 0);
}

TEST_CASE("many short loops in a row") {
  ThreadPool pool(3);
  int64_t expected = 0;
  std::atomic<int64_t> sum = 0;
  for (int64_t loop = 0; loop < 20000; ++loop) {
    const int64_t tasks = loop % 5;
    for (int64_t task = 0; task < tasks; ++task) expected += loop ^ task;
    pool.parallel_for(tasks, [&, loop](int64_t task) { sum += loop ^ task; });
  }
  CHECK(sum == expected);
}

TEST_CASE("what tasks wrote is visible to the caller and to the next loop") {
  ThreadPool pool(2);
  std::vector<int64_t> values(512, 0);
  for (int loop = 0; loop < 200; ++loop) {
    pool.parallel_for(512, [&](int64_t i) { values[static_cast<size_t>(511 - i)] += i; });
  }
  for (int64_t i = 0; i < 512; ++i) CHECK(values[static_cast<size_t>(511 - i)] == 200 * i);
}

TEST_CASE("an exception reaches the caller and the pool goes on") {
  ThreadPool pool(2);
  for (int loop = 0; loop < 50; ++loop) {
    CHECK_THROWS_WITH_AS(pool.parallel_for(20,
                                           [](int64_t task) {
                                             if (task % 7 == 3) throw std::runtime_error("seven");
                                           }),
                         "seven", std::runtime_error);
    std::atomic<int> runs = 0;
    pool.parallel_for(20, [&](int64_t) { ++runs; });
    CHECK(runs == 20);
  }
}

TEST_CASE("nested loops run inline") {
  ThreadPool pool(2);
  std::atomic<int> runs = 0;
  std::atomic<int> foreign = 0;
  pool.parallel_for(4, [&](int64_t, int32_t outer) {
    pool.parallel_for(5, [&](int64_t, int32_t inner) {
      ++runs;
      if (inner != outer) ++foreign;
    });
  });
  CHECK(runs == 20);
  CHECK(foreign == 0);
}

TEST_CASE("callers on two threads take turns") {
  ThreadPool pool(2);
  std::atomic<int> runs = 0;
  const auto call = [&] {
    for (int i = 0; i < 500; ++i) pool.parallel_for(3, [&](int64_t) { ++runs; });
  };
  std::thread other(call);
  call();
  other.join();
  CHECK(runs == 3000);
}

TEST_CASE("a bad number of threads is refused") {
  CHECK_THROWS_AS(ThreadPool(0), InvalidArgument);
  CHECK_THROWS_AS(ThreadPool(-3), InvalidArgument);
}

TEST_CASE("idle workers sleep") {
  ThreadPool pool(2);
  pool.parallel_for(8, [](int64_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  timespec before{}, after{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  const double seconds = static_cast<double>(after.tv_sec - before.tv_sec) +
                         1e-9 * static_cast<double>(after.tv_nsec - before.tv_nsec);
  CHECK(seconds < 0.1);
}

// The exit code of a child that runs `body` and must end by itself.
template <typename Body>
int exit_code_of_child(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    int code = 99;
    try {
      code = body();
    } catch (...) {
    }
    _exit(code);
  }
  REQUIRE(child > 0);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_CASE("a forked child gets a clear error and can make a pool of its own") {
  auto pool = std::make_unique<ThreadPool>(2);
  std::atomic<int> runs = 0;
  pool->parallel_for(8, [&](int64_t) { ++runs; });
  CHECK(runs == 8);

  const int code = exit_code_of_child([&] {
    try {
      pool->parallel_for(8, [](int64_t) {});
      return 1;
    } catch (const Error& error) {
      const std::string message = error.what();
      if (message.find("fork") == std::string::npos) return 2;
      if (message.find("new engine") == std::string::npos) return 3;
    }
    pool.reset();  // must not wait for threads that do not exist
    std::atomic<int> child_runs = 0;
#ifdef __SANITIZE_THREAD__  // which cannot start threads in the child of a threaded process
    ThreadPool fresh(1);
#else
    ThreadPool fresh(2);
#endif
    fresh.parallel_for(8, [&](int64_t) { ++child_runs; });
    return child_runs == 8 ? 0 : 4;
  });
  CHECK(code == 0);

  pool->parallel_for(8, [&](int64_t) { ++runs; });
  CHECK(runs == 16);
}

}  // namespace
}  // namespace octavo
