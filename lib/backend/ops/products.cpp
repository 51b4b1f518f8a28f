#include "lib/backend/ops/products.h"

#include <algorithm>
#include <utility>

#include "lib/backend/delegate.h"
#include "lib/backend/numbers.h"

namespace moe {

namespace {
// x as products of a weight read it that rounds activations to 8 bits.
template <class S>
Matrix<S> rounded(View<const S> x) {
  Matrix<float> near(x.rows, x.cols);
  for (Index i = 0; i < x.size(); ++i)
    near.data()[i] = float(x.data[i]);
  rounded_to_bytes(near.view(), near.view());
  Matrix<S> out(x.rows, x.cols);
  std::ranges::copy(near.flat(), out.data());
  return out;
}
}  // namespace

template <class S>
void ProductOps<S>::linear(View<const S> x, const Weight& weight, View<S> y, S beta) {
  if (this->delegated(Operation::linear, &ProductOps::linear, x, weight, y, beta))
    return;
  Matrix<S> near;
  if (weight.rounds_activations()) {
    near = rounded(x);
    x = std::as_const(near).view();
  }
  const Numbers<S> numbers(weight);
  const View<const S> w = numbers.view();
  for (Index t = 0; t < x.rows; ++t) {
    for (Index o = 0; o < w.rows; ++o) {
      double sum = 0;
      for (Index i = 0; i < w.cols; ++i)
        sum += double(x(t, i)) * double(w(o, i));
      y(t, o) = S(sum) + (beta == 0 ? S(0) : beta * y(t, o));
    }
  }
}
template <class S>
void ProductOps<S>::linear_dx(View<const S> dy, const Weight& weight, View<S> dx, S beta) {
  if (this->delegated(Operation::linear_dx, &ProductOps::linear_dx, dy, weight, dx, beta))
    return;
  const Numbers<S> numbers(weight);
  const View<const S> w = numbers.view();
  for (Index t = 0; t < dy.rows; ++t) {
    for (Index i = 0; i < w.cols; ++i) {
      double sum = 0;
      for (Index o = 0; o < w.rows; ++o)
        sum += double(dy(t, o)) * double(w(o, i));
      dx(t, i) = S(sum) + (beta == 0 ? S(0) : beta * dx(t, i));
    }
  }
}
template <class S>
void ProductOps<S>::linear_dw(View<const S> dy, View<const S> x, View<S> dw) {
  if (this->delegated(Operation::linear_dw, &ProductOps::linear_dw, dy, x, dw))
    return;
  for (Index o = 0; o < dw.rows; ++o) {
    for (Index i = 0; i < dw.cols; ++i) {
      double sum = 0;
      for (Index t = 0; t < x.rows; ++t)
        sum += double(dy(t, o)) * double(x(t, i));
      dw(o, i) += S(sum);
    }
  }
}
template <class S>
void ProductOps<S>::add_bias(View<const S> b, View<S> y) {
  if (this->delegated(Operation::add_bias, &ProductOps::add_bias, b, y))
    return;
  for (Index t = 0; t < y.rows; ++t) {
    for (Index o = 0; o < y.cols; ++o)
      y(t, o) += b(0, o);
  }
}
template <class S>
void ProductOps<S>::bias_grad(View<const S> dy, View<S> db) {
  if (this->delegated(Operation::bias_grad, &ProductOps::bias_grad, dy, db))
    return;
  for (Index o = 0; o < dy.cols; ++o) {
    double sum = 0;
    for (Index t = 0; t < dy.rows; ++t)
      sum += double(dy(t, o));
    db(0, o) += S(sum);
  }
}

// ---- the same for each expert's rows ---------------------------------------------------------

namespace {
// Calls each(e, first, count) for every expert that has rows.
template <class Each>
void for_experts(const Plan& plan, Each each) {
  const View<const int> offset = plan.offset.view();
  for (Index e = 0; e < plan.experts(); ++e) {
    if (const Index first = offset(0, e), count = offset(0, e + 1) - first; count > 0)
      each(e, first, count);
  }
}
template <class S>
Weight block(const Weight& w, Index e, Index experts) {
  if (w.source)
    return w.block_of_source(e, w.rows / experts);
  return Weight(plain<S>(w).block(e, w.rows / experts));
}
}  // namespace

template <class S>
void GroupedOps<S>::grouped_linear(View<const S> x, const Weight& w, const Plan& plan, View<S> y,
                                   S beta) {
  if (this->delegated(Operation::grouped_linear, &GroupedOps::grouped_linear, x, w, plan, y, beta))
    return;
  for_experts(plan, [&](Index e, Index first, Index count) {
    this->linear(x.slice(first, count), block<S>(w, e, plan.experts()), y.slice(first, count),
                 beta);
  });
}
template <class S>
void GroupedOps<S>::grouped_linear_dx(View<const S> dy, const Weight& w, const Plan& plan,
                                      View<S> dx, S beta) {
  if (this->delegated(Operation::grouped_linear_dx, &GroupedOps::grouped_linear_dx, dy, w, plan, dx,
                      beta)) {
    return;
  }
  for_experts(plan, [&](Index e, Index first, Index count) {
    this->linear_dx(dy.slice(first, count), block<S>(w, e, plan.experts()), dx.slice(first, count),
                    beta);
  });
}
template <class S>
void GroupedOps<S>::grouped_linear_dw(View<const S> dy, View<const S> x, const Plan& plan,
                                      View<S> dw) {
  if (this->delegated(Operation::grouped_linear_dw, &GroupedOps::grouped_linear_dw, dy, x, plan,
                      dw)) {
    return;
  }
  for_experts(plan, [&](Index e, Index first, Index count) {
    this->linear_dw(dy.slice(first, count), x.slice(first, count),
                    dw.block(e, dw.rows / plan.experts()));
  });
}
template <class S>
void GroupedOps<S>::grouped_add_bias(View<const S> b, const Plan& plan, View<S> y) {
  if (this->delegated(Operation::grouped_add_bias, &GroupedOps::grouped_add_bias, b, plan, y))
    return;
  for_experts(plan, [&](Index e, Index first, Index count) {
    this->add_bias(b.slice(e, 1), y.slice(first, count));
  });
}
template <class S>
void GroupedOps<S>::grouped_bias_grad(View<const S> dy, const Plan& plan, View<S> db) {
  if (this->delegated(Operation::grouped_bias_grad, &GroupedOps::grouped_bias_grad, dy, plan, db))
    return;
  for_experts(plan, [&](Index e, Index first, Index count) {
    this->bias_grad(dy.slice(first, count), db.slice(e, 1));
  });
}

template class ProductOps<float>;
template class ProductOps<double>;
template class GroupedOps<float>;
template class GroupedOps<double>;

}  // namespace moe
