// Phi-3.5-MoE: LayerNorm and biases throughout, LongRoPE, and the sparse mixer instead of a softmax
// over all experts. Beyond the original context the long factors count, as in the authors' code;
// transformers 5 keeps the short ones there.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

constexpr ExpertKeys experts{"num_local_experts", "num_experts_per_tok", "intermediate_size"};

void read(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.norm = NormKind::layer_bias;
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.output_bias = r.flag("lm_head_bias", false);
  c.window = r.whole("sliding_window", 0);
  const int k = read_experts(r, c, experts);
  if (k != 2)
    r.refuse(concat("num_experts_per_tok is ", k, " and the sparse mixer chooses 2"));
  c.moe.router = concat("sparsemixer:eps=", r.real("router_jitter_noise", 0.01));
}

void write(const ModelConfig& c, Json& j) {
  write_experts(c, j, experts);
  Spec router(c.moe.router);
  j["router_jitter_noise"] = router.name() == "sparsemixer" ? router.get("eps", 0.01) : 0.01;
  j["input_jitter_noise"] = 0.0;
  j["attention_bias"] = c.qkv_bias;
  j["lm_head_bias"] = c.output_bias;
  j["sliding_window"] = c.window > 0 ? Json(c.window) : Json(nullptr);
  j.erase("head_dim");
}

}  // namespace

FamilyRules phimoe_family() {
  Packed packed = mixtral_packed();
  packed.below = {{"moe.router.weight", "mlp.router.weight"}};
  return {read, write, mixtral_names(), packed};
}

}  // namespace moe
