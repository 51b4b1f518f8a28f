// Families whose layers with a window differ from those that see all in more than the window:
// Mellum 2 and MiMo-V2-Flash (rotary base, key heads and sinks by kind), Trinity (afmoe), flint and
// Kolibri-1 (rotary embedding in layers with a window only).
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"
#include "lib/family/layer_words.h"

namespace moe {
namespace {

constexpr ExpertKeys mellum_experts{"num_local_experts", "num_experts_per_tok",
                                    "moe_intermediate_size"},
    qwen_experts{"num_experts", "num_experts_per_tok", "moe_intermediate_size"};

void read_mellum(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.qk_norm = QkNorm::head;
  const int k = read_experts(r, c, mellum_experts);
  c.moe.router = concat("softmax:k=", k, ",norm=", r.flag("norm_topk_prob", true));
  read_feeds(r, c, [](int) { return true; });
  c.dense_width = r.whole("intermediate_size");
  read_windows(r, c, [](int) { return true; });
  ModelConfig windowed = c;
  read_ropes(r, c, windowed);
  mixers_of_kinds(c, windowed);
}
void write_mellum(const ModelConfig& c, Json& j) {
  write_experts(c, j, mellum_experts);
  write_feeds(c, j);
  write_windows(c, j);
  write_ropes(c, j);
  j["norm_topk_prob"] = norm_topk(c);
  j["intermediate_size"] = c.dense_baseline_width();
  j["attention_bias"] = c.qkv_bias;
}

// The published file says in lists of numbers what layer_types and mlp_layer_types say in words,
// and its window does not count the query.
bool mimo_flag(const ConfigReader& r, const char* list, int layer, bool usual) {
  const std::vector<int> all =
      r.has(list) && r.at(list).is_array() ? r.wholes(list) : std::vector<int>{};
  return layer < int(all.size()) ? all[std::size_t(layer)] != 0 : usual;
}

// Key heads of layers with a window, whose width and rotary base the authors' files say apart.
void read_mimo_windowed(const ConfigReader& r, const ModelConfig& c, ModelConfig& windowed) {
  windowed.kv_heads = 2 * c.kv_heads;
  windowed.sinks = true;
  if (c.window > 0 && c.heads % windowed.kv_heads != 0) {
    r.refuse(concat("num_attention_heads is ", c.heads, " and num_key_value_heads ", c.kv_heads,
                    ", of which layers with a window have twice as many"),
             "a number of query heads that they divide");
  }
  const auto same = [&](const char* key, int is) {
    if (r.has(key) && r.whole(key) != is) {
      r.refuse(concat(key, " is ", r.whole(key), " and layers with a window have ", is,
                      " in the class"));
    }
  };
  same("swa_num_key_value_heads", windowed.kv_heads);
  same("swa_num_attention_heads", c.heads);
  same("swa_head_dim", c.head_dim);
  same("swa_v_head_dim", c.value_dim);
  r.must_be("add_swa_attention_sink_bias", true, true);
  r.must_be("add_full_attention_sink_bias", false, false);
}

// The share of a head that is turned, where nothing says it.
void usual_share(const ConfigReader& r, const char* kind, ModelConfig& c) {
  constexpr double usual = 0.334;
  const char* place = rope_place(r);
  const char* key = "partial_rotary_factor";
  const bool inside =
      r.has(place) && (r.in(place).has(kind) ? r.in(place).in(kind) : r.in(place)).has(key);
  if (!inside && !r.has(key))
    c.rotary_dim = int(c.head_dim * usual);
}

void read_mimo_v2_flash(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = r.flag("attention_bias", false);
  c.value_dim = r.positive("v_head_dim");
  c.value_scale = r.real("attention_value_scale", 1);
  c.moe.router = deepseek_sigmoid(r, c, read_experts(r, c, deepseek_experts));
  read_feeds(r, c, [&](int l) { return mimo_flag(r, "moe_layer_freq", l, l > 0); });
  c.dense_width = r.whole("intermediate_size");
  read_windows(r, c, [&](int l) {
    return !mimo_flag(r, "hybrid_layer_pattern", l, l > 0 && (l + 1) % 6 != 0);
  });
  if (c.window > 0 && r.has("sliding_window_size"))
    c.window = r.whole("sliding_window_size") + 1;
  ModelConfig windowed = c;
  read_mimo_windowed(r, c, windowed);
  read_ropes(r, c, windowed);
  usual_share(r, full_attention, c);
  usual_share(r, sliding_attention, windowed);
  mixers_of_kinds(c, windowed);
}
void write_mimo_v2_flash(const ModelConfig& c, Json& j) {
  const ModelConfig full = fields_of_kind(c, false);
  write_deepseek_routing(c, j);
  write_feeds(c, j);
  write_windows(c, j);
  write_ropes(c, j);
  j["attention_bias"] = c.qkv_bias;
  j["v_head_dim"] = full.value_dim > 0 ? full.value_dim : full.head_dim;
  j["attention_value_scale"] = c.value_scale;
  for (const char* key : {"n_shared_experts", "first_k_dense_replace"})
    j.erase(key);
}

void read_afmoe(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.qk_norm = QkNorm::head;
  c.norm_both = true;
  c.attention_gate = AttentionGate::full;
  if (r.flag("mup_enabled", false))
    c.embedding_scale = std::sqrt(double(c.hidden));
  const int k = read_experts(r, c, qwen_experts);
  r.must_be("score_func", "sigmoid");
  if (!r.flag("route_norm", true) || r.whole("n_group", 1) != 1 || r.whole("topk_group", 1) != 1) {
    r.cannot_compute(
        "route_norm is false or n_group or topk_group is not 1, where the authors' code and "
        "transformers differ: the latter always divides weights by their sum and has no groups",
        "route_norm true and one group, as every published Trinity has it");
  }
  c.moe.router = concat("sigmoid:k=", k, ",norm=1,bias=1,scale=", r.real("route_scale", 1));
  c.moe.shared_width = c.moe.width * r.whole("num_shared_experts");
  const int first = r.whole("num_dense_layers");
  set_moe_layers(c, [&](int l) { return l >= first; });
  c.dense_width = r.whole("intermediate_size");
  read_windows(r, c,
               [&](int l) { return (l + 1) % r.positive("global_attn_every_n_layers") == 0; });
  turn_only_windows(c);
}
void write_afmoe(const ModelConfig& c, Json& j) {
  write_experts(c, j, qwen_experts);
  write_windows(c, j);
  j["num_dense_layers"] = c.dense_layers;
  j["intermediate_size"] = c.dense_baseline_width();
  j["num_shared_experts"] = c.moe.shared_width / c.moe.width;
  j["route_scale"] = router_facts(c).scale;
  j["route_norm"] = true;
  j["score_func"] = "sigmoid";
  j["mup_enabled"] = c.embedding_scale != 1;
  j["attention_bias"] = c.qkv_bias;
}

void read_flint(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", false);
  c.qk_norm = QkNorm::head;
  c.sinks = true;
  read_qwen_moe(r, c);
  c.moe.router = concat("sigmoid:k=", router_facts(c).k, ",norm=", r.flag("norm_topk_prob", true));
  c.moe.shared_width = r.whole("shared_expert_intermediate_size");
  read_windows(r, c, [&](int l) { return l < 2 || l % 4 == 1 || l == c.layers - 1; });
  turn_only_windows(c);
}
void write_flint(const ModelConfig& c, Json& j) {
  write_experts(c, j, qwen_experts);
  write_windows(c, j);
  j["norm_topk_prob"] = norm_topk(c);
  j["intermediate_size"] = c.dense_baseline_width();
  j["shared_expert_intermediate_size"] = std::max<Index>(1, c.moe.shared_width);
  j["decoder_sparse_step"] = 1;
  j["mlp_only_layers"] = dense_layers(c);
  j["attention_bias"] = c.qkv_bias;
}

void read_kolibri1(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  r.must_be("attention_bias", false, false);
  c.qk_norm = QkNorm::head;
  c.norm_both = true;
  const int k = read_experts(r, c, mellum_experts);
  c.moe.router =
      concat("sigmoid:k=", k, ",norm=", r.flag("norm_topk_prob", false), ",bias=1,bias_on=logit");
  c.moe.shared_width = r.whole("shared_expert_intermediate_size");
  read_windows(r, c, [](int l) { return (l + 1) % 5 == 0; });
  if (r.has("sliding_window"))
    turn_only_windows(c);
}
void write_kolibri1(const ModelConfig& c, Json& j) {
  write_experts(c, j, mellum_experts);
  write_windows(c, j);
  if (c.window == 0 && c.no_rope_layers.empty())
    j["sliding_window"] = nullptr;
  j["norm_topk_prob"] = norm_topk(c);
  j["shared_expert_intermediate_size"] = std::max<Index>(1, c.moe.shared_width);
  j.erase("attention_bias");
}

}  // namespace

FamilyRules mellum_family() {
  return {read_mellum, write_mellum, {}, qwen_packed()};
}
FamilyRules mimo_v2_flash_family() {
  Packed p = qwen_packed();
  p.below = {{"attention.sinks", "self_attn.sinks"}};
  return {
      read_mimo_v2_flash,
      write_mimo_v2_flash,
      {.below = {{"attention.sinks", "self_attn.attention_sink_bias"}}, .always_corrected = true},
      p};
}
FamilyRules afmoe_family() {
  return {read_afmoe,
          write_afmoe,
          {.below = {{"attention_norm_after", "post_attention_layernorm.weight"},
                     {"feed_norm", "pre_mlp_layernorm.weight"},
                     {"feed_norm_after", "post_mlp_layernorm.weight"},
                     {"moe.router.weight", "mlp.router.gate.weight"}},
           .correction_bias = "mlp.expert_bias",
           .always_corrected = true},
          qwen_packed()};
}
FamilyRules flint_family() {
  Packed p = qwen_packed();
  p.below = {{"attention.sinks", "self_attn.sinks"}};
  return {
      read_flint,
      write_flint,
      {.below = {{"attention.sinks", "self_attn.softmax_offset"}}, .shared = "mlp.shared_expert."},
      p};
}
FamilyRules kolibri1_family() {
  Packed p = qwen_packed();
  p.below = {{"attention_norm_after", "post_self_attn_layernorm.weight"},
             {"feed_norm_after", "post_mlp_layernorm.weight"}};
  p.correction_bias = "mlp.gate.e_score_correction_bias";
  return {read_kolibri1,
          write_kolibri1,
          {.below = {{"attention_norm_after", "post_attn_norm.weight"},
                     {"feed_norm_after", "post_ffn_norm.weight"}},
           .correction_bias = "moe.router.expert_bias",
           .always_corrected = true},
          p};
}

}  // namespace moe
