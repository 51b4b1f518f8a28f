// The machine that computes: memory and about forty coarse operations, each with its backward
// beside it. S is the scalar of activations, gradients and master weights: float, or double on
// `reference`, which is the definition of every operation (lib/backend/reference.cpp reads like the
// equations); every other backend is held to it by the cases of lib/check. Matrices are row-major;
// weights are [out,in] as published; letters T tokens, H hidden, I width, E experts, K choices, S
// slots.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/backend/array.h"
#include "lib/backend/kinds.h"
#include "lib/backend/weight.h"
#include "lib/core/registry.h"
#include "lib/core/spec.h"

namespace moe {

// Where each kept choice of each token is computed: rows sorted by expert, inside an expert by
// token, then by rank.
struct Plan {
  Array<int> place;   // (T,K) slot of the choice; -1 = not computed
  Array<int> offset;  // (1,E+1) first slot of each expert; offset[E] = number of slots in use
  Array<int> token;   // (1,S) token of each slot
  Array<int> choice;  // (1,S) t*K + k of each slot
  Index slots = 0;    // rows to allocate: >= offset[E] (equal on host backends)
  // offset again, where a device's library calls need it; else empty
  std::vector<Index> host_offset;
  Index experts() const {
    return offset.cols() - 1;
  }
};

// Attention over several sequences laid end to end. Queries of a sequence are the last ones of its
// keys.
struct AttentionShape {
  int heads = 1, kv_heads = 1, head_dim = 1;
  int window = 0;    // keys a query sees, itself included; 0 = all before it
  double scale = 1;  // of q.k
  std::span<const Index> query_start, key_start;  // (Q+1) each, host memory
  // keys of earlier chunks of so many positions are not seen (Llama 4); 0 = no chunks
  int chunk = 0;
  int value_dim = 0;  // columns of a value head; 0 = head_dim (latent attention has others)

  int value_columns() const {
    return value_dim > 0 ? value_dim : head_dim;
  }
  // First key, from the sequence's own, that the query at `position` sees.
  Index first_key(Index position) const {
    const Index by_window = window > 0 && position >= window ? position - window + 1 : 0;
    const Index by_chunk = chunk > 0 ? position / chunk * chunk : 0;
    return by_window > by_chunk ? by_window : by_chunk;
  }
};

// How heads are turned by their position: pair j of the 2n numbers from `first` on, by position *
// frequency[j], made `scale` as long.
struct Rotation {
  int head_dim = 2, first = 0;  // the other numbers of a head stay as they are
  bool interleaved = false;     // pairs (2j, 2j+1); else (j, j+n)
  double scale = 1;
  std::span<const double> frequency;  // (n) radians a position, host memory
};
std::vector<double> rotary_frequencies(int dims, double theta);  // theta^(-2j/dims), j < dims/2

struct AdamW {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0;
  double grad_scale = 1;  // gradients are multiplied by this first (clipping)
  Index step = 1;         // 1-based, for bias correction
};

// One expert-shaped body for E experts: gate and up (E*I,H), down (E*H,I); biases (E,I), (E,I),
// (E,H), empty where there are none.
template <class S>
struct ExpertWeights {
  Activation activation = Activation::swiglu;
  Weight gate, up, down;  // gate empty for ungated activations
  View<const S> gate_bias, up_bias, down_bias;
};
template <class S>
struct ExpertGrads {  // added to; same shapes; empty = not wanted
  View<S> gate, up, down, gate_bias, up_bias, down_bias;
};
template <class S>
// what forward leaves for backward: pre-activations, (S,I) each; gate empty where ungated
struct ExpertTape {
  Array<S> gate, up;
};

template <class S>
class Backend : public Memory {
 public:
  virtual std::string name() const = 0;
  // relative error of a product's operands, beyond that of S: 2^-9 in bf16
  virtual double rounding() const {
    return 0;
  }
  // weights stored so are multiplied where they lie
  virtual DType operand_type() const {
    return dtype_of<S>;
  }
  // what somebody who asked for this backend should know: that it is not what was asked for
  virtual std::string notice() const {
    return {};
  }

  // ---- dense products: y = x w' + beta y; its two backwards. x (T,I), w (O,I), y (T,O)
  virtual void linear(View<const S> x, const Weight& w, View<S> y, S beta) = 0;
  // dx = dy w + beta dx
  virtual void linear_dx(View<const S> dy, const Weight& w, View<S> dx, S beta) = 0;
  virtual void linear_dw(View<const S> dy, View<const S> x, View<S> dw) = 0;  // dw += dy' x
  // y += b for each row
  virtual void add_bias(View<const S> b /*(1,O)*/, View<S> y) = 0;
  // db += column sums
  virtual void bias_grad(View<const S> dy, View<S> db /*(1,O)*/) = 0;

  // ---- the same per expert: rows offset[e]..offset[e+1] of x use w's block e. x (S,I), w (E*O,I),
  // y (S,O); an expert without rows leaves dw as it is. Rows of y past offset[E] are not touched.
  virtual void grouped_linear(View<const S> x, const Weight& w, const Plan&, View<S> y, S beta) = 0;
  virtual void grouped_linear_dx(View<const S> dy, const Weight& w, const Plan&, View<S> dx,
                                 S beta) = 0;
  virtual void grouped_linear_dw(View<const S> dy, View<const S> x, const Plan&, View<S> dw) = 0;
  virtual void grouped_add_bias(View<const S> b /*(E,O)*/, const Plan&, View<S> y) = 0;
  virtual void grouped_bias_grad(View<const S> dy, const Plan&, View<S> db /*(E,O)*/) = 0;

  // ---- who goes where
  virtual Plan plan(View<const int> kept /*(T,K), this memory; -1 = not computed*/,
                    int experts) = 0;
  // xs[s] = x[token(s)]
  virtual void dispatch(View<const S> x /*(T,H)*/, const Plan&, View<S> xs /*(S,H)*/) = 0;
  // y_t = beta y_t + sum_k w_tk ys[place(t,k)], in order of k; an empty weight counts as 1
  virtual void combine(View<const S> ys, const Plan&, View<const S> weight /*(T,K)*/, View<S> y,
                       S beta) = 0;
  // dys[s] = w dy[token(s)]; dweight_tk = dy_t . ys[place(t,k)] (0 where not computed); an empty
  // dweight is left out
  virtual void combine_backward(View<const S> dy, View<const S> ys, const Plan&,
                                View<const S> weight, View<S> dys, View<S> dweight) = 0;
  // xs[s] *= w of its choice
  virtual void scale_slots(View<S> xs, const Plan&, View<const S> weight /*(T,K)*/) = 0;

  // ---- row by row. gate is empty for ungated activations; equations.md section 4
  virtual void activate(Activation, View<const S> gate, View<const S> up, View<S> h) = 0;
  // Backwards for rows by slot whose outputs the plan's weights multiply: dh comes in as the
  // gradient by h before the weight and leaves as w h, which is what the next product's gradient
  // reads. dgate and dup are weighted; dweight_tk = dh[s] . h[s] + share[s] (0 where not computed).
  // An empty weight counts as 1; an empty dweight is left out; an empty share is 0.
  virtual void activate_backward(Activation, View<const S> gate, View<const S> up, const Plan&,
                                 View<const S> weight /*(T,K)*/, View<const S> share /*(S,1)*/,
                                 View<S> dh, View<S> dgate, View<S> dup,
                                 View<S> dweight /*(T,K)*/) = 0;
  // RMSNorm over groups of w.cols columns (whole rows, or heads): y = x / sqrt(mean(x^2) + eps) *
  // w. rstd (T, cols/w.cols)
  virtual void norm(View<const S> x, View<const S> w /*(1,n)*/, double eps, View<S> y,
                    View<S> rstd) = 0;
  // dx = .. + beta dx
  virtual void norm_backward(View<const S> dy, View<const S> x, View<const S> w, View<const S> rstd,
                             View<S> dx, View<S> dw, S beta) = 0;
  // every row less its mean, in place; its own backward. norm() of it is LayerNorm
  virtual void center(View<S> x) = 0;
  // to +-limit, in place
  virtual void clamp(View<S> x, double limit) = 0;
  // dy = 0 where y, clamped, stands at the limit
  virtual void clamp_backward(View<const S> y, double limit, View<S> dy) = 0;
  // in place
  virtual void rope(View<S> x /*(T,heads*d)*/, const Rotation&, View<const int> position /*(1,T)*/,
                    bool transposed) = 0;
  // Head h of y is [head h of a | head h of b]; a b of one head goes to all. split sets a and b
  // from y: its transpose.
  virtual void join_heads(View<const S> a /*(T,heads*m)*/, View<const S> b /*(T,n) or (T,heads*n)*/,
                          int heads, View<S> y /*(T,heads*(m+n))*/) = 0;
  virtual void split_heads(View<const S> y, int heads, View<S> a, View<S> b) = 0;
  // y += scale x
  virtual void add(View<const S> x, View<S> y, S scale) = 0;
  // y += sigmoid(gate) x
  virtual void sigmoid_gate(View<const S> gate /*(T,1)*/, View<const S> x, View<S> y) = 0;
  // sets both
  virtual void sigmoid_gate_backward(View<const S> dy, View<const S> gate, View<const S> x,
                                     View<S> dgate, View<S> dx) = 0;

  // ---- tokens
  virtual void embed(const Weight& table /*(V,H)*/, View<const int> id /*(1,T)*/, View<S> y) = 0;
  // dtable[id] += dy, in order of t
  virtual void embed_backward(View<const S> dy, View<const int> id, View<S> dtable) = 0;
  // loss_t = -log softmax(z_t)[target], 0 where target is -1; z becomes its gradient times `scale`
  // where `backward`
  virtual void cross_entropy(View<S> z /*(T,V)*/, View<const int> target /*(1,T)*/,
                             View<S> loss /*(1,T)*/, S scale, bool backward) = 0;

  // ---- causal attention. q (Tq, heads*d), k (Tk, kv_heads*d), v (Tk, kv_heads*dv), out (Tq,
  // heads*dv), lse (Tq, heads) of the scaled scores
  virtual void attention(View<const S> q, View<const S> k, View<const S> v, const AttentionShape&,
                         View<S> out, View<S> lse) = 0;
  virtual void attention_backward(View<const S> q, View<const S> k, View<const S> v,
                                  View<const S> out, View<const S> lse,
                                  // sets dq, dk, dv
                                  View<const S> dout, const AttentionShape&, View<S> dq, View<S> dk,
                                  View<S> dv) = 0;
  // One more score a head that has no value (gpt-oss): corrects what attention() set.
  // attention_backward() then needs nothing else.
  virtual void attention_sink(View<const S> sink /*(1,heads)*/, View<S> out, View<S> lse) = 0;
  // dsink += ..
  virtual void attention_sink_backward(View<const S> sink, View<const S> out, View<const S> lse,
                                       View<const S> dout, View<S> dsink) = 0;

  // ---- along sequences laid end to end: rows start[q]..start[q+1] are sequence q
  // Depthwise causal convolution: y_t = b + sum_j w_j * x_(t-K+1+j), j < K, by column. Rows before
  // a sequence's first are `before`, the oldest first, or 0 where that is empty.
  virtual void causal_conv(View<const S> x /*(T,H)*/, View<const S> w /*(H,K)*/,
                           View<const S> bias /*(1,H) or empty*/,
                           std::span<const Index> start /*(Q+1), host memory*/,
                           View<const S> before /*(Q*(K-1),H) or empty*/, View<S> y /*(T,H)*/);
  // Of sequences that start from 0. Sets dx, adds to dw and dbias, which are left out where empty.
  virtual void causal_conv_backward(View<const S> dy, View<const S> x, View<const S> w,
                                    std::span<const Index> start, View<S> dx, View<S> dw,
                                    View<S> dbias);

  // ---- optimiser
  virtual void adamw(View<S> value, View<S> grad, View<S> m, View<S> v, const AdamW&) = 0;
  virtual double sum_squares(View<const S>) = 0;  // fixed order; NaN and Inf come through

  // ---- coarse operations with a default made of the finer ones; a fast backend overrides them
  // The bodies of all slots: xs (S,H) -> ys (S,H), rows grouped as the plan says. Fills the tape;
  // hidden units are not kept.
  virtual void experts(const ExpertWeights<S>&, View<const S> xs, const Plan&, ExpertTape<S>&,
                       View<S> ys);
  // Backwards from dys (S,H), the gradient that arrives at the token of every slot: ys were
  // combined by `weight` (T,K), or as they are where it is empty. Hidden units are computed again
  // from the tape, and the weights' gradient from them, so that nobody keeps ys. Sets dxs and
  // dweight.
  virtual void experts_backward(const ExpertWeights<S>&, const ExpertGrads<S>&, View<const S> xs,
                                const Plan&, const ExpertTape<S>&, View<const S> dys,
                                View<const S> weight, View<S> dxs, View<S> dweight);

 protected:
  // What the bias of the down projection brings: its rows by dys, (S,1), and its gradient. Empty,
  // and nothing, where there is none.
  Array<S> bias_share(View<const S> bias /*(E,H)*/, View<const S> dys, const Plan&);
  void weighted_bias_grad(View<const S> dys, const Plan&, View<const S> weight,
                          View<S> db /*(E,H)*/);
};

// Backends are named by specs: "reference", "cpu:threads=2", "check:of={cpu}". They compute in
// float; the definition also in double.
using MakeBackend = std::unique_ptr<Backend<float>>(Spec&);
const Registry<MakeBackend>& backends();
// refuses unknown names and options
std::unique_ptr<Backend<float>> make_backend(const std::string& spec);
template <class S>
std::unique_ptr<Backend<S>> make_reference();
// Runs `of` beside the definition; throws Error(failed) at the first operation whose results
// differ.
std::unique_ptr<Backend<float>> make_check(std::unique_ptr<Backend<float>> of);

extern template class Backend<float>;
extern template class Backend<double>;

}  // namespace moe
