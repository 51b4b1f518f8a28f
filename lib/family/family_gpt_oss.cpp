// gpt-oss: sinks, biases everywhere, every other layer with a window, the clamped SwiGLU, experts
// in fused tensors whose outputs alternate between gate and up, input axis first.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/family.h"

namespace moe {
namespace {

void read(const ConfigReader& r, ModelConfig& c) {
  read_common(r, c);
  c.qkv_bias = c.o_bias = r.flag("attention_bias", true);
  c.sinks = true;
  c.window = r.whole("sliding_window", 128);
  const std::vector<std::string> kinds = r.texts("layer_types");
  if (!kinds.empty() && kinds.size() != std::size_t(c.layers)) {
    r.refuse(
        concat("layer_types names ", kinds.size(), " layers and num_hidden_layers is ", c.layers));
  }
  for (int l = 0; l < c.layers; ++l) {
    const std::string kind =
        kinds.empty() ? (l % 2 ? "full_attention" : "sliding_attention") : kinds[std::size_t(l)];
    if (kind == "full_attention") {
      c.full_layers.push_back(l);
    } else if (kind != "sliding_attention") {
      r.refuse(concat("layer_types names '", kind, "' and this program does not have it"),
               "sliding_attention or full_attention");
    }
  }
  if (const double limit = r.real("swiglu_limit", 7); limit != 7)
    r.cannot_compute(concat("swiglu_limit is ", limit, " and the activation clamps at 7"));
  if (const double alpha = r.real("swiglu_alpha", 1.702); alpha != 1.702)
    r.cannot_compute(concat("swiglu_alpha is ", alpha, " and the activation has 1.702"));
  const char* k = r.has("experts_per_token") ? "experts_per_token" : "num_experts_per_tok";
  c.moe.router = concat(
      "softmax:k=", read_experts(r, c, {"num_local_experts", k, "intermediate_size"}), ",norm=1");
  c.moe.activation = Activation::swiglu_clamped;
  c.moe.expert_bias = c.moe.router_bias = true;
}

void write(const ModelConfig& c, Json& j) {
  write_experts(c, j, {"num_local_experts", "num_experts_per_tok", "intermediate_size"});
  Json kinds = Json::array();
  for (int l = 0; l < c.layers; ++l)
    kinds.push_back(c.window == 0 || c.sees_all(l) ? "full_attention" : "sliding_attention");
  j["layer_types"] = kinds;
  j["sliding_window"] = std::max(1, c.window);
  j["attention_bias"] = c.qkv_bias;
  j["swiglu_limit"] = 7.0;
  // the class would stretch
  if (!j.contains("rope_scaling"))
    j["rope_scaling"] = {{"rope_type", "default"}};
}

}  // namespace

FamilyRules gpt_oss_family() {
  const std::string at = "mlp.experts.";
  return {read,
          write,
          {.below = {{"moe.router.weight", "mlp.router.weight"},
                     {"moe.router.bias", "mlp.router.bias"}},
           .joined = {{.name = at + "gate_up_proj",
                       .parts = {"moe.experts.gate", "moe.experts.up"},
                       .swapped = true,
                       .interleaved = true},
                      {.name = at + "gate_up_proj_bias",
                       .parts = {"moe.experts.gate_bias", "moe.experts.up_bias"},
                       .interleaved = true},
                      {.name = at + "down_proj", .parts = {"moe.experts.down"}, .swapped = true},
                      {.name = at + "down_proj_bias", .parts = {"moe.experts.down_bias"}}}}};
}

}  // namespace moe
