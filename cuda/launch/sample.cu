#include "launch/sample.h"

#include <algorithm>

#include "cuda_error.h"
#include "kernels/sample_row.cuh"

namespace octavo::cuda {
namespace {

static_assert(kMostLogprobs == kMostListed && kMostSampledVocab == kMostVocab);

constexpr int64_t kArgmaxBlocks = 1024;  // as many as help to read a few rows

// Blocks of a group: a slice each, as far as there are clusters.
int group_size(int64_t vocab) {
  static const bool clusters = [] {
    check_cuda(cudaFuncSetAttribute(sample_rows_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    sizeof(SampleShared)),
               "sample");
    cudaFuncAttributes attributes{};
    check_cuda(cudaFuncGetAttributes(&attributes, sample_rows_kernel), "sample");
    return attributes.ptxVersion >= 90;  // code for older devices does not use the cluster
  }();
  int size = 1;
  while (clusters && size < kMostBlocks && int64_t{size} * kSlice < vocab) size *= 2;
  return size;
}

}  // namespace

void launch_argmax(const Argmax& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const int64_t pieces =
      (args.vocab + kArgmaxThreads * kArgmaxAhead - 1) / (kArgmaxThreads * kArgmaxAhead);
  const int64_t splits =
      std::clamp<int64_t>(kArgmaxBlocks / args.rows, 1, std::max<int64_t>(pieces, 1));
  argmax_kernel<<<static_cast<unsigned>(args.rows * splits), kArgmaxThreads, 0, stream>>>(
      args, static_cast<int>(splits));
  check_launch("sample: argmax");
}

void launch_sample_rows(const SampleRows& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const int size = group_size(args.vocab);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(size), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(args.rows * size));
  config.blockDim = dim3(kSampleThreads);
  config.dynamicSmemBytes = sizeof(SampleShared);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = size > 1 ? 1 : 0;
  check_cuda(cudaLaunchKernelEx(&config, sample_rows_kernel, args, size), "sample");
}

}  // namespace octavo::cuda
