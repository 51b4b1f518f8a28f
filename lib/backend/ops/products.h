// Dense products and biases, and the same for the rows of each expert. Matrices are row-major;
// weights are [out,in] as published.
#pragma once
#include "lib/backend/machine.h"
#include "lib/backend/plan.h"
#include "lib/backend/weight.h"

namespace moe {

// x (T,I), w (O,I), y (T,O)
template <class S>
class ProductOps : public virtual Machine<S> {
 public:
  // y = x w' + beta y
  virtual void linear(View<const S> x, const Weight& w, View<S> y, S beta);
  // dx = dy w + beta dx
  virtual void linear_dx(View<const S> dy, const Weight& w, View<S> dx, S beta);
  // dw += dy' x
  virtual void linear_dw(View<const S> dy, View<const S> x, View<S> dw);
  // y += b for each row
  virtual void add_bias(View<const S> b /*(1,O)*/, View<S> y);
  // db += column sums
  virtual void bias_grad(View<const S> dy, View<S> db /*(1,O)*/);
};

// Rows offset[e]..offset[e+1] of x use block e of w. x (S,I), w (E*O,I), y (S,O); an expert without
// rows leaves its block of dw and db as it is.
template <class S>
class GroupedOps : public ProductOps<S> {
 public:
  virtual void grouped_linear(View<const S> x, const Weight& w, const Plan&, View<S> y, S beta);
  virtual void grouped_linear_dx(View<const S> dy, const Weight& w, const Plan&, View<S> dx,
                                 S beta);
  virtual void grouped_linear_dw(View<const S> dy, View<const S> x, const Plan&, View<S> dw);
  virtual void grouped_add_bias(View<const S> b /*(E,O)*/, const Plan&, View<S> y);
  virtual void grouped_bias_grad(View<const S> dy, const Plan&, View<S> db /*(E,O)*/);
};

extern template class ProductOps<float>;
extern template class ProductOps<double>;
extern template class GroupedOps<float>;
extern template class GroupedOps<double>;

}  // namespace moe
