// The generic decoder-only transformer. An architecture is a subclass that builds the layers and
// overrides the hooks in which it differs.
#pragma once

#include <vector>

#include "layers/attention.h"
#include "layers/embedding.h"
#include "layers/mlp.h"
#include "layers/norm.h"
#include "layers/weight_loader.h"
#include "models/config_reader.h"
#include "models/model.h"
#include "models/registry.h"

namespace octavo {

struct DecoderLayer {
  Norm attention_norm;
  Attention attention;
  Norm mlp_norm;
  Mlp mlp;
};

class Decoder : public Model {
 public:
  Rotary* rotary() override { return rotary_.get(); }
  void forward(const ForwardContext& context, std::span<const KvLayer> kv,
               const Tensor& hidden) override;
  void compute_logits(const ForwardContext& context, const Tensor& hidden, const Tensor& rows,
                      const Tensor& logits) override;

 protected:
  // hidden [tokens, hidden_size] of the batch's tokens. Default: the token embedding.
  virtual void embed(const ForwardContext& context, const Tensor& hidden);
  // Advances hidden by one layer, in place. Default: a norm before each block.
  virtual void run_layer(const ForwardContext& context, const DecoderLayer& layer,
                         const KvLayer& kv, const Tensor& hidden);
  // The logits of `selected` [selected, hidden_size], which may be overwritten. Default: the final
  // norm, where there is one, and the head.
  virtual void apply_head(const ForwardContext& context, const Tensor& selected,
                          const Tensor& logits);

  // The head of tied models is the embedding's own table.
  void load_head(WeightLoader& loader, const std::string& name, bool tied);
  // Sets the context length from the options, at most `positions`, which the configuration calls
  // `key`.
  void set_max_model_len(const ModelOptions& options, int64_t positions, const char* key);

  std::unique_ptr<Rotary> rotary_;
  Embedding token_embedding_;
  std::vector<DecoderLayer> layers_;
  Norm final_norm_;
  Linear head_;
};

}  // namespace octavo
