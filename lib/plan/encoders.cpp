// Encoder-decoders (T5, Switch, NLLB), an encoder (BERT), and two systems that were published
// without a config.json (GShard, GLaM), for which the keys are ours.
#include "lib/plan/keys.h"

namespace moe::plan {
namespace {

Feed feed_of(Count width, int matrices, bool bias = false) {
  return {.width = width, .matrices = matrices, .bias = bias};
}

// Sparse where (l + 1 + shift) is a multiple of the step.
bool sparse(Count l, Count step, Count shift) {
  return step > 0 && (l + shift) % step == 0;
}

Description t5(const Keys& r, bool with_experts) {
  Description d;
  d.hidden = r.positive("d_model");
  d.vocabulary = r.positive("vocab_size");
  d.tied = r.flag("tie_word_embeddings", true);
  d.final_norms = 2;
  Mixer m;
  m.heads = m.kv_heads = r.positive("num_heads");
  m.head_dim = r.positive("d_kv");
  Mixer cross = m;
  cross.cross = true;
  const bool gated = r.text("feed_forward_proj", "relu").starts_with("gated");
  const Feed dense = feed_of(r.positive("d_ff"), gated ? 3 : 2);
  Feed moe = dense;
  if (with_experts) {
    moe.experts = r.positive("num_experts");
    moe.k = 1;
  }
  const auto add = [&](Count layers, Count sparse_layers, bool encoder) {
    const Count step = sparse_layers > 0 ? std::max<Count>(1, layers / sparse_layers) : 0;
    for (Count l = 0; l < layers; ++l) {
      const bool is_moe = with_experts && step > 0 && (step == 1 || l % step == 1);
      Layer layer{.mixers = {m},
                  .feed = is_moe ? moe : dense,
                  .norms = encoder ? 2 : 3,
                  .encoder = encoder};
      if (!encoder)
        layer.mixers.push_back(cross);
      d.layers.push_back(layer);
    }
  };
  const Count layers = r.layers("num_layers");
  add(layers, r.whole("num_sparse_encoder_layers", 3), true);
  add(r.has("num_decoder_layers") ? r.layers("num_decoder_layers") : layers,
      r.whole("num_sparse_decoder_layers", 3), false);
  d.extra.push_back(
      {"relative position biases", 2 * r.whole("relative_attention_num_buckets", 32) * m.heads});
  return d;
}

Description nllb(const Keys& r) {
  Description d;
  d.hidden = r.positive("d_model");
  d.vocabulary = r.positive("vocab_size");
  d.context = r.whole("max_position_embeddings", 0);
  d.tied = true;
  d.norm_bias = true;
  d.final_norms = 2;
  Feed moe = feed_of(r.positive("encoder_ffn_dim"), 2, true);
  const Feed dense = moe;
  moe.experts = r.positive("num_experts");
  moe.k = 2;
  const auto add = [&](const char* layers, const char* heads, const char* step, bool encoder) {
    Mixer m{.qkv_bias = true, .o_bias = true};
    m.heads = m.kv_heads = r.positive(heads);
    m.head_dim = d.hidden / m.heads;
    Mixer cross = m;
    cross.cross = true;
    for (Count l = 0; l < r.layers(layers); ++l) {
      Layer layer{.mixers = {m},
                  .feed = sparse(l, r.whole(step, 4), 1) ? moe : dense,
                  .norms = encoder ? 2 : 3,
                  .encoder = encoder};
      if (!encoder)
        layer.mixers.push_back(cross);
      d.layers.push_back(layer);
    }
  };
  add("encoder_layers", "encoder_attention_heads", "encoder_sparse_step", true);
  add("decoder_layers", "decoder_attention_heads", "decoder_sparse_step", false);
  return d;
}

Description bert(const Keys& r) {
  Description d = read_sizes(r);
  d.norm_bias = true;
  d.head = false;
  d.final_norms = 1;  // the norm behind the embeddings
  Mixer m{.qkv_bias = true, .o_bias = true};
  m.heads = m.kv_heads = r.positive("num_attention_heads");
  m.head_dim = d.hidden / m.heads;
  for (Layer& l : d.layers)
    l = {.mixers = {m}, .feed = feed_of(r.positive("intermediate_size"), 2, true), .encoder = true};
  d.extra.push_back(
      {"position and type embeddings", (d.context + r.whole("type_vocab_size", 2)) * d.hidden});
  d.extra.push_back({"pooler", d.hidden * d.hidden + d.hidden});
  return d;
}

// GShard and GLaM: ungated experts in every other layer, one stack, no output matrix of its own.
Description early(const Keys& r, bool glam) {
  Description d;
  d.hidden = r.positive("hidden_size");
  d.vocabulary = r.positive("vocab_size");
  d.tied = true;
  d.final_norms = 0;
  Mixer m;
  m.heads = m.kv_heads = r.positive("num_attention_heads");
  m.head_dim = r.positive("head_dim");
  Feed moe = feed_of(r.positive("intermediate_size"), 2);
  const Feed dense = feed_of(moe.width, glam ? 3 : 2);
  moe.experts = r.positive("num_experts");
  moe.k = r.positive("num_experts_per_tok");
  check_choices(r, "num_experts_per_tok", moe.k, "num_experts", moe.experts);
  d.layers.resize(std::size_t(r.layers("num_hidden_layers")));
  for (std::size_t l = 0; l < d.layers.size(); ++l)
    d.layers[l] = {.mixers = {m}, .feed = l % 2 == 1 ? moe : dense};
  return d;
}

}  // namespace

Description read_other(const Keys& r, const std::string& type) {
  if (type == "bert")
    return bert(r);
  if (type == "nllb-moe")
    return nllb(r);
  if (type == "gshard" || type == "glam")
    return early(r, type == "glam");
  return t5(r, type == "switch_transformers");
}

}  // namespace moe::plan
