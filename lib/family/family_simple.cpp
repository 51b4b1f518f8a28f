// Families that differ from Llama by a few keys: Mixtral, OLMoE, the Qwen ones, MiniMax-M2, and the
// dense decoders.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

constexpr ExpertKeys mixtral_experts{"num_local_experts", "num_experts_per_tok",
                                     "intermediate_size"},
    olmoe_experts{"num_experts", "num_experts_per_tok", "intermediate_size"},
    qwen_experts{"num_experts", "num_experts_per_tok", "moe_intermediate_size"};

void qkv_bias(const ConfigReader& r, ModelConfig& c, const char* key, bool fallback, bool o_too) {
  c.qkv_bias = r.flag(key, fallback);
  c.o_bias = o_too && c.qkv_bias;
}

void read_mixtral(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  r.must_be("attention_bias", false, false);
  c.window = r.whole("sliding_window", 0);
  c.moe.router = concat("softmax:k=", read_experts(r, c, mixtral_experts), ",norm=1");
}
void write_mixtral(const ModelConfig& c, Json& j) {
  write_experts(c, j, mixtral_experts);
  j["sliding_window"] = c.window > 0 ? Json(c.window) : Json(nullptr);
  j["router_jitter_noise"] = 0.0;
}
void read_olmoe(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  qkv_bias(r, c, "attention_bias", false, true);
  c.qk_norm = QkNorm::full;
  c.clip_qkv = r.real("clip_qkv", 0);
  const int k = read_experts(r, c, olmoe_experts);
  c.moe.router = concat("softmax:k=", k, ",norm=", r.flag("norm_topk_prob", false));
}
void write_olmoe(const ModelConfig& c, Json& j) {
  write_experts(c, j, olmoe_experts);
  j["norm_topk_prob"] = norm_topk(c);
  j["clip_qkv"] = c.clip_qkv > 0 ? Json(c.clip_qkv) : Json(nullptr);
  j["attention_bias"] = c.qkv_bias;
  j.erase("head_dim");
}
void write_qwen_moe(const ModelConfig& c, Json& j) {
  write_experts(c, j, qwen_experts);
  j["norm_topk_prob"] = norm_topk(c);
  j["intermediate_size"] = c.dense_baseline_width();
  j["decoder_sparse_step"] = 1;
  j["mlp_only_layers"] = dense_layers(c);
  j["use_sliding_window"] = false;
}
void read_qwen2_moe(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  qkv_bias(r, c, "qkv_bias", true, false);
  read_qwen_moe(r, c);
  c.moe.shared_width = r.positive("shared_expert_intermediate_size");
  c.moe.shared_gate = true;
}
void write_qwen2_moe(const ModelConfig& c, Json& j) {
  write_qwen_moe(c, j);
  j["shared_expert_intermediate_size"] = std::max<Index>(1, c.moe.shared_width);
  j["qkv_bias"] = c.qkv_bias;
  j.erase("head_dim");
}
void read_qwen3_moe(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  qkv_bias(r, c, "attention_bias", false, true);
  c.qk_norm = QkNorm::head;
  read_qwen_moe(r, c);
}
void write_qwen3_moe(const ModelConfig& c, Json& j) {
  write_qwen_moe(c, j);
  j["attention_bias"] = c.qkv_bias;
}
void read_minimax_m2(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  // as released: the share of a head in other words
  const char* place = rope_place(r);
  const bool said =
      r.has("partial_rotary_factor") || (r.has(place) && r.in(place).has("partial_rotary_factor"));
  if (r.has("rotary_dim") && !said)
    c.rotary_dim = r.whole("rotary_dim");
  c.qk_norm = QkNorm::full;
  r.must_be("scoring_func", "sigmoid");
  c.moe.router = concat("sigmoid:k=", read_experts(r, c, mixtral_experts), ",norm=1,bias=1");
}
void write_minimax_m2(const ModelConfig& c, Json& j) {
  write_experts(c, j, mixtral_experts);
  j["rotary_dim"] = c.rotary_dims();
  j["partial_rotary_factor"] = double(c.rotary_dims()) / c.head_dim;
  j["scoring_func"] = "sigmoid";
}

void read_dense(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  qkv_bias(r, c, "attention_bias", false, true);
  c.dense = true;
  c.dense_width = r.whole("intermediate_size");
}
void write_dense(const ModelConfig& c, Json& j) {
  j["intermediate_size"] = c.dense_baseline_width();
  j["attention_bias"] = c.qkv_bias;
}
void read_mistral(const ConfigReader& r, ModelConfig& c) {
  read_dense(r, c);
  c.window = r.is_null("sliding_window") ? 0 : r.whole("sliding_window", 4096);
}
void write_mistral(const ModelConfig& c, Json& j) {
  j["intermediate_size"] = c.dense_baseline_width();
  j["sliding_window"] = c.window > 0 ? Json(c.window) : Json(nullptr);
}
void read_qwen3(const ConfigReader& r, ModelConfig& c) {
  read_dense(r, c);
  read_optional_window(r, c);
  c.qk_norm = QkNorm::head;
}
void write_qwen3(const ModelConfig& c, Json& j) {
  write_dense(c, j);
  j["use_sliding_window"] = false;
}
void read_qwen2(const ConfigReader& r, ModelConfig& c) {
  read_dense(r, c);
  read_optional_window(r, c);
  c.qkv_bias = true;
  c.o_bias = false;
}
void write_qwen2(const ModelConfig& c, Json& j) {
  j["intermediate_size"] = c.dense_baseline_width();
  j["use_sliding_window"] = false;
  j.erase("attention_bias");
  j.erase("head_dim");
}
// Norms behind attention and feed-forward, queries and keys normalised over the full row.
void read_olmo2(const ConfigReader& r, ModelConfig& c) {
  read_dense(r, c);
  c.norm_after = true;
  c.qk_norm = QkNorm::full;
}
void read_flex_olmo(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  qkv_bias(r, c, "attention_bias", false, true);
  c.norm_after = true;
  c.qk_norm = QkNorm::full;
  const int k = read_experts(r, c, olmoe_experts);
  c.moe.router = concat("softmax:k=", k, ",norm=", r.flag("norm_topk_prob", false));
}
void write_flex_olmo(const ModelConfig& c, Json& j) {
  write_experts(c, j, olmoe_experts);
  j["norm_topk_prob"] = norm_topk(c);
  j["attention_bias"] = c.qkv_bias;
}
Names olmo2_names() {
  return {.below = {{"attention_norm", "post_attention_layernorm.weight"},
                    {"feed_norm", "post_feedforward_layernorm.weight"}}};
}
void read_own(const ConfigReader& r, ModelConfig&) {
  r.refuse("moe_training is missing, which says what the model is");
}
// Not for a class: the sizes of any model in the words most tools look for.
void write_own(const ModelConfig& c, Json& j) {
  write_qwen_moe(c, j);
  j["hidden_act"] = name_of(c.moe.activation);
}

}  // namespace

void read_qwen_moe(const ConfigReader& r, ModelConfig& c) {
  read_optional_window(r, c);
  const int k = read_experts(r, c, qwen_experts);
  c.moe.router = concat("softmax:k=", k, ",norm=", r.flag("norm_topk_prob", false));
  c.dense_width = r.whole("intermediate_size", 0);
  const std::vector<int> dense = r.wholes("mlp_only_layers");
  const int step = std::max(1, r.whole("decoder_sparse_step", 1));
  if (dense.empty() && step <= c.layers) {
    c.moe_every = step;
  } else {
    set_moe_layers(c, [&](int l) {
      return (l + 1) % step == 0 && std::ranges::find(dense, l) == dense.end();
    });
  }
}

Names mixtral_names() {
  return {.below = {{"moe.router.weight", "block_sparse_moe.gate.weight"}},
          .experts = "block_sparse_moe.experts.",
          .gate = "w1",
          .up = "w3",
          .down = "w2"};
}
Packed qwen_packed() {
  return {.gate_up = "mlp.experts.gate_up_proj", .down = "mlp.experts.down_proj"};
}
Packed mixtral_packed() {
  Packed p = qwen_packed();
  p.below = {{"moe.router.weight", "mlp.gate.weight"}};
  return p;
}
FamilyRules mixtral_family() {
  return {read_mixtral, write_mixtral, mixtral_names(), mixtral_packed()};
}
FamilyRules olmoe_family() {
  return {read_olmoe, write_olmoe, {}, qwen_packed()};
}
FamilyRules qwen2_moe_family() {
  return {read_qwen2_moe, write_qwen2_moe, {.shared = "mlp.shared_expert."}, qwen_packed()};
}
FamilyRules qwen3_moe_family() {
  return {read_qwen3_moe, write_qwen3_moe, {}, qwen_packed()};
}
FamilyRules minimax_m2_family() {
  Names n = mixtral_names();
  n.correction_bias = "block_sparse_moe.e_score_correction_bias";
  n.always_corrected = true;
  Packed p = mixtral_packed();
  p.correction_bias = "mlp.e_score_correction_bias";
  return {read_minimax_m2, write_minimax_m2, n, p};
}
FamilyRules llama_family() {
  return {read_dense, write_dense, {}};
}
FamilyRules mistral_family() {
  return {read_mistral, write_mistral, {}};
}
FamilyRules qwen3_family() {
  return {read_qwen3, write_qwen3, {}};
}
FamilyRules qwen2_family() {
  return {read_qwen2, write_qwen2, {}};
}
FamilyRules olmo2_family() {
  return {read_olmo2, write_dense, olmo2_names()};
}
FamilyRules flex_olmo_family() {
  return {read_flex_olmo, write_flex_olmo, olmo2_names(), qwen_packed()};
}
FamilyRules moe_family() {
  return {read_own, write_own, {}};
}

}  // namespace moe
