// Attention of an encoder, and of a decoder to one: keys behind the query are seen where the rule
// says so, keys that are padding by nobody, and each head may add a number for every distance
// between key and query (T5, 1910.10683, section 2.1).
#pragma once
#include "lib/backend/ops/attention.h"

namespace moe {

// Which keys of its sequence a query sees.
struct KeyRule {
  // those up to its own, the queries being those of the last keys; false: all, of any number
  bool causal = true;
  std::span<const std::uint8_t> valid;  // (Tk) 0 = padding; empty = none is; host memory
  // (Tq) where it is causal: one behind the last key that a query sees, counted in its sequence,
  // at least one behind its own (rows of one picture that see each other, Gemma 3); empty = one
  // behind its own; host memory
  std::span<const Index> last = {};
};

// A range of keys, counted in their sequence.
struct KeyRange {
  Index first, last;
};
// What query i of `queries` may see of `keys`, padding included; `row` is its row among all.
KeyRange keys_of_query(const AttentionShape&, const KeyRule&, Index row, Index i, Index queries,
                       Index keys);

template <class S>
class BiasedAttentionOps : public virtual Machine<S> {
 public:
  // As attention(), with score(i,j) = scale q_i.k_j + bias(head, n-1 + j - i), i and j counted in
  // the sequence. bias (heads, 2n-1) reaches every distance below n; empty = none. A query that
  // sees no key gets 0 and lse = -inf.
  virtual void biased_attention(View<const S> q, View<const S> k, View<const S> v,
                                View<const S> bias, const AttentionShape&, const KeyRule&,
                                View<S> out, View<S> lse);
  // sets dq, dk, dv; dbias += gradient, unless it is empty
  virtual void biased_attention_backward(View<const S> q, View<const S> k, View<const S> v,
                                         View<const S> bias, View<const S> out, View<const S> lse,
                                         View<const S> dout, const AttentionShape&, const KeyRule&,
                                         View<S> dq, View<S> dk, View<S> dv, View<S> dbias);
};

extern template class BiasedAttentionOps<float>;
extern template class BiasedAttentionOps<double>;

}  // namespace moe
