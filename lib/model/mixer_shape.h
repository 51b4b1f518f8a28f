// What mixes the tokens of a layer, in just the detail that its sizes need, for every kind that
// sizes are known of; those that the decoder computes say theirs in lib/model/mixers. One function
// a question: parameters, FLOPs besides products with weights, what decoding keeps.
#pragma once
#include "lib/model/pieces.h"

namespace moe {

enum class MixerKind {
  attention,
  latent,
  mamba1,
  mamba2,
  lightning,
  short_conv,
  gated_delta,
  kimi_delta,
  rwkv4,
  rwkv6,
  rwkv7,
  channel_mix,
  compressed
};
inline constexpr MixerKind mixer_kinds[] = {
    MixerKind::attention, MixerKind::latent,     MixerKind::mamba1,      MixerKind::mamba2,
    MixerKind::lightning, MixerKind::short_conv, MixerKind::gated_delta, MixerKind::kimi_delta,
    MixerKind::rwkv4,     MixerKind::rwkv6,      MixerKind::rwkv7,       MixerKind::channel_mix,
    MixerKind::compressed};
std::string_view name_of(MixerKind);

struct MixerShape {
  MixerKind kind = MixerKind::attention;
  Count heads = 0, kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, o_bias = false, sinks = false;
  Count qk_norm = 0;  // weights of the norms of queries and keys together
  Count window = 0;   // keys a query sees at most, of a window or a chunk; 0 = all
  // keys and values of the encoder's output
  bool cross = false;
  bool both_sides = false;  // an encoder's, whose queries see keys behind them, can be of this kind
  Count bias_table = 0;     // numbers of a bias by distance that layers share, at the first of them
  bool in_experts = false;  // queries and outputs are experts, counted as those of a feed-forward
  bool keys_are_values = false;  // no matrix of values
  // numbers of a token's gate of the output, 0 = none; from rows of the query matrix or a matrix of
  // its own
  Count gates = 0;
  bool gate_in_query = false;
  // latent attention: ranks (0 = none for q) and sizes a head; value also without it, 0 = head_dim
  Count q_rank = 0, kv_rank = 0, nope = 0, rope = 0, value = 0;
  // keys that a query attends to, 0 = all; the indexer that finds them, heads 0 = another layer's
  Count index_topk = 0, index_heads = 0, index_dim = 0;
  Count rate = 0;  // rows of a compressed key; 0 = there are none
  // Mamba: inner width, N, groups (2), rank of dt (1)
  Count inner = 0, state = 0, groups = 0, rank = 0;
  // short convolution, of `inner` channels: tokens that it sees; whether its products have biases
  Count kernel = 0;
  bool conv_bias = false;
  // numbers of 4 bytes that a token leaves for the backward pass of our decoder; 0 = not computed
  Count tape_numbers = 0;
  // the same of what its backward pass takes on top for a moment; 0 = less than a feed-forward's
  Count backward_numbers = 0;
  // Recurrent mixers that the decoder computes list their parameters themselves, with the numbers
  // of a sequence's state and the FLOPs a token that are no products with weights. Empty: the
  // fields above say them.
  std::vector<WeightPiece> own;
  Count own_state = 0;
  double own_flops = 0;

  bool attends() const {
    return kind == MixerKind::attention || kind == MixerKind::latent;
  }
  Count values() const {  // of a head
    return value > 0 ? value : head_dim;
  }
};

void add_pieces(const MixerShape&, Count hidden, PieceList&);
// Keys that the last query of `context` tokens sees.
Count keys_seen(const MixerShape&, Count context);
// FLOPs of a token that are no products with weights, multiply-add = 2: scores and values of
// attention at `context`, or 6 for each number of a state. A convolution is a product with weights.
double mixing_flops(const MixerShape&, Count context);
// Numbers that decoding keeps of a token: keys and values, or the latent row; 0 for other kinds.
double cached_per_token(const MixerShape&);
// Numbers that a recurrent layer keeps of a sequence: its state, and what its convolution (of 4 in
// Mamba) looks back at.
double state_numbers(const MixerShape&);

}  // namespace moe
