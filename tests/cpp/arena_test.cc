#include "tensor/arena.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>

namespace octavo {
namespace {

int live_buffers = 0;

Buffer make_buffer(size_t bytes) {
  ++live_buffers;
  return Buffer(std::aligned_alloc(Arena::kAlignment, bytes), bytes, [](void* data, size_t, void*) {
    --live_buffers;
    std::free(data);
  });
}

TEST_CASE("a buffer is released once, by its last owner") {
  live_buffers = 0;
  {
    Buffer first = make_buffer(64);
    Buffer second = std::move(first);
    CHECK(first.data() == nullptr);
    CHECK(second.bytes() == 64);
    second = make_buffer(128);
    CHECK(live_buffers == 1);
    CHECK(second.bytes() == 128);
  }
  CHECK(live_buffers == 0);
}

TEST_CASE("allocations are aligned and do not overlap") {
  Arena arena(make_buffer(1024));
  const Tensor first = arena.allocate(DType::kFloat32, {3, 5});  // 60 bytes
  const Tensor second = arena.allocate(DType::kBFloat16, {33});  // 66 bytes
  const Tensor third = arena.allocate(DType::kInt32, {1});
  CHECK(reinterpret_cast<uintptr_t>(first.data()) % Arena::kAlignment == 0);
  CHECK(second.as<char>() - first.as<char>() == 64);
  CHECK(third.as<char>() - second.as<char>() == 128);
  CHECK(first.dim(1) == 5);
  CHECK(arena.peak_bytes() == 256);
}

TEST_CASE("a scope gives back what was allocated in it, and the peak remembers it") {
  Arena arena(make_buffer(1024));
  arena.allocate(DType::kFloat32, {16});
  void* inside = nullptr;
  {
    const Arena::Scope scope(arena);
    inside = arena.allocate(DType::kFloat32, {64}).data();
  }
  CHECK(arena.allocate(DType::kFloat32, {1}).data() == inside);
  CHECK(arena.peak_bytes() == 64 + 256);
  arena.reset();
  CHECK(arena.peak_bytes() == 64 + 256);
  CHECK(static_cast<char*>(arena.allocate(DType::kFloat32, {1}).data()) + 64 == inside);
}

TEST_CASE("asking for more than was planned is an error, not a write out of bounds") {
  Arena arena(make_buffer(128));
  arena.allocate(DType::kFloat32, {32});
  CHECK_THROWS_AS(arena.allocate(DType::kFloat32, {1}), InternalError);
}

TEST_CASE("a measuring arena counts what a backed one then uses") {
  const auto work = [](Arena& arena) {
    arena.allocate(DType::kFloat32, {10, 7});
    const Arena::Scope scope(arena);
    arena.allocate(DType::kFloat16, {1000});
  };
  Arena measured;
  CHECK(measured.measuring());
  CHECK(measured.allocate(DType::kFloat32, {4}).data() == nullptr);
  measured.reset();
  work(measured);
  Arena backed(make_buffer(measured.peak_bytes()));
  CHECK_FALSE(backed.measuring());
  work(backed);
  CHECK(backed.peak_bytes() == measured.peak_bytes());
  CHECK(backed.capacity_bytes() == measured.peak_bytes());
}

}  // namespace
}  // namespace octavo
