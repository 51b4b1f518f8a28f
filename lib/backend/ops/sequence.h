// What runs along sequences laid end to end: rows start[q]..start[q+1] are sequence q.
#pragma once
#include <span>

#include "lib/backend/machine.h"

namespace moe {

template <class S>
class SequenceOps : public virtual Machine<S> {
 public:
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
};

extern template class SequenceOps<float>;
extern template class SequenceOps<double>;

}  // namespace moe
