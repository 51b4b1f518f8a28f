// Mamba and Mamba-2 as mamba_ssm's models are published: a mixer behind a norm in every layer, no
// feed-forward, no attention.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/mamba2_keys.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

constexpr Mamba2Keys mamba2_keys{"num_heads",   "head_dim",      "n_groups", "state_size",
                                 "conv_kernel", "use_conv_bias", "use_bias"};

// What both have in common; their class has no key for a context.
void read_layers(const ConfigReader& r, ModelConfig& c) {
  Json j = reworded(r, {{"rms_norm_eps", "layer_norm_epsilon"}});
  set_no_attention(j, r);
  c.rope = rope_none;
  read_common(r.with(j), c);
  c.attention_scale = 1;
  set_feeds(c, {"none"});
}

int rank_in(const ConfigReader& r, const ModelConfig& c) {
  const bool said = r.has("time_step_rank") && r.at("time_step_rank").is_number();
  return said ? r.positive("time_step_rank") : (c.hidden + 15) / 16;
}

void read_first(const ConfigReader& r, ModelConfig& c) {
  read_layers(r, c);
  const int inner = r.has("intermediate_size") ? r.positive("intermediate_size")
                                               : int(r.real("expand", 2) * c.hidden);
  set_mixers(c, {concat("mamba1:inner=", inner, ",state=", r.positive("state_size"),
                        ",rank=", rank_in(r, c), ",kernel=", r.positive("conv_kernel"), ",norms=0",
                        r.flag("use_conv_bias", true) ? "" : ",conv_bias=0",
                        r.flag("use_bias", false) ? ",proj_bias=1" : "")});
}

void read_second(const ConfigReader& r, ModelConfig& c) {
  Json j = r.json();
  j.erase("head_dim");  // of the mixer
  read_layers(r.with(j), c);
  const int heads = r.positive("num_heads");
  const int width = r.positive("head_dim");
  if (heads * width != r.real("expand", 2) * c.hidden) {
    r.refuse(concat("num_heads x head_dim is ", heads * width, " and expand x hidden_size is ",
                    r.real("expand", 2) * c.hidden),
             "the same");
  }
  set_mixers(c, {mamba2_spec(r, mamba2_keys, width, step_bounds(r))});
}

void write_common(const ModelConfig& c, Json& j) {
  j["layer_norm_epsilon"] = c.norm_eps;
  j["residual_in_fp32"] = true;
  for (const char* key : {"rms_norm_eps", "rope_theta", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "attention_dropout", "attention_bias"})
    j.erase(key);
}

void write_first(const ModelConfig& c, Json& j) {
  write_common(c, j);
  Spec s = mixer_options(c, "mamba1");
  j["expand"] = s.get("inner", 0) / c.hidden;
  j["state_size"] = s.get("state", 16);
  j["time_step_rank"] = s.get("rank", 0);
  j["conv_kernel"] = s.get("kernel", 4);
  j["use_conv_bias"] = s.get("conv_bias", true);
  j["use_bias"] = s.get("proj_bias", false);
}

void write_second(const ModelConfig& c, Json& j) {
  write_common(c, j);
  const StepBounds step = write_mamba2(c, j, mamba2_keys);
  j["expand"] = j["num_heads"].get<double>() * j["head_dim"].get<double>() / c.hidden;
  write_step_bounds(step, j);
}

Names names() {
  return {.prefix = "backbone.",
          .embedding = "embeddings.weight",
          .final_norm = "norm_f",
          .below = {{"attention_norm", "norm.weight"}},
          .begin = {{"mamba.", "mixer."}}};
}

}  // namespace

FamilyRules mamba_family() {
  return {read_first, write_first, names()};
}
FamilyRules mamba2_family() {
  return {read_second, write_second, names()};
}

}  // namespace moe
