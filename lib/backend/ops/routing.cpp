#include "lib/backend/ops/routing.h"

#include "lib/backend/delegate.h"

namespace moe {

template <class S>
Plan RoutingOps<S>::plan(View<const int> kept, int experts) {
  if (auto result = this->delegated(Operation::plan, &RoutingOps::plan, kept, experts))
    return std::move(*result);
  Plan p;
  p.place = Array<int>(*this, kept.rows, kept.cols);
  p.offset = Array<int>::zeros(*this, 1, experts + 1);
  const View<int> place = p.place.view();
  const View<int> offset = p.offset.view();
  for (const int e : kept.flat()) {
    if (e >= 0)
      ++offset(0, e + 1);
  }
  for (int e = 0; e < experts; ++e)
    offset(0, e + 1) += offset(0, e);
  p.slots = offset(0, experts);
  p.token = Array<int>(*this, 1, p.slots);
  p.choice = Array<int>(*this, 1, p.slots);
  std::vector<int> next(offset.data, offset.data + experts);
  for (Index i = 0; i < kept.size(); ++i) {  // token by token, then rank by rank
    const int e = kept.data[i];
    const int slot = e < 0 ? -1 : next[e]++;
    place.data[i] = slot;
    if (slot < 0)
      continue;
    p.token.view()(0, slot) = int(i / kept.cols);
    p.choice.view()(0, slot) = int(i);
  }
  return p;
}
template <class S>
void RoutingOps<S>::dispatch(View<const S> x, const Plan& plan, View<S> xs) {
  if (this->delegated(Operation::dispatch, &RoutingOps::dispatch, x, plan, xs))
    return;
  for (Index s = 0; s < plan.slots; ++s)
    std::ranges::copy(x.row(plan.token.view()(0, s)), xs.row(s).begin());
}
template <class S>
void RoutingOps<S>::combine(View<const S> ys, const Plan& plan, View<const S> weight, View<S> y,
                            S beta) {
  if (this->delegated(Operation::combine, &RoutingOps::combine, ys, plan, weight, y, beta))
    return;
  const View<const int> place = plan.place.view();
  for (Index t = 0; t < y.rows; ++t) {
    for (Index h = 0; h < y.cols; ++h) {
      double sum = beta == 0 ? 0 : double(beta) * double(y(t, h));
      for (Index k = 0; k < place.cols; ++k) {
        if (const int s = place(t, k); s >= 0)
          sum += (weight.empty() ? 1.0 : double(weight(t, k))) * double(ys(s, h));
      }
      y(t, h) = S(sum);
    }
  }
}
template <class S>
void RoutingOps<S>::combine_backward(View<const S> dy, View<const S> ys, const Plan& plan,
                                     View<const S> weight, View<S> dys, View<S> dweight) {
  if (this->delegated(Operation::combine_backward, &RoutingOps::combine_backward, dy, ys, plan,
                      weight, dys, dweight)) {
    return;
  }
  const View<const int> place = plan.place.view();
  for (Index t = 0; t < dy.rows; ++t) {
    for (Index k = 0; k < place.cols; ++k) {
      const int s = place(t, k);
      double dot = 0;
      for (Index h = 0; s >= 0 && h < dy.cols; ++h) {
        dot += double(dy(t, h)) * (dweight.empty() ? 0.0 : double(ys(s, h)));
        dys(s, h) = weight.empty() ? dy(t, h) : weight(t, k) * dy(t, h);
      }
      if (!dweight.empty())
        dweight(t, k) = S(dot);
    }
  }
}
template <class S>
void RoutingOps<S>::scale_slots(View<S> xs, const Plan& plan, View<const S> weight) {
  if (this->delegated(Operation::scale_slots, &RoutingOps::scale_slots, xs, plan, weight))
    return;
  for (Index s = 0; s < plan.slots; ++s) {
    for (S& v : xs.row(s))
      v *= weight.data[plan.choice.view()(0, s)];
  }
}

template class RoutingOps<float>;
template class RoutingOps<double>;

}  // namespace moe
