// The words of the CPU back end that multiply by weights.
#include <algorithm>

#include "base/check.h"
#include "cpu/cpu_backend.h"

namespace octavo {
namespace {

constexpr int64_t kTasksPerThread = 4;  // so that a thread that was held up leaves little behind
// Multiplications below which waking the pool costs more than it saves.
constexpr double kSerialProducts = 65536;

// How the rows and panels of a product are divided among tasks. No output depends on it.
struct LinearSplit {
  int64_t row_tasks, rows;      // rows of a task at most
  int64_t panel_tasks, panels;  // panels of a task at most
};

LinearSplit split_linear(int64_t rows, int64_t panels, int64_t threads, double products) {
  LinearSplit split{};
  split.row_tasks = (rows + kMaxTaskRows - 1) / kMaxTaskRows;
  split.rows = (rows + split.row_tasks - 1) / split.row_tasks;
  const bool serial = threads == 1 || products < kSerialProducts;
  const int64_t wanted = serial ? 1 : kTasksPerThread * threads;
  const int64_t panel_tasks = (wanted + split.row_tasks - 1) / split.row_tasks;
  split.panels = std::clamp<int64_t>(panels / panel_tasks, 1, kMaxTaskPanels);
  split.panel_tasks = (panels + split.panels - 1) / split.panels;
  return split;
}

// The task of a whole part, whose rows of outputs begin at the part's first one.
LinearTask part_task(const CpuWeight& weight, const CpuWeight::Part& part, const Tensor& bias,
                     const Tensor& residual, const Tensor& out) {
  LinearTask task{};
  task.weight = part.panels;
  task.panel_bytes = part.panel_bytes;
  task.in = weight.in_features();
  task.out = part.rows;
  task.bias = bias ? bias.as<float>() + part.first_row : nullptr;
  task.residual = residual ? residual.as<float>() + part.first_row : nullptr;
  task.residual_stride = residual ? residual.stride(0) : 0;
  task.y = out.as<float>() + part.first_row;
  task.y_stride = out.stride(0);
  return task;
}

}  // namespace

CpuBackend::PreparedRows CpuBackend::prepare_rows(const Tensor& x, WeightForm form) {
  const PreparedRow& prepared = kernels_.prepared_row[static_cast<int>(form)];
  if (prepared.prepare == nullptr) {
    return {x.data(), x.stride(0) * static_cast<int64_t>(sizeof(float))};
  }
  // A line more, so that rows do not share a set of the cache.
  constexpr int64_t kLine = 64;
  const int64_t rows = x.dim(0), in = x.dim(1);
  const int64_t stride = (prepared.bytes(in) + kLine - 1) / kLine * kLine + kLine;
  const auto bytes = static_cast<size_t>(rows * stride);
  if (prepared_.bytes() < bytes) prepared_ = allocate_host_memory(bytes);
  auto* data = static_cast<std::byte*>(prepared_.data());
  for_each_row(rows, x.size() / 2,
               [&](int64_t row) { prepared.prepare(x.row<float>(row), in, data + row * stride); });
  return {data, stride};
}

void CpuBackend::run_linear(const LinearTask& whole, WeightForm form, int64_t rows,
                            int64_t panels) {
  if (rows == 0 || panels == 0) return;
  const bool gated = whole.up_panel != 0;
  const double products = static_cast<double>(rows) * static_cast<double>(whole.in) *
                          static_cast<double>(panels * kPanelWidth) * (gated ? 2 : 1);
  const LinearSplit split = split_linear(rows, panels, pool_.num_threads(), products);
  reserve_scratch(linear_scratch_floats(split.rows, split.panels, gated));
  const auto kernel = kernels_.linear[static_cast<int>(form)];
  const auto run_task = [&](int64_t index, int32_t thread) {
    const int64_t row_task = index % split.row_tasks, panel_task = index / split.row_tasks;
    LinearTask task = whole;
    task.row_begin = rows * row_task / split.row_tasks;
    task.row_end = rows * (row_task + 1) / split.row_tasks;
    task.panel_begin = panels * panel_task / split.panel_tasks;
    task.panel_end = panels * (panel_task + 1) / split.panel_tasks;
    task.scratch = scratch(thread);
    kernel(task);
  };
  const int64_t tasks = split.row_tasks * split.panel_tasks;
  if (products < kSerialProducts) {
    // One task of the pool, for its checks, and all of it on this thread.
    pool_.parallel_for(1, [&](int64_t, int32_t thread) {
      for (int64_t index = 0; index < tasks; ++index) run_task(index, thread);
    });
  } else {
    pool_.parallel_for(tasks, run_task);
  }
}

void CpuBackend::linear(const LinearArgs& args) {
  check_args(args);
  OCTAVO_CHECK(args.x.dtype() == DType::kFloat32, "linear: x is ", dtype_name(args.x.dtype()),
               "; expected float32");
  const auto& weight = static_cast<const CpuWeight&>(*args.weight);
  for (const CpuWeight::Part& part : weight.parts()) {
    LinearTask task = part_task(weight, part, args.bias, args.residual, args.out);
    const PreparedRows x = prepare_rows(args.x, part.form);
    task.x = x.data;
    task.x_stride = x.stride;
    task.activation = args.activation;
    run_linear(task, part.form, args.x.dim(0), part.num_panels());
  }
}

// Gate and up panels are multiplied side by side and meet before they are stored, where their
// features fill whole panels.
void CpuBackend::gated_mlp(const GatedMlpArgs& args) {
  const int64_t intermediate = args.scratch.rank() == 2 ? args.scratch.dim(1) / 2 : 0;
  const auto& gate_up = static_cast<const CpuWeight&>(*args.gate_up);
  if (intermediate == 0 || intermediate % kPanelWidth != 0 || gate_up.parts().size() != 1) {
    return Backend::gated_mlp(args);
  }
  check_args(args);
  OCTAVO_CHECK(args.x.dtype() == DType::kFloat32, "gated_mlp: x is ", dtype_name(args.x.dtype()),
               "; expected float32");
  const CpuWeight::Part& part = gate_up.parts().front();
  const Tensor gated = args.scratch.columns(0, intermediate);  // [tokens, intermediate]
  LinearTask task = part_task(gate_up, part, args.gate_up_bias, Tensor(), gated);
  const PreparedRows x = prepare_rows(args.x, part.form);
  task.x = x.data;
  task.x_stride = x.stride;
  task.activation = args.activation;
  task.out = intermediate;
  task.up_panel = intermediate / kPanelWidth;
  run_linear(task, part.form, args.x.dim(0), task.up_panel);
  linear({.x = gated,
          .weight = args.down,
          .bias = args.down_bias,
          .residual = args.residual,
          .out = args.out});
}

}  // namespace octavo
