// Qwen3-Next and Qwen3.5: gated delta nets in most layers, gated attention in the others, norms
// times 1 + w, a shared expert behind a gate.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"
#include "lib/model/mixer_type.h"

namespace moe {
namespace {

constexpr ExpertKeys expert_keys{"num_experts", "num_experts_per_tok", "moe_intermediate_size"};

// Each full_attention_interval-th layer attends, unless a list says which.
std::vector<std::string> mixers_in(const ConfigReader& r, const ModelConfig& c, bool fused) {
  if (r.positive("linear_num_value_heads") % r.positive("linear_num_key_heads") != 0) {
    r.refuse(concat("linear_num_value_heads is ", r.whole("linear_num_value_heads"),
                    " and linear_num_key_heads is ", r.whole("linear_num_key_heads"),
                    ", and as many value heads share each key head"),
             "a multiple");
  }
  const std::string delta = concat("gdn:key_heads=", r.positive("linear_num_key_heads"),
                                   ",value_heads=", r.positive("linear_num_value_heads"),
                                   ",key_dim=", r.positive("linear_key_head_dim"),
                                   ",value_dim=", r.positive("linear_value_head_dim"),
                                   ",kernel=", r.positive("linear_conv_kernel_dim"),
                                   fused ? ",layout=fused" : ",layout=split");
  std::vector<std::string> out;
  if (r.has("layer_types")) {
    for (const std::string& word :
         layer_words(r, "layer_types", c.layers, {"linear_attention", "full_attention"}))
      out.push_back(word == "full_attention" ? "attention" : delta);
    return out;
  }
  const int every = r.has("full_attention_interval") ? r.positive("full_attention_interval") : 4;
  for (int l = 0; l < c.layers; ++l)
    out.push_back((l + 1) % every == 0 ? "attention" : delta);
  return out;
}

void read_layers(const ConfigReader& r, ModelConfig& c, bool fused) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.norm = NormKind::rms_plus_one;
  c.qk_norm = QkNorm::head;
  c.attention_gate = AttentionGate::query;
  set_mixers(c, mixers_in(r, c, fused));
}

void read_shared(const ConfigReader& r, ModelConfig& c) {
  c.moe.shared_width = r.positive("shared_expert_intermediate_size");
  c.moe.shared_gate = true;
}

void read_next(const ConfigReader& r, ModelConfig& c) {
  read_layers(r, c, true);
  read_qwen_moe(r, c);
  read_shared(r, c);
}

// Of Qwen3.5 all layers are MoE, their weights divided by their sum, and the three sections of its
// rotary embedding are one for text.
void read_text(const ConfigReader& r, ModelConfig& c) {
  read_layers(r, c, false);
  c.moe.router = concat("softmax:k=", read_experts(r, c, expert_keys), ",norm=1");
  read_shared(r, c);
}
void read_whole(const ConfigReader& r, ModelConfig& c) {
  const ConfigReader text = text_part(r);
  Json j = text.json();
  if (!j.contains("tie_word_embeddings") && r.has("tie_word_embeddings"))
    j["tie_word_embeddings"] = r.flag("tie_word_embeddings", false);
  read_text(text.with(j), c);
}

void write_layers(const ModelConfig& c, Json& j) {
  Spec s = mixer_options(c, "gdn");
  j["linear_num_key_heads"] = s.get("key_heads", 0);
  j["linear_num_value_heads"] = s.get("value_heads", 0);
  j["linear_key_head_dim"] = s.get("key_dim", 0);
  j["linear_value_head_dim"] = s.get("value_dim", 0);
  j["linear_conv_kernel_dim"] = s.get("kernel", 4);
  Json types = Json::array();
  for (int l = 0; l < c.layers; ++l)
    types.push_back(has_mixer(c, l, "attention") ? "full_attention" : "linear_attention");
  j["layer_types"] = types;
  j["attention_bias"] = c.qkv_bias;
  j["partial_rotary_factor"] = turned_share(c);
  write_experts(c, j, expert_keys);
  j["shared_expert_intermediate_size"] = std::max<Index>(1, c.moe.shared_width);
}
void write_next(const ModelConfig& c, Json& j) {
  write_layers(c, j);
  j["norm_topk_prob"] = norm_topk(c);
  j["intermediate_size"] = c.dense_baseline_width();
  j["decoder_sparse_step"] = 1;
  j["mlp_only_layers"] = dense_layers(c);
}

Names next_names() {
  return {.shared = "mlp.shared_expert."};
}

}  // namespace

FamilyRules qwen3_next_family() {
  return {read_next, write_next, next_names(), qwen_packed()};
}
FamilyRules qwen3_5_moe_text_family() {
  return {read_text, write_layers, next_names(), qwen_packed()};
}
FamilyRules qwen3_5_moe_family() {
  Names n = next_names();
  n.prefix = "model.language_model.";
  return {read_whole, nullptr, n, qwen_packed()};
}

}  // namespace moe
