// Causal attention of a decoder layer: heads made from the input - grouped queries, or latent ones
// - then scores, sinks, a gate and the output matrix, and the state for decoding. Forward and
// backward stand side by side.
#pragma once
#include "lib/model/config.h"
#include "lib/model/linear.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/fourier.h"
#include "lib/model/mixers/selected_attention.h"

namespace moe {

// Keys and values of the sequences decoded so far, sequences end to end.
template <class S>
struct KeyValues final : MixerState {
  Array<S> k, v;   // (rows or more, kv_heads*head_dim), (.., kv_heads*value_dim)
  Array<S> index;  // (.., index_dim), of an indexer
};

// Puts the rows of `fresh` behind those of each sequence in `kept`. One sequence has room for twice
// its rows where it must move, so that decoding copies each row a constant number of times; several
// move each time. Adding to zeros copies on every backend.
template <class S>
void append_rows(Backend<S>&, Array<S>& kept, std::span<const Index> start, const Batch&,
                 View<const S> fresh);

// What forward leaves for backward. Which arrays are there depends on the switches.
template <class S>
struct AttentionTape final : MixerTape {
  Array<S> q, k, v;                       // as attention sees them
  Array<S> q_raw, k_raw, q_rstd, k_rstd;  // before the norm of queries and keys
  Array<S> q_clamped, k_clamped;          // after the clamp, before they are turned
  // of latent attention
  Array<S> latent_q, latent_q_normed, latent_q_rstd, latent, latent_normed, latent_rstd;
  Array<S> v_raw, v_rstd;  // before the norm of values
  // stretch: (T,1) factors of queries by their position
  Array<S> out, lse, stretch;
  // with a gate: (T,heads) or as wide as out, and out times its sigmoid
  Array<S> gate, gated;
  std::shared_ptr<const ChosenKeys> chosen;  // of an indexer; null: all keys
  Array<int> position;                       // (1,T) in its sequence
  // (3,T) time, height and width, where heads turn by them and the batch says them; empty = the
  // same as `position` on all three
  Array<int> axes;
  int furthest = 0;  // the largest of those that heads turn by
};

// Queries times the factors of their positions.
template <class S>
void stretch(Backend<S>& b, const AttentionTape<S>& t, View<S> q) {
  const Matrix<int> everyone(q.rows, 1, 0);  // rows as the slots of one expert that takes everyone
  const Array<int> kept(b, everyone.view());
  b.scale_slots(q, b.plan(kept.view(), 1), t.stretch.view());
}

// By what heads are; gate only where it comes from the query matrix.
template <class S>
struct HeadGradients {
  Array<S> q, k, v, gate;
};

// x -> queries, keys and values of all heads, and back.
template <class S>
class Heads {
 public:
  virtual ~Heads() = default;
  // reads the positions, sets q, k, v, and gate where the query matrix holds it
  virtual void forward(View<const S> x, AttentionTape<S>&) = 0;
  virtual void backward(const AttentionTape<S>&, View<const S> x, HeadGradients<S>,
                        View<S> dx /*set*/) = 0;
  virtual void collect(std::vector<Parameter<S>*>& all) = 0;
};
template <class S>
// "q", "k", "v", "q_bias", "q_norm", ...; fourier: null where the rotary embedding is plain
std::unique_ptr<Heads<S>> make_grouped_heads(const ModelConfig&, int layer, Backend<S>&,
                                             std::shared_ptr<const Fourier<S>> fourier);
template <class S>
// "q_a", "q_b" or "q", "kv_a", "kv_b", norms
std::unique_ptr<Heads<S>> make_latent_heads(const ModelConfig&, int layer, Backend<S>&);

template <class S>
class Attention final : public Mixer<S> {
 public:
  // with the fields of its layer, see attention_type.cpp
  Attention(const MixerPlace<S>&, ModelConfig);
  std::unique_ptr<MixerTape> forward(const Batch&, View<const S> x, View<S> y, MixerPast*) override;
  void backward(const Batch&, const MixerTape&, View<const S> x, View<const S> dy,
                View<S> dx) override;
  std::unique_ptr<MixerState> new_state(Index sequences) const override;
  // those of the heads, "gate", "o", "o_bias", "sinks"
  void collect(std::vector<ModelParameter<S>>& all) override;

 private:
  AttentionShape shape(std::span<const Index> queries, std::span<const Index> keys) const;
  // sets out and lse: scores of the batch's queries by these keys, end to end as key_start says
  void attend(const Batch&, AttentionTape<S>&, View<const S> k, View<const S> v,
              std::span<const Index> key_start);
  // by the keys of the past and their own
  void attend_past(const Batch&, View<const S> x, AttentionTape<S>&, MixerPast&);
  void place(const Batch&, const MixerPast*, AttentionTape<S>&) const;
  // chooses keys, or takes those of the layer before
  void choose(const Batch&, View<const S> x, AttentionTape<S>&, View<const S> keys,
              std::span<const Index> key_start);
  void attend_backward(const Batch&, const AttentionTape<S>&, const Array<S>& dout,
                       HeadGradients<S>&);
  // gated = out * sigmoid(gate of x)
  void pass_gate(View<const S> x, AttentionTape<S>&);
  // dout: of what was gated in, of the output itself out; sets dgate
  void gate_backward(const AttentionTape<S>&, Array<S>& dout, Array<S>& dgate);
  // `whole`, (T,n), with as many rows as gates: a row a head, or a row a number
  template <class V>
  View<V> by_gate(View<V> whole) const {
    const Index rows = whole.rows * gates_;
    return {whole.data, rows, whole.size() / std::max<Index>(rows, 1)};
  }

  const ModelConfig config_;  // of this layer
  AttentionShape shape_;
  Backend<S>& backend_;
  std::unique_ptr<Heads<S>> heads_;
  Parameter<S> gate_, wo_, o_bias_, sinks_, none_;
  Index gates_ = 0;  // of a token; 0 = none
  double stretch_floor_ = 0;
  Indexer<S> indexer_;                            // empty: none, or that of a layer before
  std::shared_ptr<SharedChoice<S>> chosen_ = {};  // null: no indexer anywhere
};

}  // namespace moe
