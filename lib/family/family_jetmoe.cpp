// JetMoE: each of its layers is two of ours, experts of attention and experts of a feed-forward, as
// many and as many a token in both; a bias behind each. Its class norms layers with an eps of its
// own and reads rms_norm_eps for the last norm alone.
#include <nlohmann/json.hpp>

#include "lib/family/family.h"
#include "lib/model/layer_list.h"

namespace moe {
namespace {

constexpr ExpertKeys experts{"num_local_experts", "num_experts_per_tok", "intermediate_size"};
constexpr double eps_of_layers = 1e-6;

void read(const ConfigReader& r, ModelConfig& c) {
  Json j = reworded(r, {{"head_dim", "kv_channels"}, {"hidden_act", "activation_function"}});
  // the class takes these heads whatever num_attention_heads says
  const int k = read_experts(r, c, experts);
  j["num_attention_heads"] = r.positive("num_key_value_heads") * k;
  read_common(r.with(j), c);
  c.final_norm_eps = c.norm_eps == eps_of_layers ? 0 : c.norm_eps;
  c.norm_eps = eps_of_layers;
  c.layers *= 2;
  c.mixer = std::string(no_part);
  c.feed = layer_list({std::string(attention_experts), "moe"});
  c.moe.output_bias = true;
  c.moe.router = concat("softmax:k=", k, ",norm=1");
}

void write(const ModelConfig& c, Json& j) {
  write_experts(c, j, experts);
  j["num_hidden_layers"] = c.layers / 2;
  j["num_attention_heads"] = c.kv_heads * router_facts(c).k;
  j["kv_channels"] = c.head_dim;
  j["activation_function"] = "silu";
  j["rms_norm_eps"] = c.final_norm_eps > 0 ? c.final_norm_eps : c.norm_eps;
  for (const char* key : {"head_dim", "hidden_act", "attention_bias"})
    j.erase(key);
}

}  // namespace

FamilyRules jetmoe_family() {
  return {read,
          write,
          {.below = {{"moe.router.weight", "%router.layer.weight"}, {"moe.output_bias", "%bias"}},
           .joined = {{"%input_linear.weight", {"moe.experts.gate", "moe.experts.up"}},
                      {"%input_linear.weight", {"moe.experts.up"}},
                      {"%output_linear.weight", {"moe.experts.down"}},
                      {"self_attention.kv_proj.weight", {"moe.attention.k", "moe.attention.v"}}},
           .halves = true,
           .half = {"self_attention.experts.", "mlp."}}};
}

}  // namespace moe
