// RWKV-4 as transformers publishes it: time mix and channel mix in every layer, LayerNorms with
// biases, one more behind the embedding.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/mixer_type.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

void read(const ConfigReader& r, ModelConfig& c) {
  Json j = reworded(
      r, {{"rms_norm_eps", "layer_norm_epsilon"}, {"max_position_embeddings", "context_length"}});
  set_no_attention(j, r);
  c.rope = rope_none;
  read_common(r.with(j), c);
  c.norm = NormKind::layer_bias;
  c.embedding_norm = true;
  c.halve_every = r.whole("rescale_every");
  const bool own = r.has("attention_hidden_size");
  const bool wide = r.has("intermediate_size");
  set_mixers(c, {concat("rwkv4:width=", own ? r.positive("attention_hidden_size") : c.hidden)});
  set_feeds(c, {concat("rwkv_channel:version=4,width=",
                       wide ? r.positive("intermediate_size") : 4 * c.hidden)});
}

void write(const ModelConfig& c, Json& j) {
  Spec time = mixer_options(c, "rwkv4");
  if (c.feed.empty())
    throw Error(Exit::usage, "its layers have no channel mix");
  Spec channel(c.feed_mixer(0));
  j["attention_hidden_size"] = time.get("width", 0);
  j["intermediate_size"] = channel.get("width", 0);
  j["layer_norm_epsilon"] = c.norm_eps;
  j["context_length"] = c.context;
  j["rescale_every"] = c.halve_every;
  for (const char* key : {"rms_norm_eps", "rope_theta", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "max_position_embeddings",
                          "hidden_act", "attention_dropout", "attention_bias", "initializer_range"})
    j.erase(key);
}

Names names() {
  return {.prefix = "rwkv.",
          .layers = "blocks.",
          .embedding = "embeddings.weight",
          .final_norm = "ln_out",
          .output = "head",
          .below = {{"attention_norm", "ln1.weight"},
                    {"attention_norm_bias", "ln1.bias"},
                    {"feed_norm", "ln2.weight"},
                    {"feed_norm_bias", "ln2.bias"}},
          .shape = {{"time_mix_key", {1, 1, 0}},
                    {"time_mix_value", {1, 1, 0}},
                    {"time_mix_receptance", {1, 1, 0}}},
          .embedding_norm = "blocks.0.pre_ln"};
}

}  // namespace

FamilyRules rwkv_family() {
  return {read, write, names()};
}

}  // namespace moe
