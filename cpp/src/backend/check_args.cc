#include <string>

#include "backend/backend.h"
#include "base/check.h"

namespace octavo {
namespace {

std::string describe(const Tensor& tensor) {
  if (!tensor) return "none";
  std::string text = str_cat(dtype_name(tensor.dtype()), " [");
  for (int i = 0; i < tensor.rank(); ++i) text += str_cat(i == 0 ? "" : ", ", tensor.dim(i));
  return text + "]";
}

// The checks of one word; every message is "<word>: <argument> is <found>; expected <wanted>".
// Texts are made only on failure: these checks run on every call.
class Checker {
 public:
  explicit Checker(const char* word) : word_(word) {}

  void tensor(const char* name, const Tensor& tensor, DType dtype,
              std::initializer_list<int64_t> shape) const {
    if (tensor.dtype() == dtype && has_shape(tensor, shape)) [[likely]]
      return;
    std::string wanted = str_cat(dtype_name(dtype), " [");
    for (int64_t extent : shape) wanted += str_cat(wanted.back() == '[' ? "" : ", ", extent);
    fail(name, describe(tensor), wanted + "]");
  }

  void optional_tensor(const char* name, const Tensor& value, DType dtype,
                       std::initializer_list<int64_t> shape) const {
    if (value) tensor(name, value, dtype, shape);
  }

  // The tensor that decides what the others have to be.
  void leading(const char* name, const Tensor& tensor, int rank) const {
    if (tensor.rank() == rank) [[likely]]
      return;
    fail(name, describe(tensor), str_cat("a tensor of ", rank, " dimensions"));
  }
  void activations(const char* name, const Tensor& tensor, int rank) const {
    leading(name, tensor, rank);
    if (tensor.dtype() != DType::kInt32) [[likely]]
      return;
    fail(name, describe(tensor), "a floating dtype");
  }

  void weight(const char* name, const PackedWeight* weight, int64_t out, int64_t in) const {
    if (weight != nullptr && weight->out_features() == out && weight->in_features() == in)
        [[likely]]
      return;
    fail(name,
         weight == nullptr ? std::string("none")
                           : str_cat("[", weight->out_features(), ", ", weight->in_features(), "]"),
         str_cat("a weight of [", out, ", ", in, "]"));
  }

  void that(bool condition, const char* name, const char* found, const char* wanted) const {
    if (!condition) [[unlikely]]
      fail(name, found, wanted);
  }
  void number(bool condition, const char* name, double found, const char* wanted) const {
    if (!condition) [[unlikely]]
      fail(name, str_cat(found), wanted);
  }

 private:
  static bool has_shape(const Tensor& tensor, std::initializer_list<int64_t> shape) {
    if (tensor.rank() != static_cast<int>(shape.size())) return false;
    int i = 0;
    for (int64_t extent : shape) {
      if (tensor.dim(i++) != extent) return false;
    }
    return true;
  }

  [[noreturn]] void fail(const char* name, const std::string& found,
                         const std::string& wanted) const {
    throw InternalError(str_cat(word_, ": ", name, " is ", found, "; expected ", wanted));
  }

  const char* word_;
};

void check_kv(const Checker& check, const KvLayer& kv) {
  check.that(kv.data != nullptr, "kv.data", "null", "the memory of one layer's blocks");
  check.number(kv.shape.block_size > 0, "kv.shape.block_size", kv.shape.block_size, "at least 1");
  check.number(kv.shape.kv_heads > 0, "kv.shape.kv_heads", kv.shape.kv_heads, "at least 1");
  check.number(kv.shape.head_dim > 0, "kv.shape.head_dim", kv.shape.head_dim, "at least 1");
  check.that(kv.shape.dtype != DType::kInt32, "kv.shape.dtype", "int32",
             "a floating dtype or int8");
}

// [tokens, heads, head_dim] of a query against its cache.
void check_query(const Checker& check, const Tensor& q, const KvLayer& kv) {
  check.activations("q", q, 3);
  check_kv(check, kv);
  check.number(q.dim(1) > 0 && q.dim(1) % kv.shape.kv_heads == 0, "heads of q",
               static_cast<double>(q.dim(1)), "a multiple of kv.shape.kv_heads");
  check.number(q.dim(2) == kv.shape.head_dim, "head_dim of q", static_cast<double>(q.dim(2)),
               "kv.shape.head_dim");
}

}  // namespace

void check_args(const EmbedArgs& args) {
  const Checker check("embed");
  check.activations("out", args.out, 2);
  check.tensor("ids", args.ids, DType::kInt32, {args.out.dim(0)});
  check.weight("table", args.table, args.table == nullptr ? 0 : args.table->out_features(),
               args.out.dim(1));
}

void check_args(const LinearArgs& args) {
  const Checker check("linear");
  check.activations("x", args.x, 2);
  check.leading("out", args.out, 2);
  const int64_t tokens = args.x.dim(0), out_features = args.out.dim(1);
  check.weight("weight", args.weight, out_features, args.x.dim(1));
  const bool widened = args.out.dtype() == DType::kFloat32 && !args.residual;
  check.tensor("out", args.out, widened ? DType::kFloat32 : args.x.dtype(), {tokens, out_features});
  check.optional_tensor("bias", args.bias, DType::kFloat32, {out_features});
  check.optional_tensor("residual", args.residual, args.x.dtype(), {tokens, out_features});
}

void check_args(const RmsNormArgs& args) {
  const Checker check("rms_norm");
  check.activations("x", args.x, 2);
  check.tensor("weight", args.weight, DType::kFloat32, {args.x.dim(1)});
  check.tensor("out", args.out, args.x.dtype(), {args.x.dim(0), args.x.dim(1)});
  check.number(args.eps >= 0, "eps", args.eps, "0 or more");
}

void check_args(const LayerNormArgs& args) {
  const Checker check("layer_norm");
  check.activations("x", args.x, 2);
  check.tensor("weight", args.weight, DType::kFloat32, {args.x.dim(1)});
  check.optional_tensor("bias", args.bias, DType::kFloat32, {args.x.dim(1)});
  check.tensor("out", args.out, args.x.dtype(), {args.x.dim(0), args.x.dim(1)});
  check.number(args.eps >= 0, "eps", args.eps, "0 or more");
}

void check_args(const GateArgs& args) {
  const Checker check("gate");
  check.activations("gate", args.gate, 2);
  check.tensor("up", args.up, args.gate.dtype(), {args.gate.dim(0), args.gate.dim(1)});
  check.tensor("out", args.out, args.gate.dtype(), {args.gate.dim(0), args.gate.dim(1)});
}

void check_args(const GatedMlpArgs& args) {
  const Checker check("gated_mlp");
  check.activations("x", args.x, 2);
  check.leading("scratch", args.scratch, 2);
  const int64_t tokens = args.x.dim(0), hidden = args.x.dim(1), both = args.scratch.dim(1);
  check.number(both % 2 == 0, "columns of scratch", static_cast<double>(both),
               "2 * intermediate, an even number");
  check.weight("gate_up", args.gate_up, both, hidden);
  check.weight("down", args.down, hidden, both / 2);
  check.optional_tensor("gate_up_bias", args.gate_up_bias, DType::kFloat32, {both});
  check.optional_tensor("down_bias", args.down_bias, DType::kFloat32, {hidden});
  check.tensor("scratch", args.scratch, args.x.dtype(), {tokens, both});
  check.optional_tensor("residual", args.residual, args.x.dtype(), {tokens, hidden});
  check.tensor("out", args.out, args.x.dtype(), {tokens, hidden});
}

void check_args(const RopeStoreArgs& args) {
  const Checker check("rope_store");
  check_query(check, args.q, args.kv);
  const int64_t tokens = args.q.dim(0);
  const KvShape& shape = args.kv.shape;
  check.tensor("k", args.k, args.q.dtype(), {tokens, shape.kv_heads, shape.head_dim});
  check.tensor("v", args.v, args.q.dtype(), {tokens, shape.kv_heads, shape.head_dim});
  check.tensor("slots", args.slots, DType::kInt32, {tokens});
  if (!args.cos_sin) return;
  check.leading("cos_sin", args.cos_sin, 2);
  const int64_t rotary_dim = args.cos_sin.dim(1);
  check.tensor("cos_sin", args.cos_sin, DType::kFloat32, {args.cos_sin.dim(0), rotary_dim});
  check.number(rotary_dim > 0 && rotary_dim % 2 == 0 && rotary_dim <= shape.head_dim,
               "columns of cos_sin", static_cast<double>(rotary_dim),
               "an even number from 2 to head_dim");
  check.tensor("cos_sin_rows", args.cos_sin_rows, DType::kInt32, {tokens});
}

void check_args(const AttentionArgs& args) {
  const Checker check("attention");
  check_query(check, args.q, args.kv);
  check.tensor("out", args.out, args.q.dtype(), {args.q.dim(0), args.q.dim(1) * args.q.dim(2)});
  check.number(args.window >= 0, "window", args.window, "0 or more");
}

void check_args(const GatherRowsArgs& args) {
  const Checker check("gather_rows");
  check.activations("x", args.x, 2);
  check.leading("rows", args.rows, 1);
  check.tensor("rows", args.rows, DType::kInt32, {args.rows.dim(0)});
  check.tensor("out", args.out, args.x.dtype(), {args.rows.dim(0), args.x.dim(1)});
}

void check_args(const SampleArgs& args) {
  const Checker check("sample");
  const auto rows = static_cast<int64_t>(args.rows.size());
  check.leading("logits", args.logits, 2);
  check.tensor("logits", args.logits, DType::kFloat32, {rows, args.logits.dim(1)});
  check.number(args.logits.dim(1) > 0, "columns of logits", static_cast<double>(args.logits.dim(1)),
               "at least 1");
  check.tensor("out", args.out, DType::kInt32, {rows});
  const int64_t words = (args.logits.dim(1) + 31) / 32;
  for (const SampleRow& row : args.rows) {
    const auto given = static_cast<int64_t>(row.edits.mask.size());
    check.number(given == 0 || given == words, "words of a mask", static_cast<double>(given),
                 "a bit for each id, or none");
  }
}

}  // namespace octavo
