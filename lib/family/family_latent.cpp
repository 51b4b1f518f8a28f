// Latent attention of DeepSeek-V3 with other routing or norms, or an indexer that chooses keys:
// GLM-4.7-Flash, A.X-K1, Mistral Small 4, DeepSeek-V3.2 and GLM-5.
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

// The attention turns neighbouring pairs, whatever the file says.
void read_sparse_attention(const ConfigReader& r, ModelConfig& c) {
  c.moe.router = deepseek_sigmoid(r, c, read_latent_experts(r, c));
  if (c.q_rank == 0)
    r.refuse("q_lora_rank is missing, and the indexer reads the latent row of queries");
  r.must_be("rope_interleave", true, true);
  c.index_topk = r.positive("index_topk");
  c.index_heads = r.positive("index_n_heads");
  c.index_dim = r.positive("index_head_dim");
  if (c.index_dim < c.rope_dim) {
    r.refuse(concat("index_head_dim is ", c.index_dim, " and qk_rope_head_dim ", c.rope_dim,
                    ", which are turned of it"));
  }
  const int first = r.whole("first_k_dense_replace");
  read_feeds(r, c, [&](int l) { return l >= first; });
}
void write_sparse_attention(const ModelConfig& c, Json& j) {
  write_glm4_moe_lite(c, j);
  j["index_topk"] = c.index_topk;
  j["index_n_heads"] = c.index_heads;
  j["index_head_dim"] = c.index_dim;
}

// Which layers take the keys of the layer before: in words, as a pattern of F and S, or by a
// period.
std::vector<std::string> indexer_types(const ConfigReader& r, const ModelConfig& c) {
  const std::string full = "full";
  const std::string shared = "shared";
  const int period = std::max(1, r.whole("index_topk_freq", 1));
  const int offset = r.whole("index_skip_topk_offset", 2);
  std::string pattern;
  if (r.has("index_topk_pattern") && !r.has("indexer_types")) {
    if (!r.at("index_topk_pattern").is_string())
      return layer_words(r, "index_topk_pattern", c.layers, {full, shared}, {});
    pattern = r.text("index_topk_pattern");
    if (pattern.size() < std::size_t(c.layers) || pattern.find_first_not_of("FS") != pattern.npos) {
      r.refuse(concat("index_topk_pattern is '", pattern, "' for ", c.layers, " layers"),
               "F or S for each layer");
    }
  }
  return layer_words(r, "indexer_types", c.layers, {full, shared}, [&](int l) {
    const bool own = pattern.empty() ? std::max(l - offset + 1, 0) % period == 0
                                     : pattern[std::size_t(l)] == 'F';
    return own ? full : shared;
  });
}

void read_glm_moe_dsa(const ConfigReader& r, ModelConfig& c) {
  read_sparse_attention(r, c);
  c.index_interleaved = true;
  const std::vector<std::string> types = indexer_types(r, c);
  for (int l = 0; l < c.layers; ++l) {
    if (types[std::size_t(l)] == "shared")
      c.index_shared.push_back(l);
  }
  if (!c.index_shared.empty() && c.index_shared[0] == 0)
    r.refuse("the indexer of layer 0 is 'shared', and there is no layer before it");
}
void write_glm_moe_dsa(const ModelConfig& c, Json& j) {
  write_sparse_attention(c, j);
  Json types = Json::array();
  for (int l = 0; l < c.layers; ++l)
    types.push_back(std::ranges::count(c.index_shared, l) ? "shared" : "full");
  j["indexer_types"] = types;
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
FamilyRules deepseek_v32_family() {
  return {read_sparse_attention, write_sparse_attention, {.always_corrected = true}, qwen_packed()};
}
FamilyRules glm_moe_dsa_family() {
  return {read_glm_moe_dsa, write_glm_moe_dsa, {.always_corrected = true}, qwen_packed()};
}
FamilyRules mistral4_family() {
  return {read_mistral4, write_mistral4, mistral4_names()};
}

}  // namespace moe
