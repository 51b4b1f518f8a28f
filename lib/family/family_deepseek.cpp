// The DeepSeek line: the 16B model (plain attention), V2 and V3 with latent attention, Kimi K2 (V3
// under another name), and GLM-4.5, which has V3's routing with grouped queries.
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/rotary.h"

namespace moe {

void read_latent(const ConfigReader& r, ModelConfig& c) {
  c.q_rank = r.has("q_lora_rank") ? r.whole("q_lora_rank") : 0;  // null: queries straight from x
  c.kv_rank = r.positive("kv_lora_rank");
  c.nope_dim = r.positive("qk_nope_head_dim");
  c.rope_dim = r.positive("qk_rope_head_dim");
  c.value_dim = r.positive("v_head_dim");
  if (c.rope_dim % 2 != 0)
    r.refuse(concat("qk_rope_head_dim is ", c.rope_dim, ", and numbers are turned in pairs"));
  c.head_dim = c.nope_dim + c.rope_dim;
  c.kv_heads = c.heads;
  c.rotary_dim = 0;
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  if (c.qkv_bias && c.q_rank == 0)
    r.refuse("attention_bias is true without q_lora_rank, and only compressed queries have a bias");
  c.rope_interleaved = r.flag("rope_interleave", true);
  const char* place = rope_place(r);
  if (c.rope == "default" || !r.has(place))
    return;
  const ConfigReader s = r.in(place);  // the scale of attention grows with the stretched context
  const double g = yarn_magnitude(s.real("factor", 1), s.real("mscale_all_dim", 0));
  if (s.real("mscale_all_dim", 0) != 0)
    c.attention_scale = g * g / std::sqrt(double(c.head_dim));
}

void read_deepseek_layers(const ConfigReader& r, ModelConfig& c) {
  const int first = r.whole("first_k_dense_replace");
  const int step = std::max(1, r.whole("moe_layer_freq", 1));
  c.dense_width = r.whole("intermediate_size");
  set_moe_layers(c, [&](int l) { return l >= first && l % step == 0; });
  if (!r.is_null("n_shared_experts"))
    c.moe.shared_width = c.moe.width * r.whole("n_shared_experts");
}

namespace {

struct GroupChoice {
  int groups = 1, kept = 1;  // 1 group: nothing is limited
};

// n_group and topk_group. Groups of one expert limit nothing: the k best experts are among the best
// k groups or more that are kept.
GroupChoice read_groups(const ConfigReader& r, const ModelConfig& c, int k) {
  const int groups = r.whole("n_group", 1);
  const int kept = groups <= 1 ? r.whole("topk_group", 1) : r.whole("topk_group");
  if (groups <= 1 && kept > 0)
    return {};
  if (c.moe.experts % groups != 0) {
    r.refuse(concat("n_group is ", groups, " and n_routed_experts is ", c.moe.experts,
                    ", which does not split into equal groups"));
  }
  if (kept < 1 || kept > groups) {
    r.refuse(concat("topk_group is ", kept, " and n_group is ", groups),
             "between 1 and the number of groups");
  }
  const int size = c.moe.experts / groups;
  if (kept * size < k) {
    r.refuse(concat("topk_group is ", kept, " and n_group is ", groups, ", groups of ", size,
                    " of the ", c.moe.experts, " n_routed_experts, which hold fewer experts than ",
                    "the ", k, " of num_experts_per_tok"));
  }
  return size == 1 ? GroupChoice{} : GroupChoice{groups, kept};
}

std::string group_options(const GroupChoice& g, const char* score) {
  return g.groups == 1
             ? ""
             : concat(",groups=", g.groups, ",topk_groups=", g.kept, ",group_score=", score);
}

}  // namespace

std::string read_group_options(const ConfigReader& r, const ModelConfig& c, int k,
                               const char* score) {
  return group_options(read_groups(r, c, k), score);
}
std::string grouped_sigmoid(const ConfigReader& r, const ModelConfig& c, int k) {
  return concat("sigmoid:k=", k, ",norm=", r.flag("norm_topk_prob", true),
                ",bias=1,scale=", r.real("routed_scaling_factor", 1),
                read_group_options(r, c, k, "top2_sum"));
}
std::string deepseek_sigmoid(const ConfigReader& r, const ModelConfig& c, int k) {
  r.must_be("scoring_func", "sigmoid");
  r.must_be("topk_method", "noaux_tc");
  return grouped_sigmoid(r, c, k);
}

namespace {

std::string read_sigmoid(const ConfigReader& r, ModelConfig& c) {
  const int k = read_experts(r, c, deepseek_experts);
  return deepseek_sigmoid(r, c, k);
}

void read_deepseek(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  r.must_be("scoring_func", "softmax");
  c.moe.router = concat("softmax:k=", read_experts(r, c, deepseek_experts),
                        ",norm=", r.must_say("norm_topk_prob"));
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
  const int k = read_experts(r, c, deepseek_experts);
  c.moe.router = concat("softmax:k=", k, ",norm=0,scale=", r.real("routed_scaling_factor", 1));
  if (method != "greedy")
    c.moe.router += read_group_options(r, c, k, "max");
  read_deepseek_layers(r, c);
}

void read_deepseek_v3(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  read_latent(r, c);
  c.moe.router = read_sigmoid(r, c);
  read_deepseek_layers(r, c);
}

void read_glm4_moe(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = r.flag("attention_bias", false);
  if (r.flag("use_qk_norm", false))
    c.qk_norm = QkNorm::head;
  c.moe.router = read_sigmoid(r, c);
  const int first = r.whole("first_k_dense_replace");
  set_moe_layers(c, [&](int l) { return l >= first; });
  c.dense_width = r.whole("intermediate_size");
  c.moe.shared_width = c.moe.width * r.whole("n_shared_experts");
}

}  // namespace

void write_groups(const ModelConfig& c, Json& j) {
  const RouterFacts f = router_facts(c);
  const bool grouped = f.groups > 1 && c.moe.experts / f.groups > 1;
  j["n_group"] = grouped ? f.groups : 1;
  j["topk_group"] = grouped && !f.every_group ? f.topk_groups : 1;
}

// What all of them say of layers and routing.
void write_deepseek_routing(const ModelConfig& c, Json& j) {
  write_experts(c, j, deepseek_experts);
  write_groups(c, j);
  j["n_shared_experts"] = std::max<Index>(1, c.moe.shared_width / c.moe.width);
  j["intermediate_size"] = c.dense_baseline_width();
  j["first_k_dense_replace"] = c.dense_layers;
  j["norm_topk_prob"] = norm_topk(c);
  j["routed_scaling_factor"] = router_facts(c).scale;
}
namespace {

void write_deepseek(const ModelConfig& c, Json& j) {
  write_deepseek_routing(c, j);
  j["scoring_func"] = "softmax";
  j["moe_layer_freq"] = 1;
  j["attention_bias"] = c.qkv_bias;
}
}  // namespace

void write_latent(const ModelConfig& c, Json& j) {
  j["q_lora_rank"] = c.q_rank > 0 ? Json(c.q_rank) : Json(nullptr);
  j["kv_lora_rank"] = c.kv_rank;
  j["qk_nope_head_dim"] = c.nope_dim;
  j["qk_rope_head_dim"] = c.rope_dim;
  j["v_head_dim"] = c.value_dim;
  j["attention_bias"] = c.qkv_bias && c.q_rank > 0;
  j["head_dim"] = c.rope_dim;  // as the classes say it
}
namespace {

void write_glm4_moe(const ModelConfig& c, Json& j) {
  write_deepseek_routing(c, j);
  j["use_qk_norm"] = c.qk_norm == QkNorm::head;
  j["partial_rotary_factor"] = double(c.rotary_dims()) / c.head_dim;
  j["attention_bias"] = c.qkv_bias;
  j["num_nextn_predict_layers"] = 0;
}
void write_deepseek_v2(const ModelConfig& c, Json& j) {
  write_deepseek_routing(c, j);
  write_latent(c, j);
  j["norm_topk_prob"] = false;
  j["topk_method"] = router_facts(c).groups > 1 ? "group_limited_greedy" : "greedy";
}
void write_deepseek_v3(const ModelConfig& c, Json& j) {
  write_deepseek_routing(c, j);
  write_latent(c, j);
  j["rope_interleave"] = c.rope_interleaved;
  j["num_nextn_predict_layers"] = 0;
}

}  // namespace

FamilyRules deepseek_family() {
  return {read_deepseek, write_deepseek, {}};
}
FamilyRules deepseek_v2_family() {
  return {read_deepseek_v2, write_deepseek_v2, {}, qwen_packed()};
}
FamilyRules deepseek_v3_family() {
  return {read_deepseek_v3, write_deepseek_v3, {.always_corrected = true}, qwen_packed()};
}
FamilyRules kimi_k2_family() {
  return {read_deepseek_v3, write_deepseek_v3, {.always_corrected = true}, qwen_packed()};
}
FamilyRules glm4_moe_family() {
  return {read_glm4_moe, write_glm4_moe, {.always_corrected = true}, qwen_packed()};
}

}  // namespace moe
