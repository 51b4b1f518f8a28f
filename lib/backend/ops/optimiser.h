// The step of the optimiser, and what clipping needs.
#pragma once
#include "lib/backend/machine.h"

namespace moe {

struct AdamW {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0;
  double grad_scale = 1;  // gradients are multiplied by this first (clipping)
  Index step = 1;         // 1-based, for bias correction
};

template <class S>
class OptimiserOps : public virtual Machine<S> {
 public:
  virtual void adamw(View<S> value, View<S> grad, View<S> m, View<S> v, const AdamW&);
  virtual double sum_squares(View<const S> x);  // fixed order; NaN and Inf come through
};

extern template class OptimiserOps<float>;
extern template class OptimiserOps<double>;

}  // namespace moe
