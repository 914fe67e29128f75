#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "ops/backends.h"
#include "ops/compare.h"
#include "ops/ragged_batch.h"
#include "ops/shapes.h"

namespace octavo::test {
namespace {

// One sequence of three blocks, the last one not full, and eight blocks of NaN.
RaggedCase layer_case(DType dtype, int32_t head_dim) {
  RaggedCase c{2, 1, head_dim, dtype, {{39, 1}}};
  c.spare_blocks = 8;
  return c;
}

TEST_CASE("copy_blocks copies keys and values of every layer") {
  for (DType dtype : kFloatingDTypes) {
    for_each_backend([&](Backend& backend, const std::string& name) {
      // Layers of different sizes; equal layouts give both the same block ids.
      RaggedRun first(backend, layer_case(dtype, 64)), second(backend, layer_case(dtype, 20));
      RaggedRun* runs[] = {&first, &second};
      REQUIRE(first.blocks().tables == second.blocks().tables);
      const std::vector<KvLayer> layers = {first.kv(), second.kv()};
      const std::vector<int32_t> own = first.blocks().tables, spare = first.blocks().spare;
      std::vector<BlockCopy> copies;
      for (int i = 0; i < 3; ++i) copies.push_back({own[i], spare[i]});
      const std::vector<float> before[] = {first.step().attention, second.step().attention};
      backend.copy_blocks(layers, copies);
      for (int layer : {0, 1}) {
        const std::string what = name + ": layer " + std::to_string(layer);
        check_same_bits(what + ", sources", runs[layer]->step().attention, before[layer]);
        for (int i = 0; i < 3; ++i) runs[layer]->blocks().tables[i] = spare[i];
        check_same_bits(what + ", copies", runs[layer]->step().attention, before[layer]);
      }
    });
  }
}

TEST_CASE("a forked sequence writes into its copy alone") {
  for_each_backend([&](Backend& backend, const std::string& name) {
    RaggedRun run(backend, layer_case(DType::kFloat32, 32));
    const std::vector<float> before = run.step().attention;
    const std::vector<int32_t> own = run.blocks().tables;
    const int32_t fork = run.blocks().spare[0];
    const KvLayer layer = run.kv();
    const BlockCopy copy{own[2], fork};
    backend.copy_blocks({&layer, 1}, {&copy, 1});
    // Shares two blocks with its parent, whose last block becomes NaN.
    const BlockCopy ruin{run.blocks().spare[7], own[2]};
    backend.copy_blocks({&layer, 1}, {&ruin, 1});
    run.blocks().tables[2] = fork;
    check_same_bits(name + ": fork", run.step().attention, before);
  });
}

TEST_CASE("copy_blocks copies in order") {
  for_each_backend([&](Backend& backend, const std::string& name) {
    RaggedRun run(backend, layer_case(DType::kBFloat16, 32));
    const std::vector<float> before = run.step().attention;
    const std::vector<int32_t> own = run.blocks().tables, spare = run.blocks().spare;
    const KvLayer layer = run.kv();
    // Each block goes on through the place of the one before it, which is overwritten meanwhile.
    const std::vector<BlockCopy> copies = {{own[0], spare[0]}, {spare[0], spare[1]},
                                           {own[1], spare[0]}, {spare[0], spare[2]},
                                           {own[2], spare[0]}, {spare[7], own[2]}};
    backend.copy_blocks({&layer, 1}, copies);
    backend.copy_blocks({&layer, 1}, {});
    run.blocks().tables = {spare[1], spare[2], spare[0], -1};
    check_same_bits(name + ": chain", run.step().attention, before);
  });
}

}  // namespace
}  // namespace octavo::test
