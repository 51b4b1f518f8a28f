// Granite 3 MoE: four multipliers, experts in two fused tensors, the softmax over the chosen
// logits; with or without a shared expert.
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

constexpr ExpertKeys experts{"num_local_experts", "num_experts_per_tok", "intermediate_size"};

void read(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.embedding_scale = r.real("embedding_multiplier", 1);
  c.residual_scale = r.real("residual_multiplier", 1);
  c.logit_divisor = r.real("logits_scaling", 1);
  c.attention_scale = r.real("attention_multiplier", 1);
  for (const char* key : {"embedding_multiplier", "residual_multiplier", "logits_scaling"}) {
    if (r.real(key, 1) == 0)
      r.refuse(concat(key, " is 0, which would silence the model"));
  }
  c.moe.router = concat("softmax:k=", read_experts(r, c, experts), ",norm=1");
}
void read_shared(const ConfigReader& r, ModelConfig& c) {
  read(r, c);
  c.moe.shared_width = r.whole("shared_intermediate_size", 0);
}
void write(const ModelConfig& c, Json& j) {
  write_experts(c, j, experts);
  j["embedding_multiplier"] = c.embedding_scale;
  j["residual_multiplier"] = c.residual_scale;
  j["logits_scaling"] = c.logit_divisor;
  j["attention_multiplier"] =
      c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(double(c.head_dim));
  j["attention_bias"] = c.qkv_bias;
  j.erase("head_dim");
}
void write_shared(const ModelConfig& c, Json& j) {
  write(c, j);
  j["shared_intermediate_size"] = std::max<Index>(1, c.moe.shared_width);
}
Names names() {
  return {
      .below = {{"moe.router.weight", "block_sparse_moe.router.layer.weight"},
                {"moe.shared.down", "shared_mlp.output_linear.weight"}},
      .joined = {{"block_sparse_moe.input_linear.weight", {"moe.experts.gate", "moe.experts.up"}},
                 {"block_sparse_moe.output_linear.weight", {"moe.experts.down"}},
                 {"shared_mlp.input_linear.weight", {"moe.shared.gate", "moe.shared.up"}}}};
}
Packed packed() {
  return {.gate_up = "block_sparse_moe.experts.gate_up_proj",
          .down = "block_sparse_moe.experts.down_proj",
          .below = {{"moe.router.weight", "block_sparse_moe.router.weight"}}};
}

}  // namespace

FamilyRules granitemoe_family() {
  return {read, write, names(), packed()};
}
FamilyRules granitemoeshared_family() {
  return {read_shared, write_shared, names(), packed()};
}

}  // namespace moe
