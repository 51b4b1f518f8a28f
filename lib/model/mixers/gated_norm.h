// RMSNorm with a gate, as recurrent mixers end: of y times the gate (Mamba-2), or of y with the
// gate after it (delta rules, lightning attention). On host memory.
#pragma once
#include "lib/model/mixers/host_side.h"

namespace moe {

template <class S>
struct GatedNorm {
  Index group = 1;          // columns that are normed together
  bool gate_first = false;  // n(y g(z)) w, or n(y) w g(z)
  bool silu = true;         // g, or sigmoid
  double eps = 1e-5;
  View<const S> w;  // column j has w[j % w.cols]

  void forward(View<const S> y, Columns<const S> z, View<S> out,
               View<S> rstd /*(T, cols/group)*/) const;
  // Sets dy and dz, adds to dw (1, w.cols).
  void backward(View<const S> dout, View<const S> y, Columns<const S> z, View<const S> rstd,
                View<S> dy, Columns<S> dz, View<S> dw) const;
};

extern template struct GatedNorm<float>;
extern template struct GatedNorm<double>;

}  // namespace moe
