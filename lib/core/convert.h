// A host matrix in another scalar type: routing is decided in double, backends compute in float.
#pragma once
#include "lib/core/matrix.h"

namespace moe {

template <class To, class From>
Matrix<To> converted(const Matrix<From>& m) {
  Matrix<To> out(m.rows(), m.cols());
  for (Index i = 0; i < m.size(); ++i)
    out.data()[i] = To(m.data()[i]);
  return out;
}

}  // namespace moe
