#include "kernels/embed.cuh"

#include "launch/dispatch.h"
#include "launch/rows.h"

namespace octavo::cuda {
namespace {

template <typename T, int kWidth, bool kAccumulate>
void launch_lookup_of(LookupParams params, int64_t rows, const char* word, cudaStream_t stream) {
  static const bool early = waits_for_earlier_kernels(lookup_kernel<T, kWidth, kAccumulate>);
  const int64_t blocks = divide_up(divide_up(params.columns, kWidth), kElementThreads);
  params.blocks_per_row = static_cast<int32_t>(grid_blocks(blocks, word));
  launch_dependent(lookup_kernel<T, kWidth, kAccumulate>, dim3(grid_blocks(rows * blocks, word)),
                   dim3(kElementThreads), 0, early, stream, params);
  check_launch(word);
}

struct Lookup {
  Tensor source;  // [any, columns]
  Tensor ids;     // int32 [rows]
  int32_t offset;
  bool accumulate;
  Tensor out;  // [rows, columns]
};

void launch_lookup(const Lookup& args, const char* word, cudaStream_t stream) {
  if (args.out.size() == 0) return;
  const LookupParams params{.source = args.source.data(),
                            .ids = args.ids.as<int32_t>(),
                            .out = args.out.data(),
                            .source_stride = args.source.stride(0),
                            .out_stride = args.out.stride(0),
                            .columns = args.out.dim(1),
                            .blocks_per_row = 0,
                            .offset = args.offset};
  const bool vectors = has_vectors(args.source) && has_vectors(args.out);
  with_type(args.out.dtype(), word, [&](auto tag) {
    using T = decltype(tag);
    const int64_t rows = args.out.dim(0);
    if (args.accumulate) {
      vectors ? launch_lookup_of<T, kVector<T>, true>(params, rows, word, stream)
              : launch_lookup_of<T, 1, true>(params, rows, word, stream);
    } else {
      vectors ? launch_lookup_of<T, kVector<T>, false>(params, rows, word, stream)
              : launch_lookup_of<T, 1, false>(params, rows, word, stream);
    }
  });
}

}  // namespace

void launch_gather_rows(const GatherRowsArgs& args, cudaStream_t stream) {
  launch_lookup(
      {.source = args.x, .ids = args.rows, .offset = 0, .accumulate = false, .out = args.out},
      "gather_rows", stream);
}

void launch_embed(const EmbedRows& args, cudaStream_t stream) {
  // Two rows stand for the table: its number of rows says nothing about its alignment.
  const Tensor table(const_cast<void*>(args.table), args.out.dtype(), {2, args.out.dim(1)});
  launch_lookup({.source = table,
                 .ids = args.ids,
                 .offset = args.offset,
                 .accumulate = args.accumulate,
                 .out = args.out},
                "embed", stream);
}

}  // namespace octavo::cuda
