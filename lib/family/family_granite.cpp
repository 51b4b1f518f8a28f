// Granite 3 and 4 MoE: four multipliers, experts in two fused tensors, the softmax over the chosen
// logits; with or without a shared expert, with Mamba-2 in the place of most attention.
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/mamba2_keys.h"
#include "lib/model/mixer_type.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

constexpr ExpertKeys experts{"num_local_experts", "num_experts_per_tok", "intermediate_size"};

void read_multipliers(const ConfigReader& r, ModelConfig& c) {
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
}
void read(const ConfigReader& r, ModelConfig& c) {
  read_multipliers(r, c);
  c.moe.router = concat("softmax:k=", read_experts(r, c, experts), ",norm=1");
}
void read_shared(const ConfigReader& r, ModelConfig& c) {
  read(r, c);
  c.moe.shared_width = r.whole("shared_intermediate_size", 0);
}
void write_multipliers(const ModelConfig& c, Json& j) {
  j["embedding_multiplier"] = c.embedding_scale;
  j["residual_multiplier"] = c.residual_scale;
  j["logits_scaling"] = c.logit_divisor;
  j["attention_multiplier"] =
      c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(double(c.head_dim));
  j["attention_bias"] = c.qkv_bias;
  j.erase("head_dim");
}
void write(const ModelConfig& c, Json& j) {
  write_experts(c, j, experts);
  write_multipliers(c, j);
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

constexpr Mamba2Keys mamba2_keys{"mamba_n_heads",  "mamba_d_head", "mamba_n_groups",
                                 "mamba_d_state",  "mamba_d_conv", "mamba_conv_bias",
                                 "mamba_proj_bias"};

// Granite 4: Mamba-2 or attention, with or without positions, then routed and shared experts side
// by side, or the shared one alone.
void read_hybrid(const ConfigReader& r, ModelConfig& c) {
  if (r.text("position_embedding_type", "nope") != "rope")
    c.rope = rope_none;
  read_multipliers(r, c);
  const int inner = r.positive("mamba_expand") * c.hidden;
  const int heads = r.positive("mamba_n_heads");
  const bool said = r.has("mamba_d_head") && r.at("mamba_d_head").is_number();
  const int head_dim = said ? r.positive("mamba_d_head") : inner / heads;
  if (heads * head_dim != inner) {
    r.refuse(concat("mamba_n_heads x mamba_d_head is ", heads * head_dim,
                    " and mamba_expand x hidden_size is ", inner),
             "the same");
  }
  const std::string mamba = mamba2_spec(r, mamba2_keys, head_dim, step_bounds(r));
  std::vector<std::string> mixers(std::size_t(c.layers), mamba);
  if (r.has("layer_types")) {
    mixers = layer_words(r, "layer_types", c.layers,
                         {"mamba", "linear_attention", "attention", "full_attention"});
    for (std::string& layer : mixers)
      layer = layer == "attention" || layer == "full_attention" ? "attention" : mamba;
  }
  set_mixers(c, mixers);
  const int shared = r.whole("shared_intermediate_size");
  c.dense = r.whole("num_local_experts") == 0;
  if (c.dense) {
    c.dense_width = shared;
    return;
  }
  c.moe.shared_width = shared;
  c.moe.router = concat("softmax:k=", read_experts(r, c, experts), ",norm=1");
}
void write_hybrid(const ModelConfig& c, Json& j) {
  write_multipliers(c, j);
  j["position_embedding_type"] = c.rope == rope_none ? "nope" : "rope";
  const StepBounds step = write_mamba2(c, j, mamba2_keys);
  write_step_bounds(step, j);
  const int inner = j["mamba_n_heads"].get<int>() * j["mamba_d_head"].get<int>();
  j["mamba_expand"] = inner / c.hidden;
  Json types = Json::array();
  for (int l = 0; l < c.layers; ++l)
    types.push_back(has_mixer(c, l, "attention") ? "attention" : "mamba");
  j["layer_types"] = types;
  if (c.dense) {
    j["num_local_experts"] = 0;
    j["num_experts_per_tok"] = 0;
    j["shared_intermediate_size"] = c.dense_baseline_width();
    return;
  }
  write_experts(c, j, experts);
  j["shared_intermediate_size"] = c.moe.shared_width;
}
Names hybrid_names() {
  Names n = names();
  n.below["dense.down"] = "shared_mlp.output_linear.weight";
  n.joined.push_back({"shared_mlp.input_linear.weight", {"dense.gate", "dense.up"}});
  return n;
}

}  // namespace

FamilyRules granitemoe_family() {
  return {read, write, names(), packed()};
}
FamilyRules granitemoehybrid_family() {
  return {read_hybrid, write_hybrid, hybrid_names(), packed()};
}
FamilyRules granitemoeshared_family() {
  return {read_shared, write_shared, names(), packed()};
}

}  // namespace moe
