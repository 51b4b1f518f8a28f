// Large host matrices in another scalar type, written by all threads: routing is decided in double,
// backends compute in float.
#pragma once
#include "lib/core/matrix.h"
#include "lib/core/parallel.h"

namespace moe {

template <class To, class From>
void convert(View<const From> m, View<To> out) {
  constexpr Index numbers_at_once = Index(1) << 16;
  parallel_for(m.size(), numbers_at_once, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i)
      out.data[i] = To(m.data[i]);
  });
}

template <class To, class From>
Matrix<To> converted(View<const From> m) {
  Matrix<To> out(m.rows, m.cols);
  convert(m, out.view());
  return out;
}
template <class To, class From>
Matrix<To> converted(const Matrix<From>& m) {
  return converted<To>(m.view());
}

}  // namespace moe
