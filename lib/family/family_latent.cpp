// Latent attention of DeepSeek-V3 with other routing or norms: GLM-4.7-Flash, A.X-K1 and Mistral
// Small 4.
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/family/family.h"
#include "lib/family/layer_words.h"

namespace moe {
namespace {

// Experts and choices in the words of DeepSeek; returns k.
int read_latent_experts(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  read_latent(r, c);
  const int k = read_experts(r, c, deepseek_experts);
  c.dense_width = r.whole("intermediate_size");
  c.moe.shared_width = c.moe.width * r.whole("n_shared_experts");
  return k;
}

// Without mlp_layer_types the first layer is dense, whatever first_k_dense_replace says.
void read_glm4_moe_lite(const ConfigReader& r, ModelConfig& c) {
  c.moe.router = deepseek_sigmoid(r, c, read_latent_experts(r, c));
  read_feeds(r, c, [](int l) { return l > 0; });
}
void write_glm4_moe_lite(const ModelConfig& c, Json& j) {
  write_deepseek_routing(c, j);
  write_latent(c, j);
  write_feeds(c, j);
  j["rope_interleave"] = c.rope_interleaved;
}

void read_axk1(const ConfigReader& r, ModelConfig& c) {
  c.moe.router = deepseek_sigmoid(r, c, read_latent_experts(r, c));
  c.moe_norm_after = true;
  const int first = r.whole("first_k_dense_replace", 1);
  const int step = std::max(1, r.whole("moe_layer_freq", 1));
  read_feeds(r, c, [&](int l) { return l >= first && l % step == 0; });
}

// In groups of one the class adds two best that are not there.
void read_mistral4(const ConfigReader& r, ModelConfig& c) {
  const int k = read_latent_experts(r, c);
  c.moe.router = concat("softmax:k=", k, ",norm=", r.flag("norm_topk_prob", true),
                        ",scale=", r.real("routed_scaling_factor", 1),
                        read_group_options(r, c, k, "top2_sum"));
  const int first = r.whole("first_k_dense_replace");
  set_moe_layers(c, [&](int l) { return l >= first; });
  const char* place = rope_place(r);
  if (!r.has(place) || !r.in(place).has("llama_4_scaling_beta"))
    return;
  const ConfigReader s = r.in(place);
  c.stretch_turned = true;
  c.stretch_scale = s.real("llama_4_scaling_beta", 0);
  c.stretch_floor = s.positive("original_max_position_embeddings");
}
void write_mistral4(const ModelConfig& c, Json& j) {
  write_deepseek_routing(c, j);
  write_latent(c, j);
  j["head_dim"] = c.head_dim;
  j["rope_interleave"] = c.rope_interleaved;
  Json rule = rope_parameters(c);
  rule["llama_4_scaling_beta"] = c.stretch_turned ? c.stretch_scale : 0.0;
  if (!rule.contains("original_max_position_embeddings"))
    rule["original_max_position_embeddings"] = std::max(1, int(c.stretch_floor));
  rule["partial_rotary_factor"] = double(c.rope_dim) / c.head_dim;
  j["rope_parameters"] = rule;
  j.erase("rope_scaling");
  j.erase("rope_theta");
}

Names mistral4_names() {
  return {.joined = {
              {.name = "mlp.experts.gate_up_proj", .parts = {"moe.experts.gate", "moe.experts.up"}},
              {.name = "mlp.experts.down_proj", .parts = {"moe.experts.down"}}}};
}

}  // namespace

FamilyRules glm4_moe_lite_family() {
  return {read_glm4_moe_lite, write_glm4_moe_lite, {.always_corrected = true}, qwen_packed()};
}
FamilyRules axk1_family() {
  Packed p = qwen_packed();
  p.below = {{"feed_norm_after", "mlp.post_mlp_layernorm.weight"}};
  return {read_axk1,
          write_glm4_moe_lite,
          {.below = {{"feed_norm_after", "post_mlp_layernorm.weight"}},
           .always_corrected = true,
           .correction_may_lack = true},
          p};
}
FamilyRules mistral4_family() {
  return {read_mistral4, write_mistral4, mistral4_names()};
}

}  // namespace moe
