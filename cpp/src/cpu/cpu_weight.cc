#include "cpu/cpu_weight.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"
#include "quant/decode.h"

namespace octavo {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

void release_host_memory(void* data, size_t bytes, void*) {
  munmap(data, std::max<size_t>(bytes, 1));
}

void check_segments(std::span<const WeightSegment> segments) {
  OCTAVO_CHECK(!segments.empty(), "pack: no segments; expected at least one");
  for (const WeightSegment& segment : segments) {
    const auto order = static_cast<int64_t>(segment.row_order.size());
    const int64_t out = segment.out_features();
    OCTAVO_CHECK(segment.in_features() == segments[0].in_features(), "pack: a segment has ",
                 segment.in_features(), " in_features; expected ", segments[0].in_features());
    OCTAVO_CHECK(order == 0 || order == out, "pack: row_order has ", order, " rows; expected ",
                 out);
    for (const int32_t row : segment.row_order) {
      OCTAVO_CHECK(row >= 0 && row < out, "pack: row_order has row ", row, "; expected less than ",
                   out);
    }
  }
}

// The bytes of all panels; throws OutOfMemory where they cannot be counted.
size_t panel_bytes(int64_t out, int64_t in, DType dtype) {
  const int64_t panels = out / kPanelWidth + (out % kPanelWidth != 0 ? 1 : 0);
  int64_t bytes = 0;
  if (__builtin_mul_overflow(panels * kPanelWidth, in, &bytes) ||
      __builtin_mul_overflow(bytes, static_cast<int64_t>(dtype_size(dtype)), &bytes)) {
    throw OutOfMemory(str_cat("pack: a weight of [", out, ", ", in,
                              "] has more bytes than can be counted; expected a smaller one"));
  }
  return static_cast<size_t>(bytes);
}

// The work of packing one weight.
class Packer {
 public:
  Packer(std::span<const WeightSegment> segments, DType dtype, const KernelTable& kernels,
         std::byte* panels)
      : segments_(segments),
        in_(segments[0].in_features()),
        element_bytes_(static_cast<int64_t>(dtype_size(dtype))),
        type_(static_cast<size_t>(dtype)),
        kernels_(kernels),
        panels_(panels) {
    int64_t base = 0;
    for (const WeightSegment& segment : segments) {
      bases_.push_back(base);
      base += segment.out_features();
    }
    bases_.push_back(base);
  }

  // Decodes the rows of a panel that lie in plain segments, and turns them.
  void pack_rows(int64_t panel) {
    thread_local std::vector<float> decoded;  // [32, in]
    decoded.resize(static_cast<size_t>(kPanelWidth * in_));
    std::array<const float*, kPanelWidth> rows{};
    for (int64_t lane = 0; lane < kPanelWidth; ++lane) {
      const int64_t row = panel * kPanelWidth + lane;
      if (row >= bases_.back()) break;
      const size_t index = segment_of(row);
      if (segments_[index].transposed) continue;
      float* out = decoded.data() + lane * in_;
      decode_row(segments_[index].matrix, source_row(index, row - bases_[index]), out);
      rows[static_cast<size_t>(lane)] = out;
    }
    kernels_.pack_panel[type_](rows.data(), in_,
                               panels_ + panel * kPanelWidth * in_ * element_bytes_);
  }

  // Row `feature` of the transposed segment `index` is that input feature of all its outputs.
  void pack_transposed_row(size_t index, int64_t feature) {
    const WeightSegment& segment = segments_[index];
    const int64_t out = segment.out_features();
    thread_local std::vector<float> decoded, ordered;  // [out]
    decoded.resize(static_cast<size_t>(out));
    decode_row(segment.matrix, feature, decoded.data());
    const float* values = decoded.data();
    if (!segment.row_order.empty()) {
      ordered.resize(decoded.size());
      for (int64_t i = 0; i < out; ++i) ordered[i] = decoded[source_row(index, i)];
      values = ordered.data();
    }
    for (int64_t done = 0; done < out;) {
      const int64_t row = bases_[index] + done, lane = row % kPanelWidth;
      const int64_t count = std::min(kPanelWidth - lane, out - done);
      const int64_t at = (row / kPanelWidth * in_ + feature) * kPanelWidth + lane;
      kernels_.convert[type_](values + done, count, panels_ + at * element_bytes_);
      done += count;
    }
  }

  bool panel_has_plain_rows(int64_t panel) const {
    const int64_t begin = panel * kPanelWidth;
    const int64_t end = std::min(begin + kPanelWidth, bases_.back());
    for (size_t i = 0; i < segments_.size(); ++i) {
      const bool meets = bases_[i] < end && bases_[i + 1] > begin;
      if (meets && !segments_[i].transposed) return true;
    }
    return false;
  }

 private:
  size_t segment_of(int64_t row) const {
    return static_cast<size_t>(std::upper_bound(bases_.begin(), bases_.end(), row) -
                               bases_.begin() - 1);
  }
  int64_t source_row(size_t index, int64_t row) const {
    const auto& order = segments_[index].row_order;
    return order.empty() ? row : order[static_cast<size_t>(row)];
  }

  std::span<const WeightSegment> segments_;
  std::vector<int64_t> bases_;  // [segments + 1]: the first row of each in the result
  int64_t in_;
  int64_t element_bytes_;
  size_t type_;
  const KernelTable& kernels_;
  std::byte* panels_;
};

}  // namespace

Buffer allocate_host_memory(size_t bytes) {
  void* data = mmap(nullptr, std::max<size_t>(bytes, 1), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    throw OutOfMemory(str_cat("allocate: ", bytes,
                              " bytes cannot be had from the system; expected a smaller size"));
  }
  return Buffer(data, bytes, release_host_memory);
}

std::unique_ptr<CpuWeight> pack_weight(std::span<const WeightSegment> segments, DType dtype,
                                       const KernelTable& kernels, ThreadPool& pool) {
  OCTAVO_CHECK(dtype != DType::kInt32, "pack: dtype is int32; expected a floating dtype");
  check_segments(segments);
  int64_t out = 0;
  for (const WeightSegment& segment : segments) out += segment.out_features();
  const int64_t in = segments[0].in_features();

  Buffer panels = allocate_host_memory(panel_bytes(out, in, dtype));
  // A row of the batch streams through all of it: huge pages spare it a page walk every 4 KiB.
  if (panels.bytes() >= 2 * kHugePageBytes) madvise(panels.data(), panels.bytes(), MADV_HUGEPAGE);
  auto weight = std::make_unique<CpuWeight>(out, in, dtype, std::move(panels));

  Packer packer(segments, dtype, kernels,
                const_cast<std::byte*>(static_cast<const std::byte*>(weight->panels())));
  // Plain rows first: a panel that both kinds share is then completed by the transposed ones.
  pool.parallel_for(weight->num_panels(), [&](int64_t panel) {
    if (packer.panel_has_plain_rows(panel)) packer.pack_rows(panel);
  });
  for (size_t index = 0; index < segments.size(); ++index) {
    if (!segments[index].transposed) continue;
    pool.parallel_for(in, [&](int64_t row) { packer.pack_transposed_row(index, row); });
  }
  return weight;
}

}  // namespace octavo
