// Kimi Linear and Ling 3: Kimi delta attention in most layers and latent attention in the others,
// without positions in Kimi Linear, with a gate for each head in Ling. DeepSeek-V3's routing.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/mixer_type.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

constexpr ExpertKeys expert_keys{"num_experts", "num_experts_per_token", "moe_intermediate_size"};

// The configuration with what both classes call otherwise under DeepSeek's names.
Json in_usual_words(const ConfigReader& r) {
  Json j = reworded(r, {{"max_position_embeddings", "model_max_length"},
                        {"norm_topk_prob", "moe_renormalize"},
                        {"n_group", "num_expert_group"}});
  j["head_dim"] = r.positive("qk_rope_head_dim");  // nothing reads it
  return j;
}

// Of one kind, "dense" or "sparse", for each layer.
void read_feeds(const ConfigReader& r, ModelConfig& c) {
  c.dense_width = r.positive("intermediate_size");
  if (r.has("mlp_layer_types")) {
    const std::vector<std::string> kinds =
        layer_words(r, "mlp_layer_types", c.layers, {"dense", "sparse"});
    set_moe_layers(c, [&](int l) { return kinds[std::size_t(l)] == "sparse"; });
  } else {
    const int first = r.whole("first_k_dense_replace");
    set_moe_layers(c, [&](int l) { return l >= first; });
  }
}

void read_experts_of(const ConfigReader& r, const ConfigReader& usual, ModelConfig& c) {
  if (c.dense)
    return;
  const int k = read_experts(r, c, expert_keys);
  const int groups = std::max(1, r.whole("num_expert_group", 1));
  if (groups > 1 && r.whole("topk_group", 1) * (c.moe.experts / groups) < k) {
    r.refuse(concat("num_expert_group is ", groups, " and topk_group ", r.whole("topk_group", 1),
                    ", whose experts are fewer than the ", k, " of num_experts_per_token"));
  }
  c.moe.router = deepseek_sigmoid(usual, c, k);
  c.moe.shared_width = c.moe.width * r.whole("num_shared_experts", 0);
}

// Layers of a list that counts from 1.
void mark(const ConfigReader& r, const char* key, const std::string& spec,
          std::vector<std::string>& mixers) {
  for (const int l : r.wholes(key)) {
    if (l < 1 || l > int(mixers.size())) {
      r.refuse(concat(key, " names layer ", l, ", and the ", mixers.size(),
                      " layers are counted from 1"));
    }
    mixers[std::size_t(l) - 1] = spec;
  }
}

std::vector<std::string> by_types(const ConfigReader& r, int layers, const std::string& delta) {
  std::vector<std::string> out;
  for (const std::string& word :
       layer_words(r, "layer_types", layers, {"linear_attention", "full_attention"}))
    out.push_back(word == "full_attention" ? "attention" : delta);
  return out;
}

// As published in linear_attn_config; as transformers 5 writes it in keys of their own.
std::vector<std::string> kimi_mixers(const ConfigReader& r, int layers) {
  const bool inside = r.has("linear_attn_config");
  const ConfigReader s = inside ? r.in("linear_attn_config") : r;
  const auto size = [&](const char* published, const char* own) {
    return inside && s.has(published) ? s.positive(published) : r.positive(own);
  };
  const std::string delta =
      concat("kda:heads=", size("num_heads", "linear_num_heads"),
             ",head_dim=", size("head_dim", "linear_head_dim"),
             ",kernel=", size("short_conv_kernel_size", "linear_conv_kernel_dim"));
  if (r.has("layer_types"))
    return by_types(r, layers, delta);
  std::vector<std::string> out(std::size_t(layers), "");
  mark(s, "full_attn_layers", "attention", out);
  mark(s, "kda_layers", delta, out);
  if (!s.has("full_attn_layers") || !s.has("kda_layers")) {
    for (std::size_t l = 0; l < out.size(); ++l)
      out[l] = l > 0 && l % 4 == 0 ? "attention" : delta;  // as the class has it
  }
  for (std::size_t l = 0; l < out.size(); ++l) {
    if (out[l].empty()) {
      r.refuse(
          concat("neither layer_types nor full_attn_layers and kda_layers of "
                 "linear_attn_config say what layer ",
                 l + 1, " is"));
    }
  }
  return out;
}

void read_kimi(const ConfigReader& r, ModelConfig& c) {
  const Json j = in_usual_words(r);
  const ConfigReader usual = r.with(j);
  c.rope = rope_none;
  read_common(usual, c);
  read_latent(usual, c);
  if (!r.flag("mla_use_nope", true))
    r.cannot_compute("mla_use_nope is false, and its attention has no positions here");
  if (r.whole("moe_layer_freq", 1) != 1)
    r.cannot_compute("moe_layer_freq is not 1, which the class in transformers does not read");
  r.must_be("moe_router_activation_func", "sigmoid");
  c.rope_interleaved = false;
  set_mixers(c, kimi_mixers(r, c.layers));
  read_feeds(r, c);
  read_experts_of(r, usual, c);
}

void read_bailing(const ConfigReader& r, ModelConfig& c) {
  const Json j = in_usual_words(r);
  const ConfigReader usual = r.with(j);
  read_common(usual, c);
  read_latent(usual, c);
  c.attention_gate = AttentionGate::head;
  const int width =
      r.has("linear_head_dim") ? r.positive("linear_head_dim") : r.positive("head_dim");
  const double bound = r.flag("kda_safe_gate", true) ? r.real("kda_lower_bound", -5) : 0;
  if (bound > 0)
    r.refuse(concat("kda_lower_bound is ", bound, " and must be below 0"));
  // what the class derives from other keys counts where a file says it
  const int heads = r.has("linear_num_heads") ? r.positive("linear_num_heads") : c.heads;
  const int kernel = r.positive(r.has("linear_conv_kernel_dim") ? "linear_conv_kernel_dim"
                                                                : "short_conv_kernel_size");
  const std::string delta = concat("kda:heads=", heads, ",head_dim=", width, ",kernel=", kernel,
                                   ",low_rank=0,lower_bound=", bound);
  std::vector<std::string> mixers;
  if (r.has("layer_types"))
    mixers = by_types(r, c.layers, delta);
  for (int l = int(mixers.size()); l < c.layers; ++l)
    mixers.push_back((l + 1) % r.positive("layer_group_size") == 0 ? "attention" : delta);
  set_mixers(c, mixers);
  read_feeds(r, c);
  read_experts_of(r, usual, c);
}

void write_common(const ModelConfig& c, Json& j) {
  write_latent(c, j);
  Json types = Json::array();
  Json feeds = Json::array();
  for (int l = 0; l < c.layers; ++l) {
    types.push_back(has_mixer(c, l, "attention") ? "full_attention" : "linear_attention");
    feeds.push_back(c.is_moe(l) ? "sparse" : "dense");
  }
  j["layer_types"] = types;
  j["mlp_layer_types"] = feeds;
  j["model_max_length"] = c.context;
  j["intermediate_size"] = c.dense_baseline_width();
  j["first_k_dense_replace"] = c.dense_layers;
  if (!c.dense) {
    write_experts(c, j, expert_keys);
    j["num_shared_experts"] = c.moe.shared_width / c.moe.width;
    j["moe_renormalize"] = norm_topk(c);
    j["routed_scaling_factor"] = router_facts(c).scale;
    write_groups(c, j);
    j["num_expert_group"] = j["n_group"];
    j.erase("n_group");
  }
  j.erase("max_position_embeddings");
}

// Published lists count layers from 1.
void write_kimi(const ModelConfig& c, Json& j) {
  write_common(c, j);
  Spec s = mixer_options(c, "kda");
  std::vector<int> full, delta;
  for (int l = 0; l < c.layers; ++l)
    (has_mixer(c, l, "attention") ? full : delta).push_back(l + 1);
  j["linear_attn_config"] = {{"full_attn_layers", full},
                             {"kda_layers", delta},
                             {"num_heads", s.get("heads", 0)},
                             {"head_dim", s.get("head_dim", 0)},
                             {"short_conv_kernel_size", s.get("kernel", 4)}};
  j["mla_use_nope"] = true;
  j["moe_layer_freq"] = 1;
  j["moe_router_activation_func"] = "sigmoid";
}

void write_bailing(const ModelConfig& c, Json& j) {
  write_common(c, j);
  Spec s = mixer_options(c, "kda");
  j["head_dim"] = s.get("head_dim", 0);
  j["short_conv_kernel_size"] = s.get("kernel", 4);
  const double bound = s.get("lower_bound", 0.0);
  j["kda_safe_gate"] = bound < 0;
  j["kda_lower_bound"] = bound < 0 ? bound : -5.0;
  j["num_nextn_predict_layers"] = 0;
}

Names kimi_names() {
  Names n = mixtral_names();
  n.shared = "block_sparse_moe.shared_experts.";
  n.correction_bias = "block_sparse_moe.gate.e_score_correction_bias";
  n.always_corrected = true;
  n.dense_too = "block_sparse_moe.";
  n.shape = {{"A_log", {1, 1, 0, 1}}};
  return n;
}

const Joined packed_kernels{"self_attn.conv1d.weight",
                            {"kda.q_conv1d", "kda.k_conv1d", "kda.v_conv1d"}};

void pack_kimi(Names& n) {
  n.joined.push_back(packed_kernels);
  n.shared = "mlp.shared_experts.";
  for (const char* part : {"f_a_proj.", "f_b_proj.", "dt_bias", "A_log"}) {
    n.begin.emplace_back(concat("self_attn.", part), concat("self_attn.forget_gate.", part));
  }
}
Packed kimi_packed() {
  Packed p = mixtral_packed();
  p.correction_bias = "mlp.gate.e_score_correction_bias";
  p.change = pack_kimi;
  return p;
}

Names bailing_names() {
  return {.embedding = "word_embeddings.weight",
          .below = {{"attention.gate", "attention.g_proj.weight"}},
          .correction_bias = "mlp.gate.expert_bias",
          .always_corrected = true,
          .begin = {{"self_attn.o_proj.", "attention.dense."}, {"self_attn.", "attention."}}};
}

void pack_bailing(Names& n) {
  n.embedding = "embed_tokens.weight";
  n.below["attention.gate"] = "self_attn.g_proj.weight";
  n.joined.push_back(packed_kernels);
  n.begin.clear();
  for (const char* part : {"f_proj.", "dt_bias", "A_log"})
    n.begin.emplace_back(concat("self_attn.", part), concat("self_attn.forget_gate.", part));
}
Packed bailing_packed() {
  Packed p = qwen_packed();
  p.correction_bias = "mlp.gate.e_score_correction_bias";
  p.change = pack_bailing;
  return p;
}

}  // namespace

FamilyRules kimi_linear_family() {
  return {read_kimi, write_kimi, kimi_names(), kimi_packed()};
}
FamilyRules bailing_hybrid_family() {
  return {read_bailing, write_bailing, bailing_names(), bailing_packed()};
}

}  // namespace moe
