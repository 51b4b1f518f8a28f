// The DeepSeek line: the 16B model (plain attention), V2 and V3 with latent attention, Kimi K2 (V3
// under another name), and GLM-4.5, which has V3's routing with grouped queries.
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/rotary.h"

namespace moe {

void read_latent(const ConfigReader& r, ModelConfig& c) {
  c.q_rank = r.whole("q_lora_rank", 0);
  c.kv_rank = r.whole("kv_lora_rank");
  c.nope_dim = r.whole("qk_nope_head_dim");
  c.rope_dim = r.whole("qk_rope_head_dim");
  c.value_dim = r.whole("v_head_dim");
  c.head_dim = c.nope_dim + c.rope_dim;
  c.kv_heads = c.heads;
  c.rotary_dim = 0;
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  if (c.qkv_bias && c.q_rank == 0)
    r.refuse("attention_bias is true without q_lora_rank, and only compressed queries have a bias");
  c.rope_interleaved = r.flag("rope_interleave", true);
  const char* place = r.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (c.rope == "default" || !r.has(place))
    return;
  const ConfigReader s = r.in(place);  // the scale of attention grows with the stretched context
  const double g = yarn_magnitude(s.real("factor", 1), s.real("mscale_all_dim", 0));
  if (s.real("mscale_all_dim", 0) != 0)
    c.attention_scale = g * g / std::sqrt(double(c.head_dim));
}

void read_deepseek_layers(const ConfigReader& r, ModelConfig& c) {
  const int first = r.whole("first_k_dense_replace", 0);
  const int step = std::max(1, r.whole("moe_layer_freq", 1));
  c.dense_width = r.whole("intermediate_size", 0);
  set_moe_layers(c, [&](int l) { return l >= first && l % step == 0; });
  c.moe.shared_width = c.moe.width * r.whole("n_shared_experts", 0);
}

std::string deepseek_sigmoid(const ConfigReader& r, int k, const SigmoidDefaults& defaults) {
  r.must_be("scoring_func", "sigmoid");
  r.must_be("topk_method", "noaux_tc");
  const int groups = r.whole("n_group", defaults.groups);
  std::string out = concat("sigmoid:k=", k, ",norm=", r.flag("norm_topk_prob", true),
                           ",bias=1,scale=", r.real("routed_scaling_factor", defaults.scale));
  if (groups > 1) {
    out += concat(",groups=", groups, ",topk_groups=", r.whole("topk_group", defaults.topk_groups),
                  ",group_score=top2_sum");
  }
  return out;
}

namespace {

constexpr ExpertKeys expert_keys{"n_routed_experts", "num_experts_per_tok",
                                 "moe_intermediate_size"};

void read_deepseek(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  r.must_be("scoring_func", "softmax");
  c.moe.router = concat("softmax:k=", read_experts(r, c, expert_keys),
                        ",norm=", r.flag("norm_topk_prob", false));
  read_deepseek_layers(r, c);
}

void read_deepseek_v2(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  read_latent(r, c);
  r.must_be("scoring_func", "softmax");
  const std::string method = r.text("topk_method", "greedy");
  if (method != "greedy" && method != "group_limited_greedy") {
    r.cannot_compute(concat("topk_method is '", method, "' and this program does not have it"),
                     "greedy or group_limited_greedy");
  }
  if (r.flag("norm_topk_prob", false)) {
    r.cannot_compute(
        "norm_topk_prob is true, where the authors' code divides the weights by their sum and "
        "drops the scale, and transformers does neither",
        "norm_topk_prob false, as every published V2 has it");
  }
  c.moe.router = concat("softmax:k=", read_experts(r, c, expert_keys),
                        ",norm=0,scale=", r.real("routed_scaling_factor", 1));
  if (method != "greedy" && r.whole("n_group", 1) > 1) {
    c.moe.router += concat(",groups=", r.whole("n_group"),
                           ",topk_groups=", r.whole("topk_group", 1), ",group_score=max");
  }
  read_deepseek_layers(r, c);
}

void read_deepseek_v3(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  read_latent(r, c);
  c.moe.router = deepseek_sigmoid(r, read_experts(r, c, expert_keys),
                                  {.scale = 2.5, .groups = 8, .topk_groups = 4});
  read_deepseek_layers(r, c);
}

void read_glm4_moe(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c, {.eps = 1e-5, .rotary_share = 0.5});
  c.qkv_bias = r.flag("attention_bias", false);
  if (r.flag("use_qk_norm", false))
    c.qk_norm = QkNorm::head;
  c.moe.router = deepseek_sigmoid(r, read_experts(r, c, expert_keys));
  const int first = r.whole("first_k_dense_replace", 1);
  set_moe_layers(c, [&](int l) { return l >= first; });
  c.dense_width = r.whole("intermediate_size");
  c.moe.shared_width = c.moe.width * r.whole("n_shared_experts", 1);
}

// What all of them say of layers and routing. Groups of one have no two best, which the classes
// add.
void write_routing(const ModelConfig& c, Json& j) {
  write_experts(c, j, expert_keys);
  const RouterFacts f = router_facts(c);
  const bool grouped = f.groups > 1 && c.moe.experts / f.groups > 1;
  j["n_shared_experts"] = std::max<Index>(1, c.moe.shared_width / c.moe.width);
  j["intermediate_size"] = c.dense_baseline_width();
  j["first_k_dense_replace"] = c.dense_layers;
  j["norm_topk_prob"] = norm_topk(c);
  j["routed_scaling_factor"] = f.scale;
  j["n_group"] = grouped ? f.groups : 1;
  j["topk_group"] = grouped && !f.every_group ? f.topk_groups : 1;
}
void write_latent(const ModelConfig& c, Json& j) {
  j["q_lora_rank"] = c.q_rank > 0 ? Json(c.q_rank) : Json(nullptr);
  j["kv_lora_rank"] = c.kv_rank;
  j["qk_nope_head_dim"] = c.nope_dim;
  j["qk_rope_head_dim"] = c.rope_dim;
  j["v_head_dim"] = c.value_dim;
  j["attention_bias"] = c.qkv_bias && c.q_rank > 0;
  j["head_dim"] = c.rope_dim;  // as the classes say it
}
void write_glm4_moe(const ModelConfig& c, Json& j) {
  write_routing(c, j);
  j["use_qk_norm"] = c.qk_norm == QkNorm::head;
  j["partial_rotary_factor"] = double(c.rotary_dims()) / c.head_dim;
  j["attention_bias"] = c.qkv_bias;
  j["num_nextn_predict_layers"] = 0;
}
void write_deepseek_v2(const ModelConfig& c, Json& j) {
  write_routing(c, j);
  write_latent(c, j);
  j["norm_topk_prob"] = false;
  j["topk_method"] = router_facts(c).groups > 1 ? "group_limited_greedy" : "greedy";
}
void write_deepseek_v3(const ModelConfig& c, Json& j) {
  write_routing(c, j);
  write_latent(c, j);
  j["rope_interleave"] = c.rope_interleaved;
  j["num_nextn_predict_layers"] = 0;
}

}  // namespace

FamilyRules deepseek_family() {
  return {read_deepseek, nullptr, {}};
}
FamilyRules deepseek_v2_family() {
  return {read_deepseek_v2, write_deepseek_v2, {}};
}
FamilyRules deepseek_v3_family() {
  return {read_deepseek_v3, write_deepseek_v3, {.always_corrected = true}};
}
FamilyRules kimi_k2_family() {
  return {read_deepseek_v3, nullptr, {.always_corrected = true}};
}
FamilyRules glm4_moe_family() {
  return {read_glm4_moe, write_glm4_moe, {.always_corrected = true}};
}

}  // namespace moe
