#include "sample/edit_state.h"

#include <doctest/doctest.h>

namespace octavo {
namespace {

using Ids = std::vector<int32_t>;

Ids bad_after(const SamplingParams& params, const Ids& output) {
  EditState state(params, Ids{1, 2});
  for (int32_t token : output) state.append(token);
  const auto bad = state.edits({}).bad;
  return {bad.begin(), bad.end()};
}

TEST_CASE("a bad word's last token is forbidden where the output ends with the rest") {
  const SamplingParams params{.bad_words = {{5}, {3, 4}, {3, 3, 6}}};
  CHECK(bad_after(params, {}) == Ids{5});
  CHECK(bad_after(params, {3}) == Ids{5, 4});
  CHECK(bad_after(params, {3, 3}) == Ids{5, 4, 6});
  CHECK(bad_after(params, {3, 3, 3, 3}) == Ids{5, 4, 6});
  CHECK(bad_after(params, {3, 9}) == Ids{5});
  // The prompt's tokens do not begin a word.
  CHECK(bad_after({.bad_words = {{2, 7}}}, {}).empty());
}

TEST_CASE("tokens are counted in prompt and output") {
  EditState state({.frequency_penalty = 0.5f, .repetition_penalty = 1.2f}, Ids{7, 7, 8});
  state.append(8);
  state.append(9);
  state.append(9);
  const LogitEdits edits = state.edits({});
  CHECK(edits.frequency_penalty == 0.5f);
  CHECK(edits.repetition_penalty == 1.2f);
  REQUIRE(edits.counts.size() == 3);
  const auto is = [&](size_t i, int32_t id, int32_t in_output, bool in_prompt) {
    return edits.counts[i].token_id == id && edits.counts[i].in_output == in_output &&
           edits.counts[i].in_prompt == in_prompt;
  };
  CHECK(is(0, 7, 0, true));
  CHECK(is(1, 8, 1, true));
  CHECK(is(2, 9, 2, false));
}

TEST_CASE("without penalties nothing is counted") {
  EditState state({}, Ids{7});
  state.append(8);
  CHECK(state.edits({}).counts.empty());
}

TEST_CASE("allowed ids are sorted, banned ones passed on") {
  EditState state({.logit_bias = {{4, 1.5f}}, .allowed_token_ids = {9, 2, 5}}, {});
  const Ids banned = {2};
  const LogitEdits edits = state.edits(banned);
  CHECK(Ids(edits.allowed.begin(), edits.allowed.end()) == Ids{2, 5, 9});
  CHECK(Ids(edits.banned.begin(), edits.banned.end()) == Ids{2});
  CHECK(edits.bias[0].token_id == 4);
  CHECK(edits.bias[0].bias == 1.5f);
}

}  // namespace
}  // namespace octavo
