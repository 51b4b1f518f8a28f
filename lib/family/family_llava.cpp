// MoE-LLaVA over StableLM 2 (2401.15947 and its repository): LayerNorm with bias, rotary embedding
// of a part of each head, experts of DeepSpeed in some layers. In evaluation DeepSpeed takes the
// two largest of a softmax, weighed by their share of the two; the noise that its code adds to the
// second choice even then is left out, so that figures can be repeated.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

// The same under two names, of which a file may have either or both.
double said_twice(const ConfigReader& r, const char* own, const char* other, double usual) {
  const double value = r.real(own, r.real(other, usual));
  if (r.has(other) && r.real(other, usual) != value) {
    r.refuse(concat(own, " is ", value, " and ", other, " is ", r.real(other, usual),
                    ", which are names of one number"),
             "the same in both, or one of them");
  }
  return value;
}

// Which layers have experts: a list, or by moe_mode.
std::vector<int> moe_layers(const ConfigReader& m, int layers) {
  if (m.has("moe_layers_idx"))
    return m.wholes("moe_layers_idx");
  const std::string mode = m.text("moe_mode", "sparse");
  std::vector<int> out;
  for (int l = 0; l < layers; ++l) {
    const bool here = mode == "dense"         ? true
                      : mode == "sparse"      ? l % 2 == 0
                      : mode == "first_half"  ? l < layers / 2
                      : mode == "second_half" ? l >= layers / 2
                                              : false;
    if (here)
      out.push_back(l);
  }
  if (out.empty())
    m.refuse(concat("moe_mode is '", mode, "' and moe_layers_idx is absent"),
             "sparse, dense, first_half, second_half, or the numbers of the layers");
  return out;
}

// One number for each MoE layer, or one for all; all alike.
int expert_count(const ConfigReader& m) {
  if (m.at("num_experts").is_number())
    return m.positive("num_experts");
  const std::vector<int> all = m.wholes("num_experts");
  if (all.empty() || all[0] < 1)
    m.refuse("num_experts is empty");
  for (const int n : all) {
    if (n != all[0])
      m.refuse(concat("num_experts names layers of ", all[0], " and of ", n,
                      " experts, and all layers have the same number here"));
  }
  return all[0];
}

// An expert takes 2 f T / E rows (k=1: f T / E), so that few experts never drop one.
void check_capacity(const ConfigReader& m, int experts, int k) {
  const double factor = m.real("eval_capacity_factor", 2.0);
  if (k * factor < experts) {
    m.cannot_compute(concat("eval_capacity_factor is ", factor, ", so that of ", experts,
                            " experts one takes ", k * factor / experts,
                            " of the rows at most and drops others, which is not computed here"),
                     concat("eval_capacity_factor=", double(experts) / k));
  }
}

void read_experts_of(const ConfigReader& m, ModelConfig& c) {
  m.must_be("use_residual", false, false);
  const int k = m.whole("top_k_experts", 2);
  c.moe.experts = expert_count(m);
  if (k < 1 || k > std::min(2, c.moe.experts)) {
    m.refuse(concat("top_k_experts is ", k, " and num_experts ", c.moe.experts),
             "1 or 2, as DeepSpeed has it");
  }
  check_capacity(m, c.moe.experts, k);
  // with one choice the weight is its probability
  c.moe.router = concat("softmax:k=", k, ",norm=", int(k == 2));
  const std::vector<int> moe = moe_layers(m, c.layers);
  for (const int l : moe) {
    if (l >= c.layers)
      m.refuse(concat("moe_layers_idx names layer ", l, " and there are ", c.layers));
  }
  set_moe_layers(c, [&](int l) { return std::ranges::find(moe, l) != moe.end(); });
}

// A file for its sizes alone says the experts as other families do.
Json experts_for_sizes(const ConfigReader& r) {
  return {{"num_experts", r.positive("num_experts")},
          {"top_k_experts", r.whole("num_experts_per_tok", 2)}};
}

void read(const ConfigReader& r, ModelConfig& c) {
  Json j = r.json();
  j["rms_norm_eps"] = said_twice(r, "norm_eps", "layer_norm_eps", 1e-5);
  j["partial_rotary_factor"] = said_twice(r, "rope_pct", "partial_rotary_factor", 0.25);
  const ConfigReader t = r.with(j);
  read_common(t, c);
  c.norm = NormKind::layer_bias;
  c.qkv_bias = t.flag("use_qkv_bias", true);
  t.must_be("qk_layernorm", false, false);
  t.must_be("use_parallel_residual", false, false);
  c.moe.width = c.dense_width = t.positive("intermediate_size");
  if (!r.has("moe") && !r.only_sizes())
    r.refuse("moe is missing, which says which layers have experts and how many");
  const Json sizes = r.has("moe") ? Json() : experts_for_sizes(r);
  const ConfigReader m = r.has("moe") ? r.in("moe") : r.with(sizes);
  if (m.flag("moe_enable", true))
    return read_experts_of(m, c);
  c.dense = true;
}

void write(const ModelConfig& c, Json& j) {
  std::vector<int> layers;
  for (int l = 0; l < c.layers; ++l) {
    if (c.is_moe(l))
      layers.push_back(l);
  }
  const int k = router_facts(c).k;
  for (const char* key : {"norm_eps", "layer_norm_eps"})
    j[key] = c.norm_eps;
  for (const char* key : {"rope_pct", "partial_rotary_factor"})
    j[key] = turned_share(c);
  j["intermediate_size"] = c.moe.width;
  j["use_qkv_bias"] = c.qkv_bias;
  j["moe"] = {{"moe_enable", true},
              {"moe_mode", "custom"},
              {"moe_layers_idx", layers},
              {"num_experts", std::vector<int>(layers.size(), c.moe.experts)},
              {"top_k_experts", k},
              {"capacity_factor", 1.5},
              {"eval_capacity_factor", std::max(2.0, double(c.moe.experts) / k)},
              {"min_capacity", 0},
              {"use_residual", false},
              {"router_aux_loss_coef", 0.01}};
  for (const char* key : {"rms_norm_eps", "head_dim", "attention_bias"})
    j.erase(key);
}

}  // namespace

FamilyRules moe_llava_stablelm_family() {
  Names n{.below = {{"moe.router.weight", "mlp.deepspeed_moe.gate.wg.weight"}},
          .experts = "mlp.deepspeed_moe.experts.deepspeed_experts.",
          .beside = {"model.mm_projector.", "model.image_tower.", "model.video_tower."},
          .tower_key = "mm_image_tower"};
  return {read, write, n, {}, true};
}

}  // namespace moe
