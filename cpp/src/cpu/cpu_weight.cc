#include "cpu/cpu_weight.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"
#include "cpu/integer_panel.h"
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

WeightForm floating_form(DType dtype) { return static_cast<WeightForm>(dtype); }

WeightForm form_of(const WeightSegment& segment, const WeightTarget& target) {
  if (target.integers != IntegerWeights::kNone && !segment.transposed) {
    if (const auto form = integer_form_of(segment.matrix.scheme)) return *form;
  }
  if (target.integers == IntegerWeights::kInt8 && segment.in_features() % kQuantBlock == 0) {
    return WeightForm::kInt8Channel;
  }
  return floating_form(target.dtype);
}

// Runs of segments of one form. A panel has one form, so where runs do not fill panels, all become
// floating.
std::vector<CpuWeight::Part> plan_parts(std::span<const WeightSegment> segments,
                                        const WeightTarget& target) {
  std::vector<CpuWeight::Part> parts;
  int64_t row = 0;
  for (const WeightSegment& segment : segments) {
    const WeightForm form = form_of(segment, target);
    if (parts.empty() || parts.back().form != form) {
      if (row % kPanelWidth != 0) return plan_parts(segments, target.dtype);
      parts.push_back({.form = form, .first_row = row});
    }
    parts.back().rows += segment.out_features();
    row += segment.out_features();
  }
  return parts;
}

// Memory for all panels of the parts, whose addresses it sets. Throws OutOfMemory.
Buffer allocate_panels(int64_t in, std::vector<CpuWeight::Part>& parts) {
  int64_t bytes = 0;
  for (CpuWeight::Part& part : parts) {
    int64_t most = 0;  // bytes of a panel of the widest form
    if (__builtin_mul_overflow(in, 4 * kPanelWidth, &most) ||
        __builtin_mul_overflow(most, part.num_panels() + 1, &most) ||
        __builtin_add_overflow(bytes, most, &most)) {
      throw OutOfMemory(str_cat("pack: a weight of ", part.rows, " rows of ", in,
                                " has more bytes than can be counted; expected a smaller one"));
    }
    part.panel_bytes = panel_bytes(part.form, in);
    bytes += part.panel_bytes * part.num_panels();
  }
  Buffer memory = allocate_host_memory(static_cast<size_t>(bytes));
  // A row of the batch streams through all of it: huge pages spare it a page walk every 4 KiB.
  if (memory.bytes() >= 2 * kHugePageBytes) madvise(memory.data(), memory.bytes(), MADV_HUGEPAGE);
  const auto* panels = static_cast<const std::byte*>(memory.data());
  for (CpuWeight::Part& part : parts) {
    part.panels = panels;
    panels += part.panel_bytes * part.num_panels();
  }
  return memory;
}

// The work of packing one weight.
class Packer {
 public:
  Packer(std::span<const WeightSegment> segments, const KernelTable& kernels, ThreadPool& pool)
      : segments_(segments), in_(segments[0].in_features()), kernels_(kernels) {
    int64_t base = 0;
    for (const WeightSegment& segment : segments) {
      bases_.push_back(base);
      base += segment.out_features();
      transposed_.push_back(segment.transposed ? decoded(segment, pool) : std::vector<float>());
    }
    bases_.push_back(base);
  }

  void pack_panel(const CpuWeight::Part& part, int64_t panel) const {
    auto* out = const_cast<std::byte*>(part.panels) + panel * part.panel_bytes;
    const int64_t first = part.first_row + panel * kPanelWidth;
    if (is_integer(part.form) && part.form != WeightForm::kInt8Channel) {
      pack_integers(part.form, first, out);
    } else {
      pack_floats(part.form, first, out);
    }
  }

 private:
  // A transposed matrix as float32, [in, out].
  static std::vector<float> decoded(const WeightSegment& segment, ThreadPool& pool) {
    std::vector<float> values(static_cast<size_t>(segment.in_features() * segment.out_features()));
    pool.parallel_for(segment.in_features(), [&](int64_t row) {
      decode_row(segment.matrix, row, values.data() + row * segment.out_features());
    });
    return values;
  }

  void pack_integers(WeightForm form, int64_t first_row, std::byte* out) const {
    std::array<EncodedRow, kPanelWidth> rows{};
    for (int64_t lane = 0; lane < kPanelWidth && first_row + lane < bases_.back(); ++lane) {
      const size_t index = segment_of(first_row + lane);
      const QuantizedMatrix& matrix = segments_[index].matrix;
      rows[static_cast<size_t>(lane)] = {
          matrix.scheme, matrix.data + source_row(index, first_row + lane) * matrix.row_bytes()};
    }
    pack_integer_panel(form, rows, in_, out);
  }

  void pack_floats(WeightForm form, int64_t first_row, std::byte* out) const {
    thread_local std::vector<float> decoded;  // [32, in]
    decoded.resize(static_cast<size_t>(kPanelWidth * in_));
    std::array<const float*, kPanelWidth> rows{};
    for (int64_t lane = 0; lane < kPanelWidth && first_row + lane < bases_.back(); ++lane) {
      const size_t index = segment_of(first_row + lane);
      const int64_t source = source_row(index, first_row + lane);
      float* row = decoded.data() + lane * in_;
      rows[static_cast<size_t>(lane)] = row;
      if (segments_[index].transposed) {
        const int64_t out_features = segments_[index].out_features();
        const float* column = transposed_[index].data() + source;
        for (int64_t k = 0; k < in_; ++k) row[k] = column[k * out_features];
      } else {
        decode_row(segments_[index].matrix, source, row);
      }
    }
    if (form == WeightForm::kInt8Channel) return pack_channel_panel(rows, in_, out);
    kernels_.pack_panel[static_cast<size_t>(form)](rows.data(), in_, out);
  }

  size_t segment_of(int64_t row) const {
    return static_cast<size_t>(std::upper_bound(bases_.begin(), bases_.end(), row) -
                               bases_.begin() - 1);
  }
  // Row `row` of the weight as a row of segment `index`.
  int64_t source_row(size_t index, int64_t row) const {
    const auto& order = segments_[index].row_order;
    const int64_t inside = row - bases_[index];
    return order.empty() ? inside : order[static_cast<size_t>(inside)];
  }

  std::span<const WeightSegment> segments_;
  std::vector<int64_t> bases_;                  // [segments + 1]: the first row of each
  std::vector<std::vector<float>> transposed_;  // [segments]: of those that are
  int64_t in_;
  const KernelTable& kernels_;
};

}  // namespace

CpuWeight::CpuWeight(int64_t out_features, int64_t in_features, DType dtype,
                     std::vector<Part> parts, Buffer memory)
    : PackedWeight(out_features, in_features, dtype, memory.bytes()),
      parts_(std::move(parts)),
      memory_(std::move(memory)) {}

void CpuWeight::read_row(const KernelTable& kernels, int64_t row, float* out) const {
  const auto next = std::ranges::upper_bound(parts_, row, {}, &Part::first_row);
  const Part& part = *std::prev(next);
  const int64_t inside = row - part.first_row, lane = inside % kPanelWidth;
  const std::byte* panel = part.panels + inside / kPanelWidth * part.panel_bytes;
  if (is_integer(part.form)) return read_integer_row(part.form, panel, lane, in_features(), out);
  kernels.read_row[static_cast<size_t>(part.form)](panel, lane, in_features(), out);
}

Buffer allocate_host_memory(size_t bytes) {
  void* data = mmap(nullptr, std::max<size_t>(bytes, 1), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    throw OutOfMemory(str_cat("allocate: ", bytes,
                              " bytes cannot be had from the system; expected a smaller size"));
  }
  return Buffer(data, bytes, release_host_memory);
}

std::unique_ptr<CpuWeight> pack_weight(std::span<const WeightSegment> segments,
                                       const WeightTarget& target, const KernelTable& kernels,
                                       ThreadPool& pool) {
  OCTAVO_CHECK(is_floating(target.dtype), "pack: dtype is ", dtype_name(target.dtype),
               "; expected a floating dtype");
  check_segments(segments);
  const int64_t in = segments[0].in_features();
  std::vector<CpuWeight::Part> parts = plan_parts(segments, target);
  Buffer memory = allocate_panels(in, parts);
  const Packer packer(segments, kernels, pool);
  for (const CpuWeight::Part& part : parts) {
    pool.parallel_for(part.num_panels(), [&](int64_t panel) { packer.pack_panel(part, panel); });
  }
  const int64_t out = parts.back().first_row + parts.back().rows;
  return std::make_unique<CpuWeight>(out, in, target.dtype, std::move(parts), std::move(memory));
}

}  // namespace octavo
