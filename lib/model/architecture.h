// One model as a list of layers: what mixes tokens, what feeds forward, how wide each is. The
// decoder is built from it, `moe train --dry-run` and `moe plan` count it, and whatever a
// ModelConfig says of single layers is decided here and nowhere else. Models that the decoder
// cannot compute have one too, read from their config.json (lib/plan). Letters as everywhere: H
// hidden, V vocabulary, E experts, k choices.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "lib/model/mixer_shape.h"

namespace moe {

struct LayerConfig;
struct ModelConfig;

struct MatrixShape {
  Count rows = 0, cols = 0;
};

struct FeedShape {
  Count experts = 0, k = 0;  // 0 experts: dense. k of a router that mixes tokens into slots: E
  Count width = 0;           // of each expert, the widest where `widths` says more
  int matrices = 3;          // 3 gated, 2 not
  bool bias = false;         // of all bodies
  Count shared_width = 0;    // all shared experts together
  bool shared_gate = false;
  Count latent = 0;  // experts read and write rows so wide, through two products; 0 = of H
  // (E) where experts differ; 0 = one without a body
  std::vector<Count> widths;
  Count constants = 0;  // experts a1 x + a2 v, (a1,a2) = softmax(Wc x): v (H), Wc (2,H)
  // products of the router; unset: one of (E,H)
  std::optional<std::vector<MatrixShape>> router;
  Count router_vector = 0;  // numbers of its biases and scales
  bool correction_bias = false;
  bool output_bias = false;  // of the sum of the experts
  // queries and outputs of attention, `width` of a choice's heads; keys and values are of the mixer
  // beside it in the layer's list (MixerShape::in_experts)
  bool attends = false;
  Count table = 0;  // ids of experts that a router looks up by token
  // rows and columns of the product that adds logits of the MoE layer before; 0 = none
  Count gate_residual = 0;

  bool is_moe() const {
    return experts > 0;
  }
};

enum class Stack { decoder, encoder };  // an encoder keeps no keys and values while generating

struct LayerShape {
  // one, none, or two where the second stands in a feed's place or holds keys of its experts
  std::vector<MixerShape> mixers;
  std::optional<FeedShape> feed;
  std::optional<FeedShape> beside;  // dense, beside the experts of `feed`
  int norms = 2;
  Count scalars = 0;  // numbers that nothing trains
  Stack stack = Stack::decoder;

  int branches() const {  // what is added to the residual stream, each behind a norm
    return int(mixers.size()) + int(feed && !feed->attends);
  }
};

struct Extra {  // parameters that no rule above makes
  std::string name;
  Count parameters = 0;
  MovedBy moved = MovedBy::gradient;
};

struct Architecture {
  std::string name, family;                       // for people
  Count hidden = 0, vocabulary = 0, context = 0;  // context 0 = not known
  // head: there is an output matrix, if only the embedding once more
  bool tied = false, head = true;
  bool norm_bias = false;
  std::vector<MatrixShape> projectors;  // of rows of signals, which are added to the embedding
  Count projector_biases = 0;           // numbers in all of them
  Count streams = 0;                    // that every branch mixes, see streams.h; 0 = one
  int final_norms = 1;
  std::vector<LayerShape> layers;
  std::vector<Extra> extra;
  // layers that predict further tokens (DeepSeek-V3): in the file, no part of the model
  Count further_layers = 0;

  // the first MoE feed-forward, of experts of attention only where there is no other; null = dense
  const FeedShape* moe() const;
  Count moe_layers() const;
  bool encoder_decoder() const;
};

// Throws Error(usage) where the router's spec is refused.
FeedShape feed_of(const LayerConfig&);
Architecture architecture_of(const ModelConfig&);

}  // namespace moe
