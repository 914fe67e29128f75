// The definition of how one row of logits becomes a token (backend/op_args.h, SampleRow). Scalar,
// stateless and the same bits on every machine; the host back ends call it from any thread.
#pragma once

#include <cstdint>

#include "backend/op_args.h"

namespace octavo {

// The id chosen from logits [vocab], which are overwritten; -1 where they hold a NaN, where every
// id is at -infinity, or where the custom edit gave up. `logprobs`, where it is given and the row
// wants them, gets its answer.
int32_t sample_row(float* logits, int64_t vocab, const SampleRow& row,
                   TokenLogprobs* logprobs = nullptr);

}  // namespace octavo
