#include "lib/backend/ops/optimiser.h"

#include <cmath>

#include "lib/backend/delegate.h"

namespace moe {

template <class S>
void OptimiserOps<S>::adamw(View<S> value, View<S> grad, View<S> m, View<S> v, const AdamW& o) {
  if (this->delegated(Operation::adamw, &OptimiserOps::adamw, value, grad, m, v, o))
    return;
  const double c1 = 1 - std::pow(o.beta1, double(o.step));
  const double c2 = 1 - std::pow(o.beta2, double(o.step));
  for (Index i = 0; i < value.size(); ++i) {
    const double g = double(grad.data[i]) * o.grad_scale;
    const double m1 = o.beta1 * double(m.data[i]) + (1 - o.beta1) * g;
    const double v1 = o.beta2 * double(v.data[i]) + (1 - o.beta2) * g * g;
    m.data[i] = S(m1);
    v.data[i] = S(v1);
    const double old = double(value.data[i]);
    value.data[i] = S(old - o.lr * (m1 / c1 / (std::sqrt(v1 / c2) + o.eps) + o.decay * old));
  }
}
template <class S>
double OptimiserOps<S>::sum_squares(View<const S> x) {
  if (const auto result = this->delegated(Operation::sum_squares, &OptimiserOps::sum_squares, x))
    return *result;
  double sum = 0;
  for (const S v : x.flat())
    sum += double(v) * double(v);
  return sum;
}

template class OptimiserOps<float>;
template class OptimiserOps<double>;

}  // namespace moe
