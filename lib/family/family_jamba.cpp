// Jamba: Mamba with norms in most layers, attention without positions in the others, experts in
// every second layer, weights as the softmax gives them.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/mixer_type.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

constexpr ExpertKeys expert_keys{"num_experts", "num_experts_per_tok", "intermediate_size"};

// Layers l with l % period = offset.
struct Every {
  int period, offset;

  Every(const ConfigReader& r, const char* period_key, const char* offset_key)
      : period(r.positive(period_key)), offset(r.whole(offset_key)) {
    if (offset >= period) {
      r.refuse(concat(offset_key, " is ", offset, " and ", period_key, " is ", period),
               "below the period");
    }
  }
  bool has(int layer) const {
    return layer % period == offset;
  }
};

std::string mamba_spec(const ConfigReader& r, const ModelConfig& c) {
  const bool ranked = r.has("mamba_dt_rank") && r.at("mamba_dt_rank").is_number();
  const int rank = ranked ? r.positive("mamba_dt_rank") : (c.hidden + 15) / 16;
  return concat("mamba1:inner=", r.positive("mamba_expand") * c.hidden,
                ",state=", r.positive("mamba_d_state"), ",rank=", rank,
                ",kernel=", r.positive("mamba_d_conv"), ",norms=1",
                r.flag("mamba_conv_bias", true) ? "" : ",conv_bias=0",
                r.flag("mamba_proj_bias", false) ? ",proj_bias=1" : "");
}

void read(const ConfigReader& r, ModelConfig& c) {
  c.rope = rope_none;
  read_common(r, c);
  const Every attends(r, "attn_layer_period", "attn_layer_offset");
  const Every sparse(r, "expert_layer_period", "expert_layer_offset");
  std::vector<std::string> mixers;
  for (int l = 0; l < c.layers; ++l)
    mixers.push_back(attends.has(l) ? "attention" : mamba_spec(r, c));
  set_mixers(c, mixers);
  c.dense_width = r.positive("intermediate_size");
  // one expert is a dense feed-forward
  const bool experts = r.whole("num_experts") > 1;
  set_moe_layers(c, [&](int l) { return experts && sparse.has(l); });
  if (!c.dense)
    c.moe.router = concat("softmax:k=", read_experts(r, c, expert_keys), ",norm=0");
}

// The period and offset that give these layers, of those that give any the shortest; a period
// beyond the model where there are none or one.
void write_every(Json& j, const char* period_key, const char* offset_key, int layers,
                 const std::function<bool(int)>& is) {
  for (int period = 1; period <= layers + 1; ++period) {
    for (int offset = 0; offset < period; ++offset) {
      bool fits = true;
      for (int l = 0; l < layers && fits; ++l)
        fits = is(l) == (l % period == offset);
      if (!fits)
        continue;
      j[period_key] = period;
      j[offset_key] = offset;
      return;
    }
  }
  throw Error(Exit::usage, "no period gives these layers");
}

void write(const ModelConfig& c, Json& j) {
  const bool sparse = c.moe_layers() > 0;
  write_every(j, "attn_layer_period", "attn_layer_offset", c.layers,
              [&](int l) { return has_mixer(c, l, "attention"); });
  write_every(j, "expert_layer_period", "expert_layer_offset", c.layers,
              [&](int l) { return c.is_moe(l); });
  Spec s = mixer_options(c, "mamba1");
  j["mamba_expand"] = s.get("inner", 0) / c.hidden;
  j["mamba_d_state"] = s.get("state", 16);
  j["mamba_dt_rank"] = s.get("rank", 0);
  j["mamba_d_conv"] = s.get("kernel", 4);
  j["mamba_conv_bias"] = s.get("conv_bias", true);
  j["mamba_proj_bias"] = s.get("proj_bias", false);
  j["num_experts"] = 1;
  j["num_experts_per_tok"] = 1;
  j["intermediate_size"] = c.dense_baseline_width();
  if (sparse)
    write_experts(c, j, expert_keys);
  for (const char* key : {"rope_theta", "attention_bias"})
    j.erase(key);
}

Names names() {
  return {.final_norm = "final_layernorm",
          .below = {{"feed_norm", "pre_ff_layernorm.weight"},
                    {"moe.router.weight", "feed_forward.router.weight"}},
          .experts = "feed_forward.experts.",
          .dense = "feed_forward."};
}

}  // namespace

FamilyRules jamba_family() {
  return {
      read,
      write,
      names(),
      {.gate_up = "feed_forward.experts.gate_up_proj", .down = "feed_forward.experts.down_proj"}};
}

}  // namespace moe
