#include "backend/backend.h"

#include "base/check.h"

namespace octavo {

void Backend::gated_mlp(const GatedMlpArgs& args) {
  check_args(args);
  const int64_t intermediate = args.scratch.dim(1) / 2;
  const Tensor gated = args.scratch.columns(0, intermediate);              // [tokens, intermediate]
  const Tensor up = args.scratch.columns(intermediate, 2 * intermediate);  // [tokens, intermediate]
  linear({.x = args.x, .weight = args.gate_up, .bias = args.gate_up_bias, .out = args.scratch});
  gate({.gate = gated, .up = up, .activation = args.activation, .out = gated});
  linear({.x = gated,
          .weight = args.down,
          .bias = args.down_bias,
          .residual = args.residual,
          .out = args.out});
}

Buffer allocate_for(std::string_view what, Backend& backend, size_t bytes) {
  try {
    return backend.allocate(bytes);
  } catch (const OutOfMemory& error) {
    throw OutOfMemory(str_cat(what, ": ", error.what()));
  }
}

}  // namespace octavo
