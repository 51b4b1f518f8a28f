// A causal convolution of a recurrent mixer (SequenceOps::causal_conv) with what it keeps between
// calls: the last K-1 rows before it, the oldest first. On host memory.
#pragma once
#include <vector>

#include "lib/core/batch.h"
#include "lib/model/mixers/host_side.h"
#include "lib/model/recurrent.h"

namespace moe {

template <class S>
struct ConvPart {
  const HostSide<S>& side;
  std::vector<Parameter<S>*> w;  // (C,1,K), or those of several blocks of channels
  Parameter<S>* bias = nullptr;  // (C); null or empty: none

  Index history() const {
    return w[0]->dims().back() - 1;
  }
  Index channels() const {
    Index n = 0;
    for (const Parameter<S>* p : w)
      n += p->value().rows;
    return n;
  }

  // y = conv(x). With a state, brings it up to date and returns what it was before.
  Array<S> forward(const Batch&, View<const S> x, View<S> y, StatePart<S>* state) const;
  // Adds to the gradients of w and bias, sets dx. `before` is what forward returned; `gradient`
  // holds that by the rows kept after and is set to that by the rows kept before.
  void backward(const Batch&, View<const S> dy, View<const S> x, const Array<S>& before, View<S> dx,
                StatePart<S>* gradient) const;

 private:
  HostNumbers<S> taps() const;
  void backward_from(const Batch&, View<const S> dy, View<const S> x, View<const S> taps,
                     const Array<S>& before, View<S> dx, View<S> dw, View<S> dbias,
                     StatePart<S>& gradient) const;
};

extern template struct ConvPart<float>;
extern template struct ConvPart<double>;

}  // namespace moe
