// Large host matrices, of zeros or in another scalar type, written by all threads: routing is
// decided in double, backends compute in float.
#pragma once
#include <algorithm>

#include "lib/core/matrix.h"
#include "lib/core/parallel.h"

namespace moe {

inline constexpr Index numbers_at_once = Index(1) << 16;

template <class To, class From>
void convert(View<const From> m, View<To> out) {
  parallel_for(m.size(), numbers_at_once, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i)
      out.data[i] = To(m.data[i]);
  });
}

template <class T>
Matrix<T> zeros(Index rows, Index cols) {
  Matrix<T> out = Matrix<T>::unset(rows, cols);
  parallel_for(out.size(), numbers_at_once, [&](Index first, Index last) {
    std::fill(out.data() + first, out.data() + last, T(0));
  });
  return out;
}

template <class To, class From>
Matrix<To> converted(View<const From> m) {
  Matrix<To> out = Matrix<To>::unset(m.rows, m.cols);
  convert(m, out.view());
  return out;
}
template <class To, class From>
Matrix<To> converted(const Matrix<From>& m) {
  return converted<To>(m.view());
}

}  // namespace moe
