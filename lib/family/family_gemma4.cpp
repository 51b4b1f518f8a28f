// Gemma 4, the text part: a dense feed-forward and experts side by side, each with norms of its
// own, the router reading the plain rows; layers that see all have wider heads, fewer of keys, and
// keys in the place of values; a number for each layer and for each expert, capped logits.
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/family/family.h"
#include "lib/family/layer_words.h"

namespace moe {
namespace {

constexpr ExpertKeys expert_keys{"num_experts", "top_k_experts", "moe_intermediate_size"};
constexpr int usual_period = 6;  // of layers that see all

// What only the small models have, and what would let a token see those behind it.
void refuse_others(const ConfigReader& r) {
  if (r.whole("hidden_size_per_layer_input") > 0) {
    r.refuse(
        "hidden_size_per_layer_input is not 0, so that layers have embeddings of their own, "
        "which this program does not compute",
        "the MoE model of the family has 0 there");
  }
  if (r.whole("num_kv_shared_layers") > 0) {
    r.refuse(
        "num_kv_shared_layers is not 0, so that layers share keys and values, which this "
        "program does not compute",
        "the MoE model of the family has 0 there");
  }
  if (r.text("use_bidirectional_attention", "") == "all")
    r.refuse("use_bidirectional_attention is 'all', and this program's decoder is causal");
  r.must_be("hidden_activation", "gelu_pytorch_tanh");
}

void read_feeds_beside(const ConfigReader& r, ModelConfig& c) {
  c.dense_width = r.whole("intermediate_size");
  c.dense = !r.flag("enable_moe_block", false);
  c.moe.activation = Activation::geglu_tanh;
  if (c.dense)
    return;
  c.dense_beside = DenseBeside::normed;
  c.moe.expert_scale = true;
  c.moe.router = concat("softmax:k=", read_experts(r, c, expert_keys), ",norm=1");
}

// As transformers 5 writes it: an entry for each layer that sees all.
void read_layer_heads(const ConfigReader& layers, ModelConfig& c) {
  const ModelConfig usual = c;
  const auto heads_of = [&](int layer) {
    ModelConfig own = usual;
    const std::string key = std::to_string(layer);
    if (layers.has(key.c_str())) {
      const ConfigReader at = layers.in(key.c_str());
      own.head_dim = at.whole("head_dim", usual.head_dim);
      own.kv_heads = at.whole("num_key_value_heads", usual.kv_heads);
    }
    return std::pair(own.head_dim, own.kv_heads);
  };
  const auto wide = heads_of(c.layers - 1);  // which sees all
  for (int l = 0; l < c.layers; ++l) {
    const bool full = c.window == 0 || c.sees_all(l);
    if (heads_of(l) != (full ? wide : std::pair(usual.head_dim, usual.kv_heads))) {
      layers.refuse(concat("layer ", l, " has other heads than layers of its kind"),
                    "one head_dim and num_key_value_heads for all layers that see all");
    }
  }
  c.head_dim = wide.first;
  c.kv_heads = wide.second;
  if (c.head_dim < 1 || c.kv_heads < 1)
    layers.refuse("a layer has heads of no numbers, or none of keys");
}

// Heads of layers that see all.
void read_wide_heads(const ConfigReader& r, ModelConfig& c) {
  c.values_from_keys = r.flag("attention_k_eq_v", false);
  if (r.has("per_layer_config")) {
    read_layer_heads(r.in("per_layer_config"), c);
  } else {
    c.head_dim = r.positive("global_head_dim");
    if (c.values_from_keys && r.has("num_global_key_value_heads"))
      c.kv_heads = r.positive("num_global_key_value_heads");
  }
  if (c.heads % c.kv_heads != 0) {
    r.refuse(concat("num_attention_heads is ", c.heads, " and num_global_key_value_heads is ",
                    c.kv_heads, ", and as many query heads share each key head"),
             concat("a divisor of ", c.heads));
  }
}

void read(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  refuse_others(r);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.qk_norm = QkNorm::head;
  c.value_norm = true;
  c.attention_scale = 1;
  c.norm_both = true;
  c.layer_scale = true;
  c.embedding_scale = std::sqrt(double(c.hidden));
  c.logit_cap = r.real("final_logit_softcapping", 0);
  read_feeds_beside(r, c);
  read_windows(r, c, [](int l) { return (l + 1) % usual_period == 0; });
  if (c.window > 0 && !c.sees_all(c.layers - 1))
    c.full_layers.push_back(c.layers - 1);  // as the class does
  ModelConfig windowed = c;
  read_wide_heads(r, c);
  read_ropes(r, c, windowed);
  mixers_of_kinds(c, windowed);
}

void write(const ModelConfig& c, Json& j) {
  const ModelConfig full = fields_of_kind(c, false);
  const ModelConfig windowed = fields_of_kind(c, true);
  const bool experts = !c.dense;
  j["enable_moe_block"] = experts;
  if (experts)
    write_experts(c, j, expert_keys);
  write_windows(c, j);
  write_ropes(c, j);
  j["head_dim"] = windowed.head_dim;
  j["num_key_value_heads"] = windowed.kv_heads;
  j["global_head_dim"] = full.head_dim;
  j["num_global_key_value_heads"] = full.kv_heads;
  j["attention_k_eq_v"] = full.values_from_keys;
  j["attention_bias"] = c.qkv_bias;
  j["intermediate_size"] = c.dense_baseline_width();
  j["hidden_activation"] = "gelu_pytorch_tanh";
  j["final_logit_softcapping"] = c.logit_cap > 0 ? Json(c.logit_cap) : Json(nullptr);
  j["hidden_size_per_layer_input"] = 0;
  j["num_kv_shared_layers"] = 0;
  j.erase("hidden_act");
}

}  // namespace

FamilyRules gemma4_text_family() {
  const std::string behind = "post_feedforward_layernorm";
  return {
      read,
      write,
      {.below = {{"attention_norm_after", "post_attention_layernorm.weight"},
                 {"feed_norm", "pre_feedforward_layernorm.weight"},
                 {"feed_norm_after", behind + ".weight"},
                 {"dense_norm_after", behind + "_1.weight"},
                 {"experts_norm", "pre_feedforward_layernorm_2.weight"},
                 {"experts_norm_after", behind + "_2.weight"},
                 {"router_norm", "router.scale"},
                 {"layer_scale", "layer_scalar"},
                 {"moe.router.weight", "router.proj.weight"},
                 {"moe.router.expert_scale", "router.per_expert_scale"}},
       .joined = {{.name = "experts.gate_up_proj", .parts = {"moe.experts.gate", "moe.experts.up"}},
                  {.name = "experts.down_proj", .parts = {"moe.experts.down"}}}}};
}

}  // namespace moe
