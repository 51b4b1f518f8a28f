// The loops of row_math.h: in f32 with a fast exponential, in f64 as defined.
#include "lib/model/mixers/row_math.h"

#include <cmath>

#include "lib/backend/simd.h"

namespace moe::row_math {
namespace {

MOE_INLINE float sigmoid_of(float x) {
  return simd::sigmoid(x);
}
MOE_INLINE double sigmoid_of(double x) {
  return 1 / (1 + std::exp(-x));
}

template <class S>
MOE_INLINE void silu_loop(const S* x, S* __restrict value, S* __restrict slope, Index n) {
  if (value) {
    for (Index i = 0; i < n; ++i)
      value[i] = x[i] * sigmoid_of(x[i]);
  }
  if (slope) {
    for (Index i = 0; i < n; ++i) {
      const S s = sigmoid_of(x[i]);
      slope[i] = s + x[i] * s * (1 - s);
    }
  }
}
template <class S>
MOE_INLINE void sigmoid_loop(const S* x, S* __restrict value, S* __restrict slope, Index n) {
  if (value) {
    for (Index i = 0; i < n; ++i)
      value[i] = sigmoid_of(x[i]);
  }
  if (slope) {
    for (Index i = 0; i < n; ++i) {
      const S s = sigmoid_of(x[i]);
      slope[i] = s * (1 - s);
    }
  }
}
template <class S>
MOE_INLINE S dot_loop(const S* x, const S* y, Index n) {
  S sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index i = 0; i < n; ++i)
    sum += x[i] * y[i];
  return sum;
}

}  // namespace

#define MOE_ROW_MATH(S)                                              \
  MOE_SIMD void silu(const S* x, S* value, S* slope, Index n) {      \
    silu_loop(x, value, slope, n);                                   \
  }                                                                  \
  MOE_SIMD void sigmoid(const S* x, S* value, S* slope, Index n) {   \
    sigmoid_loop(x, value, slope, n);                                \
  }                                                                  \
  MOE_SIMD void scale(const S* x, S a, S* y, Index n) {              \
    for (Index i = 0; i < n; ++i)                                    \
      y[i] = a * x[i];                                               \
  }                                                                  \
  MOE_SIMD void add(const S* x, S a, S* y, Index n) {                \
    for (Index i = 0; i < n; ++i)                                    \
      y[i] += a * x[i];                                              \
  }                                                                  \
  MOE_SIMD void product(const S* x, const S* y, S* z, Index n) {     \
    for (Index i = 0; i < n; ++i)                                    \
      z[i] = x[i] * y[i];                                            \
  }                                                                  \
  MOE_SIMD void add_product(const S* x, const S* y, S* z, Index n) { \
    for (Index i = 0; i < n; ++i)                                    \
      z[i] += x[i] * y[i];                                           \
  }                                                                  \
  MOE_SIMD S dot(const S* x, const S* y, Index n) {                  \
    return dot_loop(x, y, n);                                        \
  }
MOE_ROW_MATH(float)
MOE_ROW_MATH(double)
#undef MOE_ROW_MATH

}  // namespace moe::row_math
