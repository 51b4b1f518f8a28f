// Encoder-decoders (T5, Switch, NLLB), an encoder (BERT), and two systems that were published
// without a config.json (GShard, GLaM), for which the keys are ours.
#include <algorithm>
#include <functional>

#include "lib/core/text.h"
#include "lib/plan/readers.h"

namespace moe::plan {
namespace {

FeedShape feed_of(Count width, int matrices, bool bias = false) {
  return {.width = width, .matrices = matrices, .bias = bias};
}

// A stack of T5 or NLLB: attention to itself, in the decoder also to the encoder's output.
void add_stack(Architecture& a, Stack stack, const MixerShape& mixer, Count layers,
               const std::function<FeedShape(Count layer)>& feed) {
  MixerShape cross = mixer;
  cross.cross = true;
  for (Count l = 0; l < layers; ++l) {
    LayerShape& layer = a.layers.emplace_back();
    layer.mixers = {mixer};
    layer.feed = feed(l);
    layer.norms = stack == Stack::encoder ? 2 : 3;
    layer.stack = stack;
    if (stack == Stack::decoder)
      layer.mixers.push_back(cross);
  }
}

Architecture t5(const ConfigReader& r, bool with_experts) {
  Architecture a;
  a.hidden = r.positive("d_model");
  a.vocabulary = r.positive("vocab_size");
  a.tied = r.flag("tie_word_embeddings", true);
  a.final_norms = 2;
  MixerShape m;
  m.heads = m.kv_heads = r.positive("num_heads");
  m.head_dim = r.positive("d_kv");
  const bool gated = r.text("feed_forward_proj", "relu").starts_with("gated");
  const FeedShape dense = feed_of(r.positive("d_ff"), gated ? 3 : 2);
  FeedShape moe = dense;
  if (with_experts) {
    moe.experts = r.positive("num_experts");
    moe.k = 1;
  }
  const auto add = [&](Stack stack, Count layers, const char* sparse_key) {
    const Count of_them = with_experts ? r.whole(sparse_key, 3) : 0;
    const Count step = of_them > 0 ? std::max<Count>(1, layers / of_them) : 0;
    add_stack(a, stack, m, layers,
              [&](Count l) { return step == 1 || (step > 1 && l % step == 1) ? moe : dense; });
  };
  const Count layers = r.layers("num_layers");
  add(Stack::encoder, layers, "num_sparse_encoder_layers");
  add(Stack::decoder, r.has("num_decoder_layers") ? r.layers("num_decoder_layers") : layers,
      "num_sparse_decoder_layers");
  a.extra.push_back(
      {"relative position biases", 2 * m.heads * r.whole("relative_attention_num_buckets", 32)});
  return a;
}

Architecture nllb(const ConfigReader& r) {
  Architecture a;
  a.hidden = r.positive("d_model");
  a.vocabulary = r.positive("vocab_size");
  a.context = r.whole("max_position_embeddings", 0);
  a.tied = r.flag("tie_word_embeddings", true);
  a.norm_bias = true;
  a.final_norms = 2;
  FeedShape moe = feed_of(r.positive("encoder_ffn_dim"), 2, true);
  const FeedShape dense = moe;
  moe.experts = r.positive("num_experts");
  moe.k = 2;
  const auto add = [&](Stack stack, const char* layers, const char* heads, const char* step) {
    MixerShape m{.qkv_bias = true, .o_bias = true};
    m.heads = m.kv_heads = r.positive(heads);
    m.head_dim = a.hidden / m.heads;
    const Count each = r.whole(step, 4);
    add_stack(a, stack, m, r.layers(layers),
              [&](Count l) { return each > 0 && (l + 1) % each == 0 ? moe : dense; });
  };
  add(Stack::encoder, "encoder_layers", "encoder_attention_heads", "encoder_sparse_step");
  add(Stack::decoder, "decoder_layers", "decoder_attention_heads", "decoder_sparse_step");
  return a;
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
  if (type == "nllb-moe")
    return nllb(r);
  if (type == "gshard" || type == "glam")
    return early(r, type == "glam");
  return t5(r, type == "switch_transformers");
}

}  // namespace moe::plan
