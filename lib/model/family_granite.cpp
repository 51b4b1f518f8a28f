// Granite 3 MoE: four multipliers, experts in two fused tensors, the softmax over the chosen logits; with or without a shared expert.
#include "lib/core/error.h"
#include "lib/model/family.h"

namespace moe {
namespace {

void read(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.embedding_scale = r.real("embedding_multiplier", 1), c.residual_scale = r.real("residual_multiplier", 1);
  c.logit_divisor = r.real("logits_scaling", 1), c.attention_scale = r.real("attention_multiplier", 1);
  c.moe.router = concat("softmax:k=", read_experts(r, c, {"num_local_experts", "num_experts_per_tok", "intermediate_size"}), ",norm=1");
}
void read_shared(const ConfigReader& r, ModelConfig& c) {
  read(r, c);
  c.moe.shared_width = r.whole("shared_intermediate_size", 0);
}
Names names() {
  return {.below = {{"moe.router.weight", "block_sparse_moe.router.layer.weight"}, {"moe.shared.down", "shared_mlp.output_linear.weight"}},
          .joined = {{"block_sparse_moe.input_linear.weight", {"moe.experts.gate", "moe.experts.up"}},
                     {"block_sparse_moe.output_linear.weight", {"moe.experts.down"}},
                     {"shared_mlp.input_linear.weight", {"moe.shared.gate", "moe.shared.up"}}}};
}

}  // namespace

FamilyRules granitemoe_family() { return {read, names()}; }
FamilyRules granitemoeshared_family() { return {read_shared, names()}; }

}  // namespace moe
