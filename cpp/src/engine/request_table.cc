#include "engine/request_table.h"

#include <iterator>
#include <utility>

namespace octavo {
namespace {

template <typename T>
void append(std::vector<T>& to, std::vector<T>&& from) {
  if (to.empty()) {
    to = std::move(from);
  } else {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  }
}

// What a running sample has produced joins what is held back of it.
void hold(RequestOutput& held, RequestOutput&& output) {
  append(held.new_token_ids, std::move(output.new_token_ids));
  append(held.logprobs, std::move(output.logprobs));
  append(held.prompt_logprobs, std::move(output.prompt_logprobs));
  held.num_cached_tokens = output.num_cached_tokens;
  held.times = output.times;
}

// Puts what was held back before a sample's last output.
void join(RequestOutput&& held, RequestOutput& output) {
  append(held.new_token_ids, std::move(output.new_token_ids));
  append(held.logprobs, std::move(output.logprobs));
  append(held.prompt_logprobs, std::move(output.prompt_logprobs));
  output.new_token_ids = std::move(held.new_token_ids);
  output.logprobs = std::move(held.logprobs);
  output.prompt_logprobs = std::move(held.prompt_logprobs);
}

}  // namespace

RequestId RequestTable::add(std::unique_ptr<Submission> submission,
                            std::shared_ptr<OutputQueue> outputs, double queued) {
  const int32_t n = submission->params.n;
  const Delivery delivery = submission->delivery;
  requests_.emplace(next_id_, AcceptedRequest{.outputs = std::move(outputs),
                                              .queued = queued,
                                              .submission = std::move(submission),
                                              .ended = std::vector<bool>(static_cast<size_t>(n)),
                                              .num_unended = n,
                                              .delivery = delivery});
  return next_id_++;
}

std::unique_ptr<Submission> RequestTable::take_submission(RequestId id) {
  const auto found = requests_.find(id);
  return found == requests_.end() ? nullptr : std::move(found->second.submission);
}

std::optional<std::vector<int32_t>> RequestTable::begin(RequestId id, RequestId engine_id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return std::nullopt;
  AcceptedRequest& request = found->second;
  ids_.emplace(engine_id, id);
  request.engine_id = engine_id;
  std::vector<int32_t> aborted;
  for (size_t i = 0; i < request.ended.size(); ++i) {
    if (request.ended[i]) aborted.push_back(static_cast<int32_t>(i));
  }
  return aborted;
}

RequestTable::Node RequestTable::remove(RequestId id) {
  Node node = requests_.extract(id);
  if (node && node.mapped().engine_id) ids_.erase(*node.mapped().engine_id);
  return node;
}

AcceptedRequest* RequestTable::end_sample(RequestId id, int32_t sample_index) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return nullptr;
  AcceptedRequest& request = found->second;
  const auto index = static_cast<size_t>(sample_index);
  if (sample_index < 0 || index >= request.ended.size() || request.ended[index]) return nullptr;
  request.ended[index] = true;
  --request.num_unended;
  return &request;
}

RequestTable::Outputs RequestTable::route(std::vector<RequestOutput> outputs,
                                          std::vector<Node>& ended) {
  Outputs routed;
  for (RequestOutput& output : outputs) {
    const auto found = ids_.find(output.request_id);
    if (found == ids_.end()) continue;
    const RequestId id = found->second;
    AcceptedRequest& request = requests_.at(id);
    if (request.ended.at(static_cast<size_t>(output.sample_index))) continue;
    output.request_id = id;
    output.times.queued = request.queued;
    if (request.delivery == Delivery::kWhole) {
      request.held.resize(request.ended.size());
      RequestOutput& held = request.held[static_cast<size_t>(output.sample_index)];
      if (!output.finished()) {
        hold(held, std::move(output));
        continue;
      }
      join(std::exchange(held, {}), output);
    }
    if (output.finished()) end_sample(id, output.sample_index);
    // The engine may wait for samples that their caller has aborted.
    output.request_finished = request.num_unended == 0;
    routed[request.outputs.get()].push_back(std::move(output));
    if (request.num_unended == 0) ended.push_back(remove(id));
  }
  return routed;
}

RequestOutput RequestTable::last_output(AcceptedRequest& request, RequestId id, size_t index,
                                        FinishReason reason) {
  request.held.resize(request.ended.size());
  RequestOutput last = std::exchange(request.held[index], {});
  last.request_id = id;
  last.sample_index = static_cast<int32_t>(index);
  last.finish_reason = reason;
  last.times.queued = request.queued;
  return last;
}

RequestTable::Outputs RequestTable::end_of_sample(AcceptedRequest& request, RequestId id,
                                                  int32_t sample_index) {
  Outputs outputs;
  RequestOutput last =
      last_output(request, id, static_cast<size_t>(sample_index), FinishReason::kAbort);
  last.request_finished = request.num_unended == 0;
  outputs[request.outputs.get()].push_back(std::move(last));
  return outputs;
}

void RequestTable::end(Node& node, FinishReason reason, const std::string& error,
                       Outputs& outputs) {
  AcceptedRequest& request = node.mapped();
  int32_t left = request.num_unended;
  for (size_t i = 0; i < request.ended.size(); ++i) {
    if (request.ended[i]) continue;
    RequestOutput last = last_output(request, node.key(), i, reason);
    last.error = error;
    last.request_finished = --left == 0;
    outputs[request.outputs.get()].push_back(std::move(last));
  }
}

std::vector<RequestTable::Node> RequestTable::remove_all() {
  std::vector<Node> nodes;
  nodes.reserve(requests_.size());
  while (!requests_.empty()) nodes.push_back(requests_.extract(requests_.begin()));
  ids_.clear();
  return nodes;
}

}  // namespace octavo
