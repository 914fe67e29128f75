// Writes and reads panels of integers (weight_form.h). Stateless; threads may work on different
// panels of one weight.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "cpu/weight_form.h"
#include "quant/scheme.h"

namespace octavo {

// The form that holds a scheme's integers; nothing for floating schemes.
std::optional<WeightForm> integer_form_of(Scheme scheme);

// One row of a matrix; null data: padding.
struct EncodedRow {
  Scheme scheme = Scheme::kF32;
  const std::byte* data = nullptr;
};

// `rows` are of the form's scheme; out is a zeroed panel of it.
void pack_integer_panel(WeightForm form, const std::array<EncodedRow, kPanelWidth>& rows,
                        int64_t in, std::byte* out);

// Rows [32][in] of float32, null where padding, as integers of 8 bits with a scale for each row.
void pack_channel_panel(const std::array<const float*, kPanelWidth>& rows, int64_t in,
                        std::byte* out);

// Row `lane` of a panel as float32: out [in].
void read_integer_row(WeightForm form, const std::byte* panel, int64_t lane, int64_t in,
                      float* out);

}  // namespace octavo
