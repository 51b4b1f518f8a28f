// LFM2 MoE: gated short convolutions in most layers, attention with normalised queries and keys in
// the others; dense layers first, sigmoid scores with an optional bias.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/mixer_type.h"
#include "lib/router/router.h"

namespace moe {
namespace {

constexpr ExpertKeys expert_keys{"num_experts", "num_experts_per_tok", "moe_intermediate_size"};
constexpr double weight_eps = 1e-6;  // the class's: weights = scores / (their sum + eps)

void read(const ConfigReader& r, ModelConfig& c) {
  const Json j =
      reworded(r, {{"rms_norm_eps", "norm_eps"}, {"tie_word_embeddings", "tie_embedding"}});
  read_common(r.with(j), c);
  c.qk_norm = QkNorm::head;
  const std::string conv = concat("short_conv:kernel=", r.positive("conv_L_cache"),
                                  ",bias=", int(r.flag("conv_bias", false)));
  std::vector<std::string> mixers;
  r.at("layer_types");
  for (const std::string& word :
       layer_words(r, "layer_types", c.layers, {"conv", "linear_attention", "full_attention"}))
    mixers.push_back(word == "full_attention" ? "attention" : conv);
  set_mixers(c, mixers);
  const int first = r.whole("num_dense_layers");
  c.dense_width = r.positive("intermediate_size");
  set_moe_layers(c, [&](int l) { return l >= first; });
  if (c.dense)
    return;
  c.moe.router = concat("sigmoid:k=", read_experts(r, c, expert_keys),
                        ",norm=", r.flag("norm_topk_prob", true),
                        ",scale=", r.real("routed_scaling_factor", 1),
                        ",bias=", r.flag("use_expert_bias", true), ",eps=", weight_eps);
}

void write(const ModelConfig& c, Json& j) {
  Spec s = mixer_options(c, "short_conv");
  j["conv_L_cache"] = s.get("kernel", 3);
  j["conv_bias"] = s.get("bias", false);
  Json types = Json::array();
  for (int l = 0; l < c.layers; ++l)
    types.push_back(has_mixer(c, l, "attention") ? "full_attention" : "conv");
  j["layer_types"] = types;
  j["norm_eps"] = c.norm_eps;
  j["num_dense_layers"] = c.dense ? c.layers : c.dense_layers;
  j["intermediate_size"] = c.dense_baseline_width();
  if (!c.dense) {
    write_experts(c, j, expert_keys);
    const RouterFacts f = router_facts(c);
    j["norm_topk_prob"] = norm_topk(c);
    j["routed_scaling_factor"] = f.scale;
    j["use_expert_bias"] = f.bias;
  }
  for (const char* key : {"rms_norm_eps", "head_dim", "hidden_act", "attention_bias"})
    j.erase(key);
}

Names names() {
  return {.final_norm = "embedding_norm",
          .below = {{"attention_norm", "operator_norm.weight"},
                    {"feed_norm", "ffn_norm.weight"},
                    {"attention.o", "self_attn.out_proj.weight"},
                    {"attention.q_norm", "self_attn.q_layernorm.weight"},
                    {"attention.k_norm", "self_attn.k_layernorm.weight"},
                    {"moe.router.weight", "feed_forward.gate.weight"},
                    {"dense.gate", "feed_forward.w1.weight"},
                    {"dense.up", "feed_forward.w3.weight"},
                    {"dense.down", "feed_forward.w2.weight"}},
          .experts = "feed_forward.experts.",
          .gate = "w1",
          .up = "w3",
          .down = "w2",
          .correction_bias = "feed_forward.expert_bias"};
}

}  // namespace

FamilyRules lfm2_moe_family() {
  return {
      read,
      write,
      names(),
      {.gate_up = "feed_forward.experts.gate_up_proj", .down = "feed_forward.experts.down_proj"}};
}

}  // namespace moe
