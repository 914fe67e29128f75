// The requests that an EngineThread has accepted and not ended, by its own ids, and what the engine
// calls them. Owned by the EngineThread, which calls everything here under its mutex.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "octavo/engine_thread.h"

namespace octavo {

// What a request was submitted with.
struct Submission {
  std::vector<int32_t> prompt_token_ids;
  SamplingParams params;
  std::optional<BeamSearchParams> beams;  // in the place of params
  std::string cache_salt;
  Delivery delivery = Delivery::kEachStep;
};

struct AcceptedRequest {
  std::shared_ptr<OutputQueue> outputs;
  double queued = 0;  // when it was submitted, in seconds of RequestTimes' clock
  std::unique_ptr<Submission> submission;  // until the engine's thread takes it
  std::optional<RequestId> engine_id;      // from when the engine has it
  std::vector<bool> ended;                 // [n], the samples that produce no more outputs
  int32_t num_unended = 0;
  Delivery delivery = Delivery::kEachStep;
  // [n], with Delivery::kWhole: what the running samples have produced, each as one output.
  std::vector<RequestOutput> held;
};

class RequestTable {
 public:
  // Requests are handed out when they end: what they hold may have destructors of the caller's,
  // which must not run under the mutex.
  using Node = std::unordered_map<RequestId, AcceptedRequest>::node_type;
  using Outputs = std::unordered_map<OutputQueue*, std::vector<RequestOutput>>;

  // The id that the next add() gives: they count up.
  RequestId next_id() const { return next_id_; }
  RequestId add(std::unique_ptr<Submission> submission, std::shared_ptr<OutputQueue> outputs,
                double queued);

  // For the engine; none where the request has been aborted.
  std::unique_ptr<Submission> take_submission(RequestId id);
  // The engine has the request. Returns the samples that were aborted meanwhile, or none of that
  // where the whole request was.
  std::optional<std::vector<int32_t>> begin(RequestId id, RequestId engine_id);

  bool contains(RequestId id) const { return requests_.contains(id); }
  int64_t size() const { return static_cast<int64_t>(requests_.size()); }

  // Takes a request out; an empty node where there is none.
  Node remove(RequestId id);
  // Marks a sample as ended; none where it is not in flight.
  AcceptedRequest* end_sample(RequestId id, int32_t sample_index);

  // Sorts a step's outputs by queue, under the ids of this table and without those of what has
  // ended; requests that end by them go to `ended`, which keeps the queues alive.
  Outputs route(std::vector<RequestOutput> outputs, std::vector<Node>& ended);
  // The last output of a sample that its caller has aborted.
  static Outputs end_of_sample(AcceptedRequest& request, RequestId id, int32_t sample_index);
  // One last output for each sample that is left of `request`.
  static void end(Node& request, FinishReason reason, const std::string& error, Outputs& outputs);
  // Takes out all requests.
  std::vector<Node> remove_all();

 private:
  // What is held back of a sample, as its end.
  static RequestOutput last_output(AcceptedRequest& request, RequestId id, size_t index,
                                   FinishReason reason);

  std::unordered_map<RequestId, AcceptedRequest> requests_;
  std::unordered_map<RequestId, RequestId> ids_;  // by the engine's
  RequestId next_id_ = 0;
};

}  // namespace octavo
