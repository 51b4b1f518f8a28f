// Causal attention, and what is done to heads on their way there: rotation by position, joining and
// splitting of heads, sinks.
#pragma once
#include <span>
#include <vector>

#include "lib/backend/machine.h"

namespace moe {

// Attention over several sequences laid end to end. The queries of a sequence are those of its last
// keys.
struct AttentionShape {
  int heads = 1, kv_heads = 1, head_dim = 1;
  int window = 0;    // keys a query sees, its own included; 0 = all before it
  double scale = 1;  // of q.k
  std::span<const Index> query_start, key_start;  // (Q+1) each, host memory
  // A query sees only keys of its own chunk of so many positions (Llama 4); 0 = no chunks.
  int chunk = 0;
  int value_dim = 0;  // columns of a value head; 0 = head_dim (latent attention has others)

  int value_columns() const {
    return value_dim > 0 ? value_dim : head_dim;
  }
  // First key, counted in the sequence, that the query at `position` sees.
  Index first_key(Index position) const {
    const Index by_window = window > 0 && position >= window ? position - window + 1 : 0;
    const Index by_chunk = chunk > 0 ? position / chunk * chunk : 0;
    return by_window > by_chunk ? by_window : by_chunk;
  }
};

// Rotary positions: pair j of the 2n numbers of a head from `first` on is rotated by the angle
// position * frequency[j] and multiplied by `scale`.
struct Rotation {
  int head_dim = 2, first = 0;  // the other numbers of a head stay as they are
  bool interleaved = false;     // pairs (2j, 2j+1); else (j, j+n)
  double scale = 1;
  std::span<const double> frequency;  // (n) radians a position, host memory
};
std::vector<double> rotary_frequencies(int dims, double theta);  // theta^(-2j/dims), j < dims/2

template <class S>
class AttentionOps : public virtual Machine<S> {
 public:
  // in place; `transposed` rotates back
  virtual void rope(View<S> x /*(T,heads*d)*/, const Rotation&, View<const int> position /*(1,T)*/,
                    bool transposed);
  // Head h of y is [head h of a | head h of b]; a b of one head goes to all.
  virtual void join_heads(View<const S> a /*(T,heads*m)*/, View<const S> b /*(T,n) or (T,heads*n)*/,
                          int heads, View<S> y /*(T,heads*(m+n))*/);
  // The transpose of join_heads: sets a and b from y; a b of one head is the sum over the heads.
  virtual void split_heads(View<const S> y, int heads, View<S> a, View<S> b);

  // q (Tq, heads*d), k (Tk, kv_heads*d), v (Tk, kv_heads*dv), out (Tq, heads*dv), lse (Tq, heads):
  // log sum exp of the scaled scores
  virtual void attention(View<const S> q, View<const S> k, View<const S> v, const AttentionShape&,
                         View<S> out, View<S> lse);
  // sets dq, dk, dv
  virtual void attention_backward(View<const S> q, View<const S> k, View<const S> v,
                                  View<const S> out, View<const S> lse, View<const S> dout,
                                  const AttentionShape&, View<S> dq, View<S> dk, View<S> dv);
  // One more score a head, without a value (gpt-oss): corrects what attention() set.
  // attention_backward() needs nothing but the corrected out and lse.
  virtual void attention_sink(View<const S> sink /*(1,heads)*/, View<S> out, View<S> lse);
  // dsink += gradient
  virtual void attention_sink_backward(View<const S> sink, View<const S> out, View<const S> lse,
                                       View<const S> dout, View<S> dsink);
};

extern template class AttentionOps<float>;
extern template class AttentionOps<double>;

}  // namespace moe
