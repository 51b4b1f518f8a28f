// Causal attention of a decoder layer: heads made from the input - grouped queries, or latent ones
// - then scores, sinks and the output matrix, and the state for decoding. Forward and backward
// stand side by side.
#pragma once
#include <memory>

#include "lib/core/batch.h"
#include "lib/model/config.h"
#include "lib/model/fourier.h"

namespace moe {

// Keys and values of the sequences decoded so far; one a layer. An empty one is filled by the first
// batch; the same sequences follow in every batch after it.
template <class S>
struct KeyValues {
  std::vector<Array<S>> k, v;  // (L) of (rows or more, kv_heads*head_dim), sequences end to end
  std::vector<Index> start;    // (Q+1) rows of each sequence
};

// What forward leaves for backward. Which arrays are there depends on the switches.
template <class S>
struct AttentionTape {
  Array<S> q, k, v;                       // as attention sees them
  Array<S> q_raw, k_raw, q_rstd, k_rstd;  // before the norm of queries and keys
  Array<S> q_clamped, k_clamped;          // after the clamp, before they are turned
  // of latent attention
  Array<S> latent_q, latent_q_normed, latent_q_rstd, latent, latent_normed, latent_rstd;
  // stretch: (T,1) factors of queries without rotary embedding
  Array<S> out, lse, stretch;
  Array<int> position;                  // (1,T) in its sequence
  int furthest = 0;                     // the largest of them
  const Fourier<S>* fourier = nullptr;  // of the model, set before forward where it has one
};

// x -> queries, keys and values of all heads, and back.
template <class S>
class Heads {
 public:
  virtual ~Heads() = default;
  // reads the positions, sets q, k, v
  virtual void forward(View<const S> x, AttentionTape<S>&) = 0;
  virtual void backward(const AttentionTape<S>&, View<const S> x, Array<S> dq, Array<S> dk,
                        Array<S> dv, View<S> dx /*set*/) = 0;
  virtual void collect(std::vector<Parameter<S>*>& all) = 0;
};
template <class S>
// "q", "k", "v", "q_bias", "q_norm", ...
std::unique_ptr<Heads<S>> make_grouped_heads(const ModelConfig&, int layer, Backend<S>&);
template <class S>
// "q_a", "q_b" or "q", "kv_a", "kv_b", norms
std::unique_ptr<Heads<S>> make_latent_heads(const ModelConfig&, Backend<S>&);

template <class S>
class Attention {
 public:
  using Tape = AttentionTape<S>;
  Attention(const ModelConfig&, int layer, Backend<S>&);
  // y = attention(x); with a state the batch's tokens continue its sequences and keys and values of
  // `layer` grow; the caller moves state->start on after the last layer.
  void forward(const Batch&, View<const S> x, View<S> y, Tape&, KeyValues<S>* state, int layer);
  void backward(const Batch&, const Tape&, View<const S> x, View<const S> dy, View<S> dx /*set*/);
  void collect(std::vector<Parameter<S>*>& all);  // those of the heads, "o", "o_bias", "sinks"

 private:
  AttentionShape shape(std::span<const Index> queries, std::span<const Index> keys) const;

  AttentionShape shape_;
  Backend<S>& backend_;
  std::unique_ptr<Heads<S>> heads_;
  Parameter<S> wo_, o_bias_, sinks_;
  double stretch_floor_ = 0, stretch_scale_ = 0;
};

// Rows of each sequence in the state after this batch, (Q+1). Throws Error(bug) where batch and
// state do not fit.
std::vector<Index> grown(const Batch&, std::span<const Index> start);

// y = x w' + bias, and back: adds to the gradients, dx = .. + beta dx.
template <class S>
void project(Backend<S>&, View<const S> x, const Parameter<S>& w, const Parameter<S>& bias,
             View<S> y);
template <class S>
void project_backward(Backend<S>&, View<const S> dy, View<const S> x, Parameter<S>& w,
                      Parameter<S>& bias, View<S> dx, S beta);

}  // namespace moe
