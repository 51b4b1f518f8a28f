// What a model is: sizes and switches, named as config.json names them where it has a name. A
// preset is a filled-in ModelConfig; "--model tiny:layers=6,hidden=96" starts from one and sets
// fields. What layers the fields make is said in architecture.h, what they cost in cost.h.
#pragma once
#include <string>
#include <vector>

#include "lib/core/signal.h"
#include "lib/core/spec.h"
#include "lib/layer/layer_config.h"
#include "lib/model/projector_kind.h"

namespace moe {

// RMSNorm of q and k: per head (Qwen3) or over the whole row (OLMoE) before they are turned, per
// head after (Hunyuan), per head after and without weights (Llama 4, in layers with rotary
// embedding).
enum class QkNorm { none, head, full, head_after, length_after };
// RMSNorm, LayerNorm without bias, LayerNorm, RMSNorm times 1 + w (Qwen3-Next).
enum class NormKind { rms, layer, layer_bias, rms_plus_one };
// Attention's output times the sigmoid of a product of its input, before the output matrix: a
// number for each of its numbers, by a matrix of its own (Trinity) or by rows of the query matrix
// beside those of each head (Qwen3-Next), or one for each head (Ling).
enum class AttentionGate { none, full, query, head };
// A dense feed-forward beside the experts of MoE layers. normed (Gemma 4): norm(dense(norm x)) +
// norm(experts(norm x)), the router reading the plain x in a norm of its own. shortcut (LongCat):
// both read the same, and what the experts put out is added behind the next layer.
enum class DenseBeside { none, normed, shortcut };

// experts_of_attention (JetMoE): a MoE layer whose experts are queries and outputs of attention; it
// counts as MoE wherever layers are counted.
enum class FeedKind { none, dense, moe, experts_of_attention, mixer };
// How lists of feed-forwards call it: mixture of attention heads.
inline constexpr std::string_view attention_experts = "moa";
// Where the stream goes on as alpha norm(x) + beta branch(norm(x)), by the kind of branch
// (MiniMax).
struct ResidualFactors {
  double attention_alpha = 1, attention_beta = 1, recurrent_alpha = 1, recurrent_beta = 1,
         feed_alpha = 1, feed_beta = 1;
};

struct ModelConfig {
  std::string preset;  // where it came from, for people
  // Which layer has which mixer, see mixer_type.h; empty: all have the first of mixers.def. The
  // fields of attention are those below.
  std::string mixer;
  // Which layer has which feed-forward, a list over the layers (layer_list.h): moe, dense, none,
  // moa (experts of attention), or a mixer that stands in its place (rwkv_channel). Empty: as
  // dense_layers, moe_every and dense_at say.
  std::string feed;
  int vocabulary = 320, hidden = 128, layers = 4, heads = 4, kv_heads = 2, head_dim = 32,
      context = 256;
  double rope_theta = 10000, norm_eps = 1e-5;
  bool tied = false;  // the output matrix is the embedding
  QkNorm qk_norm = QkNorm::none;
  int window = 0;                // sliding window of attention; 0 = all
  int chunk = 0;                 // attention inside chunks of so many positions (Llama 4); 0 = all
  std::vector<int> full_layers;  // layers where neither window nor chunk counts
  // layers without rotary embedding; there nothing cuts what is seen
  std::vector<int> no_rope_layers;
  // rule of the frequencies, see rotary.h; none: attention without positions
  std::string rope = "default";
  int rotary_dim = 0;     // numbers of a head that are turned; 0 = all
  std::string rope_axes;  // pairs that turn by time, height and width, see rope_axes.h; empty: none
  bool rope_interleaved = false;  // pairs (2j, 2j+1) for (j, j + d/2)
  // of queries without rotary embedding (Llama 4); 0 = none
  double stretch_floor = 0, stretch_scale = 0;
  bool stretch_turned = false;  // of all queries, positions counted from 0 (Mistral 4)
  double attention_scale = 0;   // of q.k; 0 = head_dim^-0.5
  double clip_qkv = 0;          // queries, keys and values clamped to +-clip; 0 = not
  bool qkv_bias = false, o_bias = false, output_bias = false;
  bool sinks = false;  // one more score a head, without value (gpt-oss)
  AttentionGate attention_gate = AttentionGate::none;
  double value_scale = 1;         // factor of values (MiMo-V2)
  bool values_from_keys = false;  // values are the keys before their norm (Gemma 4)
  bool value_norm = false;        // RMSNorm of values a head, without weights (Gemma 4)
  NormKind norm = NormKind::rms;
  bool norm_after = false;  // norms of what mixers and feed-forwards put out, not of what they read
  bool norm_both = false;   // norms of both (Trinity)
  bool moe_norm_after = false;  // one more norm, of what MoE layers put out (A.X-K1)
  double embedding_scale = 1, residual_scale = 1, logit_divisor = 1;  // Granite
  double final_norm_eps = 0;    // of the last norm; 0 = norm_eps (JetMoE)
  bool embedding_norm = false;  // a norm of the embedding (RWKV)
  // eps of norms grows fourfold every so many layers, as where the stream is halved there; 0 = not
  // (RWKV in transformers)
  int halve_every = 0;
  bool residual_normed = false;  // the stream goes on from normed rows, by the factors here
  ResidualFactors residual;
  // Latent attention where kv_rank > 0: head_dim = nope_dim + rope_dim; q_rank 0 = queries straight
  // from x. value_dim without latent attention: columns of a value head, 0 = head_dim.
  int q_rank = 0, kv_rank = 0, nope_dim = 0, rope_dim = 0, value_dim = 0;
  // factors of queries made from their latent row, and of the normed latent row of keys and values
  // (LongCat)
  double q_latent_scale = 1, kv_latent_scale = 1;
  // The first so many layers are an encoder, the others its decoder, which attends to it; 0 = a
  // decoder alone. The fields that follow are of encoder-decoders.
  int encoder_layers = 0;
  int decoder_width = 0;       // of every body in the decoder; 0 = as in the encoder
  bool sinusoidal = false;     // positions are added to the embeddings (1706.03762, section 3.5)
  bool route_padding = false;  // feed-forwards of the encoder treat padding as any token
  // what the decoder reads first, and the id of padding, which has no position; -1 = none
  int start_token = -1, pad_token = -1;
  bool dense_bias = false;         // biases in dense feed-forwards
  bool encoder_embedding = false;  // the encoder has an embedding of its own
  int dense_layers = 0;            // leading layers with a dense feed-forward (DeepSeek)
  int moe_every = 1;          // of the others, every n-th is MoE, the last of each n (GShard: 2)
  std::vector<int> dense_at;  // more layers that are dense
  // width of dense feed-forwards; 0 = k * width + shared width: as many active parameters as a MoE
  // layer
  int dense_width = 0;
  DenseBeside dense_beside = DenseBeside::none;
  // Sparse attention (DeepSeek-V3.2): of the keys before it a query attends to the index_topk that
  // an indexer of so many heads of index_dim numbers finds best; 0 = all. Layers of index_shared
  // take the keys of the layer before. Turned in pairs as the attention is, or (j, j + d/2).
  int index_topk = 0, index_heads = 0, index_dim = 0;
  bool index_interleaved = false;
  std::vector<int> index_shared;
  bool layer_scale = false;  // a number of each layer that its output is multiplied by, not trained
  double logit_cap = 0;      // logits become cap tanh(z/cap); 0 = not
  // Hyper-connections (DeepSeek-V4): so many residual streams, which every branch reads as one row
  // and mixes by a matrix that so many rounds make nearly doubly stochastic; 0 = one stream, added
  // to. eps: added to sums and weights there.
  int streams = 0, stream_rounds = 20;
  double stream_eps = 1e-6;
  // MoE layers whose tokens' experts stand in a table by token id, weighed by the router's scores
  std::vector<int> table_layers;
  // What it reads besides text: a product for each kind makes vectors of rows of numbers, and the
  // last ids of the vocabulary are those of their places; empty = text alone
  SignalShapes signal;
  ProjectorKind projector = ProjectorKind::linear;
  bool dense = false;  // the dense baseline: every layer dense, of dense_width
  LayerConfig moe;     // experts, width, activation, router, balance, capacity, shared, ...
  // trunc_normal | layerwise | depth_scaled | switch (equations.md section 9)
  std::string init = "trunc_normal";

  // Rules of single layers, from 0; dense_layers and moe_every count in each stack from its first;
  // defined beside architecture_of(), which applies them.
  std::vector<FeedKind> feeds() const;      // of all layers
  std::string feed_mixer(int layer) const;  // the spec in `feed` of a layer with such a one
  bool is_moe(int layer) const;             // experts of whatever kind
  bool has_experts_of_attention() const;
  // `moe` as this layer has it: of table_layers with a router that looks experts up, and without
  // balancers that move the bias of another; of experts of attention with the width of their heads
  LayerConfig moe_of(int layer) const;
  bool in_encoder(int layer) const {
    return layer < encoder_layers;
  }
  bool has_rope(int layer) const;
  bool sees_all(int layer) const;
  // The layer of a published file that this one is, or half of (shortcut).
  int published_layer(int layer) const {
    return dense_beside == DenseBeside::shortcut ? layer / 2 : layer;
  }
  int moe_layers() const;
  int rotary_dims() const {
    return kv_rank > 0 ? rope_dim : rotary_dim > 0 ? rotary_dim : head_dim;
  }
  int dense_baseline_width() const;  // dense_width with 0 resolved
};

struct Preset {
  // about: what it is after and what was scaled down; fields: as a user would write them
  std::string_view name, about, fields;
};
const std::vector<Preset>& model_presets();  // presets.def

// "tiny", "tiny:layers=6,router={softmax:k=1},balance={switch:coef=0.01;z:coef=0.001}": every field
// settable; throws Error(usage) in a sentence (hidden size not divisible by heads, k > E, unknown
// field with the nearest name). Router, capacity and balance come back with their defaults filled
// in. A command line's own options go in with Spec::set("router", ...), which replaces what was
// given.
ModelConfig model_config(const std::string& spec);
ModelConfig model_config(Spec);
void check(const ModelConfig&);            // the same refusals for a config from elsewhere
void check_sizes(const ModelConfig&);      // of them those without which nothing can be counted
void check_attention(const ModelConfig&);  // of them those that concern attention
ModelConfig resolved(const ModelConfig&);  // checked, and with every default of its specs filled in
// "tiny:vocabulary=320,hidden=128,...": every field, so that model_config() gives the same model
// back.
std::string to_spec(const ModelConfig&);
// The same with the fields that to_spec() leaves out because they have their default.
std::string to_full_spec(const ModelConfig&);

}  // namespace moe
