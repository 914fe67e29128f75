// What is done to a row of logits before it is drawn from (op_args.h, LogitEdits). Scalar and
// stateless but for the custom edit; the host back ends call it from any thread.
#pragma once

#include <cstdint>

#include "backend/op_args.h"

namespace octavo {

// Edits logits [vocab] in place; ids outside the vocabulary have no effect. False where the custom
// edit gave up.
bool edit_logits(float* logits, int64_t vocab, const LogitEdits& edits);

}  // namespace octavo
