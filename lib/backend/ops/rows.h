// What is done row by row or number by number: activations, norms, clamps, sums, gates.
#pragma once
#include "lib/backend/kinds.h"
#include "lib/backend/machine.h"
#include "lib/backend/plan.h"

namespace moe {

template <class S>
class RowOps : public virtual Machine<S> {
 public:
  // h = body(gate, up) (equations.md section 4); gate is empty for ungated activations
  virtual void activate(Activation, View<const S> gate, View<const S> up, View<S> h);
  // Backward of h(gate, up) inside an expert whose output is multiplied by w, the weight of the
  // slot's choice. On entry dh (S,I) is the gradient by w h, which is dy W_down. Sets, for each
  // slot s:
  //   dweight of its choice = dh . h + share[s], 0 for choices without a slot
  //   dgate and dup = w dh times the derivatives of h by gate and by up
  //   dh = w h, which the gradient of W_down is the product of dy with
  // An empty weight counts as 1, an empty share as 0; an empty dweight is left out.
  virtual void activate_backward(Activation, View<const S> gate, View<const S> up, const Plan&,
                                 View<const S> weight /*(T,K)*/, View<const S> share /*(S,1)*/,
                                 View<S> dh, View<S> dgate, View<S> dup, View<S> dweight /*(T,K)*/);
  // RMSNorm over groups of n = w.cols columns (whole rows, or heads):
  // y = x / sqrt(mean(x^2) + eps) * w; rstd (T, cols/n) is the reciprocal of the root
  virtual void norm(View<const S> x, View<const S> w /*(1,n)*/, double eps, View<S> y,
                    View<S> rstd);
  // dx = gradient + beta dx; dw += gradient, left out where empty
  virtual void norm_backward(View<const S> dy, View<const S> x, View<const S> w, View<const S> rstd,
                             View<S> dx, View<S> dw, S beta);
  // Subtracts from every row its mean, in place. It is its own backward; norm() of it is LayerNorm.
  virtual void center(View<S> x);
  // to [-limit, limit], in place
  virtual void clamp(View<S> x, double limit);
  // dy = 0 where the clamped y is at a limit
  virtual void clamp_backward(View<const S> y, double limit, View<S> dy);
  // cap tanh(x/cap), in place (Gemma's logits)
  virtual void softcap(View<S> x, double cap);
  // dy times the slope 1 - (y/cap)^2 at the capped y
  virtual void softcap_backward(View<const S> y, double cap, View<S> dy);
  // y += scale x
  virtual void add(View<const S> x, View<S> y, S scale);
  // y += sigmoid(gate) x
  virtual void sigmoid_gate(View<const S> gate /*(T,1)*/, View<const S> x, View<S> y);
  // sets dgate and dx
  virtual void sigmoid_gate_backward(View<const S> dy, View<const S> gate, View<const S> x,
                                     View<S> dgate, View<S> dx);
};

extern template class RowOps<float>;
extern template class RowOps<double>;

}  // namespace moe
