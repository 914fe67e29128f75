// What the layers of a model need in one step: the back end, the workspace and the ragged batch's
// inputs on the device. Made by the model runner for each step, used on the step thread.
#pragma once

#include "backend/backend.h"
#include "tensor/arena.h"
#include "tensor/tensor.h"

namespace octavo {

struct ForwardContext {
  Backend& backend;
  Arena& arena;
  DType dtype;         // of activations
  int64_t num_tokens;  // rows of the batch
  Tensor token_ids;    // int32 [tokens]
  Tensor positions;    // int32 [tokens]: place in the sequence
  Tensor slots;        // int32 [tokens]: where the token's keys and values go
  Tensor rotary_rows;  // int32 [tokens]: row of the rotary table

  Tensor activations(int64_t rows, int64_t columns) const {
    return arena.allocate(dtype, {rows, columns});
  }
};

}  // namespace octavo
