// Plain attention with DeepSeek-V3's routing (sigmoid, correction bias, scale, shared experts):
// dots.llm1, Solar-Open, K-EXAONE, Hy3.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"
#include "lib/family/layer_words.h"

namespace moe {
namespace {

void read_biases(const ConfigReader& r, ModelConfig& c) {
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
}
// shared experts together; 0: a model may do without
void read_shared(const ConfigReader& r, ModelConfig& c, const char* key) {
  c.moe.shared_width = c.moe.width * r.whole(key);
}
Index shared_experts(const ModelConfig& c) {
  return c.moe.shared_width / c.moe.width;
}

// Which layers have a window depends on their number; the published file says scoring_func
// noaux_tc, which the class does not read.
void read_dots1(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  read_biases(r, c);
  c.qk_norm = QkNorm::head;
  if (r.has("scoring_func") && r.text("scoring_func") != "noaux_tc")
    r.must_be("scoring_func", "sigmoid");
  r.must_be("topk_method", "noaux_tc");
  c.moe.router = grouped_sigmoid(r, c, read_experts(r, c, deepseek_experts));
  const int first = r.whole("first_k_dense_replace");
  set_moe_layers(c, [&](int l) { return l >= first; });
  c.dense_width = r.whole("intermediate_size");
  read_shared(r, c, "n_shared_experts");
  const int windows = r.whole("max_window_layers");
  read_windows(r, c, [&](int l) { return !r.has("sliding_window") || l < windows; });
}
void write_dots1(const ModelConfig& c, Json& j) {
  write_deepseek_routing(c, j);
  write_windows(c, j);
  j["attention_bias"] = c.qkv_bias;
}

void read_solar_open(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = r.flag("attention_bias", false);
  c.moe.router = deepseek_sigmoid(r, c, read_experts(r, c, deepseek_experts));
  read_shared(r, c, "n_shared_experts");
}
void write_solar_open(const ModelConfig& c, Json& j) {
  write_deepseek_routing(c, j);
  j["attention_bias"] = c.qkv_bias;
  j["partial_rotary_factor"] = turned_share(c);
  j.erase("intermediate_size");
  j.erase("first_k_dense_replace");
}

constexpr ExpertKeys exaone_experts{"num_experts", "num_experts_per_tok", "moe_intermediate_size"};

// Every n-th layer sees all, or as "LLLG" says, whose last layer is always G.
bool exaone_full(const ConfigReader& r, int layer, int layers) {
  if (!r.has("sliding_window"))
    return true;
  if (!r.at("sliding_window_pattern").is_string())
    return (layer + 1) % r.positive("sliding_window_pattern") == 0;
  const std::string pattern = r.text("sliding_window_pattern");
  if (pattern.empty() || pattern.find_first_not_of("LG") != pattern.npos)
    r.refuse(concat("sliding_window_pattern is '", pattern, "'"), "a number, or L and G, LLLG");
  return layer + 1 == layers || pattern[std::size_t(layer) % pattern.size()] == 'G';
}

void read_exaone_moe(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qk_norm = QkNorm::head;
  r.must_be("attention_bias", false, false);
  c.moe.router = deepseek_sigmoid(r, c, read_experts(r, c, exaone_experts));
  const int first = r.whole("first_k_dense_replace");
  read_feeds(r, c, [&](int l) { return l >= first; });
  c.dense_width = r.whole("intermediate_size");
  read_shared(r, c, "num_shared_experts");
  read_windows(r, c, [&](int l) { return exaone_full(r, l, c.layers); });
  if (r.has("sliding_window"))
    turn_only_windows(c);
}
void write_exaone_moe(const ModelConfig& c, Json& j) {
  write_deepseek_routing(c, j);
  write_experts(c, j, exaone_experts);
  write_feeds(c, j);
  write_windows(c, j);
  if (c.window == 0 && c.no_rope_layers.empty())
    j["sliding_window"] = nullptr;
  j["sliding_window_pattern"] = 4;  // layer_types says it
  j["num_shared_experts"] = shared_experts(c);
  j.erase("n_routed_experts");
  j.erase("n_shared_experts");
  j.erase("attention_bias");
}

void read_hy_v3(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  read_biases(r, c);
  c.qk_norm = QkNorm::head;
  const int k = read_experts(r, c, exaone_experts);
  c.moe.router =
      concat("sigmoid:k=", k, ",norm=1,bias=1,scale=", r.real("router_scaling_factor", 1));
  read_feeds(r, c, [](int l) { return l > 0; });
  c.dense_width = r.whole("intermediate_size");
  read_shared(r, c, "num_shared_experts");
}
void write_hy_v3(const ModelConfig& c, Json& j) {
  write_experts(c, j, exaone_experts);
  write_feeds(c, j);
  j["router_scaling_factor"] = router_facts(c).scale;
  j["num_shared_experts"] = shared_experts(c);
  j["intermediate_size"] = c.dense_baseline_width();
  j["attention_bias"] = c.qkv_bias;
  j["mlp_bias"] = false;
}

}  // namespace

FamilyRules dots1_family() {
  return {read_dots1, write_dots1, {.always_corrected = true}, qwen_packed()};
}
FamilyRules solar_open_family() {
  return {read_solar_open, write_solar_open, {.always_corrected = true}, qwen_packed()};
}
FamilyRules exaone_moe_family() {
  Packed p = qwen_packed();
  p.correction_bias = "mlp.gate.e_score_correction_bias";
  return {read_exaone_moe,
          write_exaone_moe,
          {.correction_bias = "mlp.e_score_correction_bias", .always_corrected = true},
          p};
}
FamilyRules hy_v3_family() {
  Packed p = qwen_packed();
  p.below = {{"moe.router.weight", "mlp.gate.weight"}};
  p.correction_bias = "mlp.e_score_correction_bias";
  p.shared = "mlp.shared_experts.";
  return {read_hy_v3,
          write_hy_v3,
          {.below = {{"moe.router.weight", "mlp.router.gate.weight"}},
           .shared = "mlp.shared_mlp.",
           .correction_bias = "mlp.expert_bias",
           .always_corrected = true},
          p};
}

}  // namespace moe
