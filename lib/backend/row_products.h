// Rows of plain loops: what definitions are written with.
#pragma once
#include "lib/core/view.h"

namespace moe {

// sum_i a_i b_i of n numbers, added in double and in order.
template <class S>
double row_dot(const S* a, const S* b, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i)
    sum += double(a[i]) * double(b[i]);
  return sum;
}

// y += factor x, each product in double.
template <class S>
void row_add(double factor, const S* x, S* y, Index n) {
  for (Index i = 0; i < n; ++i)
    y[i] += S(factor * double(x[i]));
}

}  // namespace moe
