// Which published class computes what a configuration computes. The conditions follow the classes' own code; where one always does
// something (a norm, a shared expert), a model without it does not fit.
#include "lib/model/families.h"

#include <map>

#include "lib/core/error.h"
#include "lib/model/family.h"
#include "lib/model/routing_facts.h"

namespace moe {

const std::vector<Family>& families() {
  static const std::vector<Family> all{
#define FAMILY(name, architecture, about) {#name, architecture, about},
#include "lib/model/families.def"
#undef FAMILY
  };
  return all;
}

const FamilyRules& rules_of(const std::string& name) {
  static const std::map<std::string, FamilyRules, std::less<>> all{
#define FAMILY(family, architecture, about) {#family, family##_family()},
#include "lib/model/families.def"
#undef FAMILY
  };
  return all.at(name);
}

RoutingFacts routing_facts(const ModelConfig& c) {
  Spec spec(resolved(c).moe.router);
  RoutingFacts f;
  f.kind = spec.name();
  f.k = make_router(c.moe.router, c.moe.experts)->choices();
  f.scale = spec.get("scale", 1.0);
  const Cooling cooling = read_cooling(spec);
  f.temperature = cooling.moves() ? 0 : cooling.to;
  f.bias_on_logits = spec.get("bias_on", "score") == "logit";
  if (f.kind == "gshard" || f.kind == "dense") {  // without draws: the two best of a softmax; a softmax over all
    f.kind = "softmax";
    return f;
  }
  f.norm = spec.get("norm", true);
  f.bias = spec.get("bias", false);
  f.groups = spec.get("groups", 1);
  f.topk_groups = spec.get("topk_groups", 1);
  f.top2_sum = spec.get("group_score", "max") == "top2_sum";
  f.one_per_group = spec.get("group_mode", "limited") == "one";
  return f;
}

namespace {

Fit none(std::string reason) { return {"moe", "no published class has " + std::move(reason)}; }
bool half_split_heads(const ModelConfig& c) { return c.head_dim * c.heads == c.hidden; }
int dense_count(const ModelConfig& c) { return c.layers - c.moe_layers(); }

Fit dense_fit(const ModelConfig& c) {
  if (c.qk_norm == QkNorm::none) return {c.window > 0 ? "mistral" : "llama", ""};
  if (c.qk_norm == QkNorm::head && c.window == 0) return {"qwen3", ""};
  return none(c.window > 0 ? "a window together with normalised queries and keys" : "queries and keys normalised over the full row in a dense pre-norm decoder");
}

Fit softmax_fit(const ModelConfig& c, const RoutingFacts& f) {
  if (f.bias) return none("a correction bias on softmax scores with this rotary embedding");
  if (f.groups > 1) return none("softmax scores in groups with grouped-query attention");
  if (f.scale != 1) return none("softmax weights times a scale with grouped-query attention");
  if (c.window > 0 && (c.moe.shared_width > 0 || c.qk_norm != QkNorm::none)) return none("a window together with a shared expert or normalised queries and keys");
  if (c.moe.shared_width > 0 && !c.moe.shared_gate) return none("a shared expert without gate beside softmax scores with this attention");
  if (c.moe.shared_width > 0) {
    if (c.qk_norm != QkNorm::none) return none("a gated shared expert together with normalised queries and keys");
    return half_split_heads(c) ? Fit{"qwen2_moe", ""} : none("a gated shared expert with heads that do not add up to the hidden size");
  }
  if (c.qk_norm == QkNorm::head) return {"qwen3_moe", ""};
  if (dense_count(c) > 0) return none("dense layers beside softmax-routed ones without shared expert or per-head norms");
  if (c.qk_norm == QkNorm::full) return half_split_heads(c) ? Fit{"olmoe", ""} : none("norms over the full row with heads that do not add up to the hidden size");
  return f.norm ? Fit{"mixtral", ""} : none("weights that are not divided by their sum without normalised queries and keys");
}

Fit sigmoid_fit(const ModelConfig& c, const RoutingFacts& f) {
  if (c.moe.shared_width == 0) return none("sigmoid scores without shared expert with this attention");
  if (c.moe.shared_gate) return none("sigmoid scores with a gated shared expert");
  if (c.moe.shared_width % c.moe.width != 0) return none("a shared expert that is not a multiple as wide as the others");
  if (c.moe_every > 1) return none("sigmoid scores in every n-th layer");
  if (c.qk_norm == QkNorm::full) return none("sigmoid scores, a shared expert and norms over the full row");
  if (c.window > 0) return none("a window together with sigmoid scores");
  if (f.groups > 1 && (!f.top2_sum || f.one_per_group)) return none("sigmoid scores in groups chosen by another rule than the sum of their two best");
  if (c.moe.experts / f.groups < 2) return none("sigmoid scores in groups of one");
  return {"glm4_moe", ""};
}

// The first switch that the class does not have; empty = none.
std::string special(const ModelConfig& c, const std::string& family) {
  const auto one_of = [&](std::initializer_list<std::string_view> with) { return std::ranges::find(with, family) != with.end(); };
  const bool biases = c.o_bias ? c.qkv_bias && one_of({"olmoe", "qwen3_moe"}) : !c.qkv_bias || one_of({"qwen2_moe", "glm4_moe"});
  const std::pair<bool, const char*> all[] = {
      {c.kv_rank > 0, "latent attention"}, {c.sinks, "attention sinks"}, {c.chunk > 0, "attention in chunks"}, {!c.full_layers.empty(), "a window in some layers only"},
      {!c.no_rope_layers.empty(), "layers without rotary embedding"}, {c.rope != "default" || c.rope_interleaved || (c.rotary_dim > 0 && family != "glm4_moe"), "this rotary embedding"},
      {c.attention_scale > 0, "this scale of attention"}, {c.clip_qkv > 0 && family != "olmoe", "clamped queries, keys and values"}, {!biases || c.output_bias, "these biases"},
      {c.norm != NormKind::rms, "LayerNorm"}, {c.embedding_scale != 1 || c.residual_scale != 1 || c.logit_divisor != 1, "these multipliers"},
      {!c.dense_at.empty() && !one_of({"qwen2_moe", "qwen3_moe"}), "dense layers between the others"},
      {c.qk_norm == QkNorm::head_after || c.qk_norm == QkNorm::length_after, "queries and keys normalised after they are turned"}};
  for (const auto& [on, name] : all)
    if (on) return name;
  return "";
}

Fit plain_fit(const ModelConfig& c) {
  if (c.moe.activation != Activation::swiglu) return none(concat("experts with ", name_of(c.moe.activation), " under these names"));
  if (c.moe_layers() == 0) return dense_fit(c);
  if (c.moe.expert_bias) return none("biases in SwiGLU experts");
  if (c.moe.router_bias) return none("a router bias without attention sinks");
  if (!c.moe.types.empty()) return none("experts that compute nothing");
  if (!c.moe.widths.empty()) return none("experts of several widths");
  if (c.moe.gate_residual) return none("a residual between routers");
  if (c.moe.weight_on_input) return none("weights on the experts' input with this rotary embedding");
  const RoutingFacts f = routing_facts(c);
  if (f.temperature != 1) return none("a router temperature");
  if (f.bias_on_logits) return none("a selection bias on logits");
  if (f.kind == "softmax") return softmax_fit(c, f);
  if (f.kind == "sigmoid") return sigmoid_fit(c, f);
  return none(concat("the router '", f.kind, "'"));
}

}  // namespace

Fit fit_of(const ModelConfig& c) {
  const Fit fit = plain_fit(c);
  if (fit.family == "moe") return fit;
  if (const std::string s = special(c, fit.family); !s.empty()) return none(concat(s, " among those that are written; ", fit.family, " has the rest"));
  return fit;
}

}  // namespace moe
