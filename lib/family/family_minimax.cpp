// MiniMax-Text-01: lightning attention in most layers, plain attention in the others, a residual
// stream that goes on from the normed input, weighed.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/mixer_type.h"

namespace moe {
namespace {

constexpr ExpertKeys expert_keys{"num_local_experts", "num_experts_per_tok", "intermediate_size"};

// The factors by the class's keys and, before them, by the authors'.
struct Factor {
  const char *key, *published;
  double ResidualFactors::*value;
};
constexpr Factor factors[] = {
    {"full_attn_alpha_factor", "layernorm_full_attention_alpha", &ResidualFactors::attention_alpha},
    {"full_attn_beta_factor", "layernorm_full_attention_beta", &ResidualFactors::attention_beta},
    {"linear_attn_alpha_factor", "layernorm_linear_attention_alpha",
     &ResidualFactors::recurrent_alpha},
    {"linear_attn_beta_factor", "layernorm_linear_attention_beta",
     &ResidualFactors::recurrent_beta},
    {"mlp_alpha_factor", "layernorm_mlp_alpha", &ResidualFactors::feed_alpha},
    {"mlp_beta_factor", "layernorm_mlp_beta", &ResidualFactors::feed_beta}};

std::vector<std::string> mixers_in(const ConfigReader& r, const ModelConfig& c) {
  const std::string lightning = concat("lightning:heads=", c.heads, ",head_dim=", c.head_dim);
  std::vector<std::string> out;
  if (r.has("layer_types")) {
    for (const std::string& word :
         layer_words(r, "layer_types", c.layers, {"linear_attention", "full_attention"}))
      out.push_back(word == "full_attention" ? "attention" : lightning);
    return out;
  }
  const std::vector<int> full = r.wholes("attn_type_list");  // 1 = full, the authors' key
  if (!full.empty() && int(full.size()) != c.layers)
    r.refuse(concat("attn_type_list has ", full.size(), " entries for ", c.layers, " layers"));
  for (int l = 0; l < c.layers; ++l) {
    const bool attends = full.empty() ? l % 2 == 0 : full[std::size_t(l)] == 1;
    out.push_back(attends ? "attention" : lightning);
  }
  return out;
}

void read(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.residual_normed = true;
  for (const Factor& f : factors) {
    const double value = r.real(r.has(f.published) ? f.published : f.key, 1);
    if (value == 0)
      r.refuse(concat(f.key, " is 0, which would silence a branch"));
    c.residual.*f.value = value;
  }
  c.window = r.whole("sliding_window", 0);
  if (r.flag("postnorm", true) == false)
    r.cannot_compute(
        "postnorm is false, and the residual stream goes on from the normed input here");
  set_mixers(c, mixers_in(r, c));
  c.moe.router = concat("softmax:k=", read_experts(r, c, expert_keys), ",norm=1");
}

void write(const ModelConfig& c, Json& j) {
  write_experts(c, j, expert_keys);
  Json types = Json::array();
  for (int l = 0; l < c.layers; ++l)
    types.push_back(has_mixer(c, l, "attention") ? "full_attention" : "linear_attention");
  j["layer_types"] = types;
  for (const Factor& f : factors)
    j[f.key] = c.residual.*f.value;
  j["router_jitter_noise"] = 0.0;
  j["sliding_window"] = c.window > 0 ? Json(c.window) : Json(nullptr);
  j["partial_rotary_factor"] = turned_share(c);
}

}  // namespace

FamilyRules minimax_family() {
  Packed p = mixtral_packed();
  return {read, write, mixtral_names(), p};
}

}  // namespace moe
