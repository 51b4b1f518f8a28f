// An encoder (BERT), and two systems that were published
// without a config.json (GShard, GLaM), for which the keys are ours.
#include <algorithm>

#include "lib/core/text.h"
#include "lib/plan/readers.h"

namespace moe::plan {
namespace {

FeedShape feed_of(Count width, int matrices, bool bias = false) {
  return {.width = width, .matrices = matrices, .bias = bias};
}

Architecture bert(const ConfigReader& r) {
  Architecture a = read_sizes(r);
  a.norm_bias = true;
  a.head = false;
  a.final_norms = 1;  // the norm behind the embeddings
  MixerShape m{.qkv_bias = true, .o_bias = true};
  m.heads = m.kv_heads = r.positive("num_attention_heads");
  m.head_dim = a.hidden / m.heads;
  for (LayerShape& l : a.layers)
    l = {.mixers = {m},
         .feed = feed_of(r.positive("intermediate_size"), 2, true),
         .stack = Stack::encoder};
  a.extra.push_back(
      {"position and type embeddings", (a.context + r.whole("type_vocab_size", 2)) * a.hidden});
  a.extra.push_back({"pooler", a.hidden * a.hidden + a.hidden});
  return a;
}

// GShard and GLaM: ungated experts in every other layer, one stack, no output matrix of its own.
Architecture early(const ConfigReader& r, bool glam) {
  Architecture a;
  a.hidden = r.positive("hidden_size");
  a.vocabulary = r.positive("vocab_size");
  a.tied = true;
  a.final_norms = 0;
  MixerShape m;
  m.heads = m.kv_heads = r.positive("num_attention_heads");
  m.head_dim = r.positive("head_dim");
  FeedShape moe = feed_of(r.positive("intermediate_size"), 2);
  const FeedShape dense = feed_of(moe.width, glam ? 3 : 2);
  read_choices(r, {"num_experts", "num_experts_per_tok"}, moe);
  a.layers.resize(std::size_t(r.layers("num_hidden_layers")));
  for (std::size_t l = 0; l < a.layers.size(); ++l)
    a.layers[l] = {.mixers = {m}, .feed = l % 2 == 1 ? moe : dense};
  return a;
}

}  // namespace

Architecture read_other(const ConfigReader& r, const std::string& type) {
  if (type == "bert")
    return bert(r);
  return early(r, type == "glam");
}

}  // namespace moe::plan
