// The log-probabilities of one row of logits (op_args.h, LogprobRequest). Scalar, stateless and the
// same bits on every machine; the host back ends call it from any thread.
#pragma once

#include <cstdint>

#include "backend/op_args.h"

namespace octavo {

// Of `token` and the tokens that the request wants, from values [vocab] that hold no NaN.
TokenLogprobs row_logprobs(const float* values, int64_t vocab, int32_t token,
                           const LogprobRequest& request);

}  // namespace octavo
