// The language models of MoE-LLaVA, with grouped-query attention in every layer; and what readers
// of several kinds have in common.
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/plan/readers.h"

namespace moe::plan {

void read_choices(const ConfigReader& r, const ChoiceKeys& keys, FeedShape& f) {
  f.experts = r.positive(keys.experts);
  f.k = r.positive(keys.k);
  if (f.k > f.experts) {
    r.refuse(concat(keys.k, " is ", f.k, " and ", keys.experts, " is ", f.experts),
             "between 1 and the number of experts");
  }
}

Architecture read_sizes(const ConfigReader& r) {
  Architecture a;
  a.hidden = r.positive("hidden_size");
  a.vocabulary = r.positive("vocab_size");
  a.context = r.whole("max_position_embeddings", 0);
  a.tied = r.flag("tie_word_embeddings", false);
  a.layers.resize(std::size_t(r.layers("num_hidden_layers")));
  return a;
}

MixerShape read_attention(const ConfigReader& r, Count hidden) {
  MixerShape m;
  m.heads = r.positive("num_attention_heads");
  m.kv_heads = r.whole("num_key_value_heads", int(m.heads));
  if (!r.has("head_dim") && hidden % m.heads != 0) {
    r.refuse(concat("hidden_size ", hidden, " is not divisible by num_attention_heads ", m.heads,
                    " and head_dim is absent"));
  }
  m.head_dim = r.has("head_dim") ? r.whole("head_dim") : hidden / m.heads;
  return m;
}

namespace {

// Every other layer has experts. Phi's attention and feed-forward read the same norm, and all its
// matrices have biases.
void add_llava_layers(const ConfigReader& r, bool phi, const MixerShape& mixer, Architecture& a) {
  const FeedShape dense{
      .width = r.positive("intermediate_size"), .matrices = phi ? 2 : 3, .bias = phi};
  FeedShape moe = dense;
  read_choices(r, {"num_experts", "num_experts_per_tok"}, moe);
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    a.layers[l].mixers = {mixer};
    a.layers[l].feed = l % 2 == 0 ? moe : dense;
    a.layers[l].norms = phi ? 1 : 2;
  }
}

}  // namespace

Architecture read_decoder(const ConfigReader& r, const std::string& type) {
  Architecture a = read_sizes(r);
  MixerShape mixer = read_attention(r, a.hidden);
  const bool phi = type == "moe_llava_phi";
  mixer.qkv_bias = true;
  mixer.o_bias = phi;
  if (r.flag("use_sliding_window", false))
    mixer.window = r.whole("sliding_window", 0);
  a.norm_bias = phi || type == "moe_llava_stablelm";
  if (phi)
    a.extra.push_back({"bias of the output", a.vocabulary});
  add_llava_layers(r, phi, mixer, a);
  return a;
}

}  // namespace moe::plan
