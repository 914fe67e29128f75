// Words of one row, packing, and rows as weights of integers take them.
// clang-format off
#include "cpu/kernels.inc"
#include "cpu/linear_task.h"
#include "cpu/kv_layout.h"
#include "cpu/row_kernels.h"
// clang-format on

namespace octavo::OCTAVO_ISA_NAMESPACE {

// Emitted here: an inline function of a shared header may not be.
static int64_t integer_row_bytes(int64_t in) { return quantized_row_bytes(in); }

template <class E>
void add_element_type(KernelTable& table, DType dtype) {
  table.rope_store[static_cast<int>(dtype)] = rope_store<E>;
  table.pack_panel[static_cast<int>(dtype)] = pack_panel<E>;
  table.read_row[static_cast<int>(dtype)] = read_row<E>;
}

void add_rows(KernelTable& table) {
  add_element_type<float>(table, DType::kFloat32);
  add_element_type<Float16>(table, DType::kFloat16);
  add_element_type<BFloat16>(table, DType::kBFloat16);
  table.rope_store[static_cast<int>(DType::kInt8)] = rope_store<Int8>;
  for (int form = static_cast<int>(WeightForm::kInt4); form < kNumWeightForms; ++form) {
    table.prepared_row[form] = {quantize_row, integer_row_bytes};
  }
  table.rms_norm = rms_norm;
  table.layer_norm = layer_norm;
  table.gate = gate;
}

}  // namespace octavo::OCTAVO_ISA_NAMESPACE
