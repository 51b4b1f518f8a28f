// What the RWKV mixers share: the shift by one token, mixes of a row with the one before, the norm
// of each head's output and the bonus of a row for itself. On host memory; H columns.
#pragma once
#include <cmath>

#include "lib/core/batch.h"
#include "lib/model/mixers/host_side.h"
#include "lib/model/recurrent.h"

namespace moe {

template <class S>
struct TokenShift {
  const HostSide<S>& side;

  StatePart<S> new_state(Index sequences, Index hidden) const {
    return {"shift", 1, side.zeros(sequences, hidden)};
  }
  // The row before each row of its sequence: that of the state before the first, or zeros.
  Array<S> forward(const Batch&, View<const S> x, StatePart<S>* state) const;
  // Adds to dx. `gradient` as in ConvPart::backward.
  void backward(const Batch&, const Array<S>& dbefore, View<S> dx, StatePart<S>* gradient) const;
};

// y = x + (before - x) c with c = mu + more, or 1 - mu (`inverse`, RWKV-4)
template <class S>
struct TokenMix {
  const HostSide<S>& side;
  Parameter<S>& mu;  // (H)
  bool inverse = false;

  // `more` (T,H) or empty
  Array<S> forward(View<const S> x, View<const S> before, View<const S> more = {}) const;
  // Adds to dx, dbefore and the gradient of mu; sets dmore unless it is empty.
  void backward(View<const S> dy, View<const S> x, View<const S> before, View<const S> more,
                View<S> dx, View<S> dbefore, View<S> dmore = {}) const;
};

// y = (o - mean) / sqrt(variance + eps) w + b, by head.
template <class S>
struct HeadNorm {
  const HostSide<S>& side;
  Parameter<S>& w;
  Parameter<S>& b;
  Index heads = 1;
  double eps = 1e-5;

  void forward(View<const S> o, View<S> y, View<S> rstd /*(T,heads)*/) const;
  void backward(View<const S> dy, View<const S> o, View<const S> rstd, View<S> d_o) const;
};

// y += (sum over a head's columns of r k u) v
template <class S>
struct Bonus {
  const HostSide<S>& side;
  Parameter<S>& u;
  Index heads = 1;

  void forward(View<const S> r, View<const S> k, View<const S> v, View<S> y) const;
  // Adds to all of them.
  void backward(View<const S> dy, View<const S> r, View<const S> k, View<const S> v, View<S> dr,
                View<S> dk, View<S> dv) const;
};

// v = tanh(v), and d from the gradient by the value to that by the argument.
template <class S>
void to_tanh(Array<S>& v) {
  for (S& x : v.view().flat())
    x = std::tanh(x);
}
template <class S>
void tanh_backward(const Array<S>& value, Array<S>& d) {
  for (Index i = 0; i < d.view().size(); ++i)
    d.view().data[i] *= 1 - value.view().data[i] * value.view().data[i];
}

// Numbers that RWKV's authors start from: (i/(n-1)) and l/(L-1), 0 where there is only one.
double share_of(Index i, Index n);

extern template struct TokenShift<float>;
extern template struct TokenShift<double>;
extern template struct TokenMix<float>;
extern template struct TokenMix<double>;
extern template struct HeadNorm<float>;
extern template struct HeadNorm<double>;
extern template struct Bonus<float>;
extern template struct Bonus<double>;

}  // namespace moe
