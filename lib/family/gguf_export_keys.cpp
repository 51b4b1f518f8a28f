// Sizes and rules of a model as keys of GGUF. What an architecture has no key for is what llama.cpp
// does without being told; whoever writes a file reads it back and compares.
#include "lib/family/gguf_export_keys.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

constexpr std::array forms = {
    GgufExportForm{
        .family = "llama", .architecture = "llama", .own_width = false, .plain_width = true},
    GgufExportForm{
        .family = "mistral", .architecture = "llama", .own_width = false, .plain_width = true},
    GgufExportForm{
        .family = "mixtral", .architecture = "llama", .own_width = false, .plain_width = true},
    GgufExportForm{
        .family = "olmoe", .architecture = "olmoe", .own_width = false, .plain_width = true},
    GgufExportForm{.family = "qwen2_moe", .architecture = "qwen2moe"},
    GgufExportForm{.family = "qwen3_moe", .architecture = "qwen3moe"},
    GgufExportForm{.family = "glm4_moe",
                   .architecture = "glm4moe",
                   .feed_norm = "post_attention_norm",
                   .dense_layers = true},
    GgufExportForm{.family = "granitemoe",
                   .architecture = "granitemoe",
                   .own_width = false,
                   .plain_width = true},
    GgufExportForm{.family = "granitemoeshared",
                   .architecture = "granitemoe",
                   .own_width = false,
                   .plain_width = true},
    GgufExportForm{
        .family = "gpt_oss", .architecture = "gpt-oss", .feed_norm = "post_attention_norm"},
    GgufExportForm{
        .family = "phimoe", .architecture = "phimoe", .own_width = false, .plain_width = true},
    GgufExportForm{.family = "ernie4_5_moe", .architecture = "ernie4_5-moe", .dense_layers = true},
    GgufExportForm{.family = "hunyuan_v1_moe", .architecture = "hunyuan-moe", .plain_width = true},
    GgufExportForm{.family = "minimax_m2", .architecture = "minimax-m2", .plain_width = true},
    GgufExportForm{.family = "deepseek", .architecture = "deepseek", .dense_layers = true},
    GgufExportForm{.family = "deepseek_v2", .architecture = "deepseek2", .dense_layers = true},
    GgufExportForm{.family = "deepseek_v3", .architecture = "deepseek2", .dense_layers = true},
    GgufExportForm{.family = "kimi_k2", .architecture = "deepseek2", .dense_layers = true},
    GgufExportForm{.family = "dbrx",
                   .architecture = "dbrx",
                   .feed_norm = "attn_output_norm",
                   .own_width = false,
                   .plain_width = true,
                   .fused_qkv = true},
    GgufExportForm{.family = "llama4_text", .architecture = "llama4", .dense_layers = true},
};

// expert_gating_func
constexpr int softmax = 1, sigmoid = 2;

class Keys {
 public:
  Keys(const GgufExportForm& form, const ModelConfig& c, GgufKeyWriter& out)
      : c_(c),
        facts_(c.moe_layers() > 0 ? router_facts(c) : RouterFacts{}),
        form_(form),
        out_(out) {}

  void sizes() {
    const bool latent = c_.kv_rank > 0;
    whole("block_count", c_.layers);
    whole("context_length", c_.context);
    whole("embedding_length", c_.hidden);
    whole("vocab_size", c_.vocabulary);
    const bool of_experts = form_.plain_width && c_.moe_layers() > 0;
    whole("feed_forward_length", of_experts ? c_.moe.width : c_.dense_baseline_width());
    whole("attention.head_count", c_.heads);
    whole("attention.head_count_kv", latent ? 1 : c_.kv_heads);
    whole("attention.key_length", latent ? c_.kv_rank + c_.rope_dim : c_.head_dim);
    whole("attention.value_length", latent ? c_.kv_rank : c_.head_dim);
    real(form_.architecture == "dbrx" ? "attention.layer_norm_epsilon"
                                      : "attention.layer_norm_rms_epsilon",
         c_.norm_eps);
    real("rope.freq_base", c_.rope_theta);
    whole("rope.dimension_count", c_.rotary_dims());
    if (c_.window > 0)
      whole("attention.sliding_window", c_.window);
    if (latent)
      latent_sizes();
  }
  void experts() {
    if (c_.moe_layers() == 0)
      return;
    whole("expert_count", c_.moe.experts);
    whole("expert_used_count", facts_.k);
    if (form_.own_width)
      whole("expert_feed_forward_length", c_.moe.width);
    if (c_.moe.shared_width > 0) {
      whole("expert_shared_feed_forward_length", c_.moe.shared_width);
      if (c_.moe.shared_width % c_.moe.width == 0)
        whole("expert_shared_count", c_.moe.shared_width / c_.moe.width);
    }
    routing();
    layers();
  }
  void scales() {
    if (form_.architecture == "granitemoe") {
      real("embedding_scale", c_.embedding_scale);
      real("residual_scale", c_.residual_scale);
      real("logit_scale", c_.logit_divisor);
      if (c_.attention_scale > 0)
        real("attention.scale", c_.attention_scale);
    }
    if (c_.clip_qkv > 0)
      real("attention.clamp_kqv", c_.clip_qkv);
    if (c_.stretch_scale > 0) {
      real("attention.temperature_length", c_.stretch_floor);
      real("attention.temperature_scale", c_.stretch_scale);
    }
  }
  void rope(std::vector<GgufVector>& vectors);

 private:
  void latent_sizes() {
    whole("attention.key_length_mla", c_.nope_dim + c_.rope_dim);
    whole("attention.value_length_mla", c_.value_dim);
    whole("attention.kv_lora_rank", c_.kv_rank);
    if (c_.q_rank > 0)
      whole("attention.q_lora_rank", c_.q_rank);
  }
  // What the router does; architectures that take no such key do it without.
  void routing() {
    const bool by_sigmoid = facts_.score == ScoreFunction::sigmoid;
    if ((by_sigmoid || facts_.score == ScoreFunction::softmax) && form_.architecture != "gpt-oss") {
      whole("expert_gating_func", by_sigmoid ? sigmoid : softmax);
      out_.flag(key("expert_weights_norm"), norm_topk(c_));
    }
    if (facts_.scale != 1 || form_.architecture.starts_with("deepseek"))
      real("expert_weights_scale", facts_.scale);
    if (facts_.groups > 1) {
      whole("expert_group_count", facts_.groups);
      whole("expert_group_used_count", facts_.topk_groups);
    }
  }
  // Which layers have experts: leading dense ones, and every n-th of the others.
  void layers() {
    int first = 0;
    while (first < c_.layers && !c_.is_moe(first))
      ++first;
    int next = first + 1;
    while (next < c_.layers && !c_.is_moe(next))
      ++next;
    whole("leading_dense_block_count", first);
    whole("interleave_moe_layer_step", next < c_.layers ? next - first : 1);
  }

  std::string key(const std::string& name) const {
    return concat(form_.architecture, ".", name);
  }
  void whole(const std::string& name, Index v) {
    out_.u32(key(name), std::uint32_t(v));
  }
  void real(const std::string& name, double v) {
    out_.f32(key(name), float(v));
  }
  void text(const std::string& name, const std::string& v) {
    out_.text(key(name), v);
  }
  void yarn(const Json& rule);
  void longrope(const Json& rule, std::vector<GgufVector>& vectors);

  const ModelConfig& c_;
  const RouterFacts facts_;
  const GgufExportForm& form_;
  GgufKeyWriter& out_;
};

// The factor of cosines and sines is the published default, or is written beside it; with
// mscale_all_dim llama.cpp takes mscale to be the same, and the factor is 1.
void Keys::yarn(const Json& rule) {
  const double factor = rule.at("factor");
  text("rope.scaling.type", "yarn");
  real("rope.scaling.factor", factor);
  whole("rope.scaling.original_context_length", rule.at("original_max_position_embeddings"));
  real("rope.scaling.yarn_beta_fast", rule.at("beta_fast"));
  real("rope.scaling.yarn_beta_slow", rule.at("beta_slow"));
  const double scale = rule.at("attention_factor");
  const double weight = rule.value("mscale_all_dim", 0.0);
  const double usual = weight != 0 ? 1 : yarn_magnitude(factor, 1);
  const bool other = std::abs(scale - usual) > 1e-9;
  if (weight != 0 && other) {
    throw Error(Exit::usage, concat("llama.cpp takes mscale of YaRN to be mscale_all_dim, and this "
                                    "model has a factor of ",
                                    scale, " between the two"))
        .hint("-o FOLDER keeps everything");
  }
  if (weight != 0)
    real("rope.scaling.yarn_log_multiplier", 0.1 * weight);
  else if (other)
    real("rope.scaling.attn_factor", scale / yarn_magnitude(factor, 1));
}

std::vector<float> as_floats(const Json& numbers) {
  std::vector<float> out;
  for (const Json& v : numbers)
    out.push_back(float(v.get<double>()));
  return out;
}

void Keys::longrope(const Json& rule, std::vector<GgufVector>& vectors) {
  text("rope.scaling.type", "longrope");
  whole("rope.scaling.original_context_length", rule.at("original_max_position_embeddings"));
  if (rule.at("short_mscale") == rule.at("long_mscale"))
    real("rope.scaling.attn_factor", rule.at("short_mscale"));
  vectors.push_back({"rope_factors_long.weight", as_floats(rule.at("long_factor"))});
  vectors.push_back({"rope_factors_short.weight", as_floats(rule.at("short_factor"))});
}

// Llama 3's rule becomes the divisors of the plain frequencies.
std::vector<float> divisors(const ModelConfig& c) {
  const Rotary plain = rotary_of("default", c.rotary_dims(), c.rope_theta);
  const Rotary rule = rotary_of(c.rope, c.rotary_dims(), c.rope_theta);
  std::vector<float> out;
  for (std::size_t i = 0; i < plain.frequency.size(); ++i)
    out.push_back(float(plain.frequency[i] / rule.frequency[i]));
  return out;
}

void Keys::rope(std::vector<GgufVector>& vectors) {
  Json j = Json::object();
  write_rope(c_, j);
  if (!j.contains("rope_scaling"))
    return;
  const Json& rule = j.at("rope_scaling");
  const std::string type = rule.at("rope_type");
  if (type == "linear") {
    text("rope.scaling.type", "linear");
    real("rope.scaling.factor", rule.at("factor"));
  } else if (type == "yarn") {
    yarn(rule);
  } else if (type == "longrope") {
    longrope(rule, vectors);
  } else if (type == "llama3") {
    vectors.push_back({"rope_freqs.weight", divisors(c_)});
  }
}

}  // namespace

const GgufExportForm* gguf_form_of(const std::string& family) {
  const auto found = std::ranges::find(forms, family, &GgufExportForm::family);
  return found == forms.end() ? nullptr : &*found;
}

void write_gguf_keys(const GgufExportForm& form, const ModelConfig& c, GgufKeyWriter& out,
                     std::vector<GgufVector>& vectors) {
  Keys keys(form, c, out);
  keys.sizes();
  keys.experts();
  keys.scales();
  keys.rope(vectors);
}

}  // namespace moe
