// A product with an optional bias, as mixers and the output matrix use it.
#pragma once
#include "lib/backend/backend.h"
#include "lib/layer/parameter.h"

namespace moe {

// y = x w' + bias
template <class S>
void project(Backend<S>& b, View<const S> x, const Parameter<S>& w, const Parameter<S>& bias,
             View<S> y) {
  b.linear(x, w.weight(), y, 0);
  if (!bias.empty())
    b.add_bias(bias.value(), y);
}

// Adds to the gradients of what is trained; dx = gradient + beta dx.
template <class S>
void project_backward(Backend<S>& b, View<const S> dy, View<const S> x, Parameter<S>& w,
                      Parameter<S>& bias, View<S> dx, S beta) {
  b.linear_dx(dy, w.weight(), dx, beta);
  if (!w.grad().empty())
    b.linear_dw(dy, x, w.grad());
  if (!bias.grad().empty())
    b.bias_grad(dy, bias.grad());
}

}  // namespace moe
