// From tokens to the slots of their experts and back.
#pragma once
#include "lib/backend/machine.h"
#include "lib/backend/plan.h"

namespace moe {

template <class S>
class RoutingOps : public virtual Machine<S> {
 public:
  // Sorts the kept choices by expert.
  virtual Plan plan(View<const int> kept /*(T,K), this memory; -1 = not computed*/, int experts);
  // xs[s] = x[token(s)]
  virtual void dispatch(View<const S> x /*(T,H)*/, const Plan&, View<S> xs /*(S,H)*/);
  // y_t = beta y_t + sum_k w_tk ys[place(t,k)], in order of k; an empty weight counts as 1
  virtual void combine(View<const S> ys /*(S,H)*/, const Plan&, View<const S> weight /*(T,K)*/,
                       View<S> y /*(T,H)*/, S beta);
  // dys[s] = w dy[token(s)]; dweight_tk = dy_t . ys[place(t,k)] (0 where not computed); an empty
  // dweight is left out
  virtual void combine_backward(View<const S> dy, View<const S> ys, const Plan&,
                                View<const S> weight, View<S> dys, View<S> dweight);
  // xs[s] *= w of its choice
  virtual void scale_slots(View<S> xs, const Plan&, View<const S> weight /*(T,K)*/);
};

extern template class RoutingOps<float>;
extern template class RoutingOps<double>;

}  // namespace moe
