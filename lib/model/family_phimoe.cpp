// Phi-3.5-MoE: LayerNorm and biases throughout, LongRoPE, and the sparse mixer instead of a softmax over all experts. Beyond the original
// context the long factors count, as in the authors' code; transformers 5 keeps the short ones there.
#include "lib/core/error.h"
#include "lib/model/family.h"

namespace moe {
namespace {

void read(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c, {.theta = 1e6, .eps = 1e-5});
  c.norm = NormKind::layer_bias;
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false), c.output_bias = r.flag("lm_head_bias", false);
  c.window = r.whole("sliding_window", 0);
  const int k = read_experts(r, c, {"num_local_experts", "num_experts_per_tok", "intermediate_size"});
  if (k != 2) r.refuse(concat("num_experts_per_tok is ", k, " and the sparse mixer chooses 2"));
  c.moe.router = concat("sparsemixer:eps=", r.real("router_jitter_noise", 0.01));
}

}  // namespace

FamilyRules phimoe_family() { return {read, mixtral_names()}; }

}  // namespace moe
