// The logarithm of what a state keeps of itself, as delta rules compute it from a product with the
// token: -exp(A_log) softplus(a + dt_bias), or bounded: bound sigmoid(exp(A_log) (a + dt_bias)).
// A_log is one number a head, dt_bias one a column. On host memory.
#pragma once
#include "lib/model/mixers/host_side.h"

namespace moe {

double softplus(double v);
double logistic(double v);
// The bias before a softplus that gives a step between 0.001 and 0.1, log-uniform by a uniform
// draw.
double step_start(Index, double draw);

template <class S>
struct DecayGate {
  const HostSide<S>& side;
  Parameter<S>& a_log;    // (heads)
  Parameter<S>& dt_bias;  // (heads*width)
  Index width = 1;        // columns of a head
  double bound = 0;       // < 0: the second form

  void forward(View<const S> a, View<S> decay) const;
  // Sets da, adds to the gradients of both parameters.
  void backward(View<const S> a, View<const S> ddecay, View<S> da) const;
};

extern template struct DecayGate<float>;
extern template struct DecayGate<double>;

}  // namespace moe
