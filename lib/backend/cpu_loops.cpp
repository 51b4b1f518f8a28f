// Inner loops of the cpu backend: runs and rows of numbers. Compiled with optimisation in every
// build type.
#include "lib/backend/cpu_loops.h"

#include <cmath>

#include "lib/backend/simd.h"

namespace moe::loops {

MOE_SIMD void add(const float* x, float* y, float scale, Index n) {
  for (Index i = 0; i < n; ++i)
    y[i] += scale * x[i];
}
MOE_SIMD void scaled(const float* x, float* y, float scale, Index n) {
  for (Index i = 0; i < n; ++i)
    y[i] = scale * x[i];
}
MOE_SIMD void times(const float* x, float* y, Index n) {
  for (Index i = 0; i < n; ++i)
    y[i] *= x[i];
}
MOE_SIMD void add_times(const float* x, const float* y, float* z, Index n) {
  for (Index i = 0; i < n; ++i)
    z[i] += x[i] * y[i];
}
MOE_SIMD void falling(const float* c, float from, float* y, Index n) {
  for (Index i = 0; i < n; ++i) {
    const float x = from - c[i];
    y[i] = x < -60.0f ? 0.0f : simd::exp(x);
  }
}
MOE_SIMD void axpby(const float* x, float a, float* y, float b, Index n) {
  if (b == 0) {
    for (Index i = 0; i < n; ++i)
      y[i] = a * x[i];
  } else {
    for (Index i = 0; i < n; ++i)
      y[i] = a * x[i] + b * y[i];
  }
}
MOE_SIMD void to_half(const float* __restrict x, std::uint16_t* __restrict y, Index n) {
  for (Index i = 0; i < n; ++i) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x[i]);
    const std::uint32_t magnitude = u & 0x7fffffffu;
    // as float_to_bf16(), without a branch
    const std::uint32_t near = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const std::uint32_t nan = (u >> 16) | 0x40u;
    y[i] = std::uint16_t(magnitude > 0x7f800000u ? nan : near);
  }
}
MOE_SIMD void center(float* x, Index n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index i = 0; i < n; ++i)
    sum += x[i];
  const float mean = sum / float(n);
  for (Index i = 0; i < n; ++i)
    x[i] -= mean;
}
MOE_SIMD void clamp(float* x, float limit, Index n) {
  for (Index i = 0; i < n; ++i)
    x[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
}
MOE_SIMD void clamp_backward(const float* y, float limit, float* dy, Index n) {
  for (Index i = 0; i < n; ++i)
    dy[i] = y[i] >= limit || y[i] <= -limit ? 0 : dy[i];
}
MOE_SIMD float dot(const float* x, const float* y, Index n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index i = 0; i < n; ++i)
    sum += x[i] * y[i];
  return sum;
}

namespace {

MOE_INLINE float number(float x) {
  return x;
}
MOE_INLINE float number(std::uint16_t half) {
  return std::bit_cast<float>(std::uint32_t(half) << 16);
}

// Weights are read as they lie, one row behind the other, which is what the memory is fastest at;
// so many partial sums that no addition waits for the one before.
template <class T>
MOE_INLINE float row_dot(const T* __restrict w, const float* __restrict x, Index n) {
  constexpr Index lanes = 64;
  float sum[lanes] = {};
  const Index whole = n / lanes * lanes;
  for (Index i = 0; i < whole; i += lanes) {
#pragma omp simd
    for (Index l = 0; l < lanes; ++l)
      sum[l] += number(w[i + l]) * x[i + l];
  }
  for (Index i = whole; i < n; ++i)
    sum[i - whole] += number(w[i]) * x[i];
  for (Index half = lanes / 2; half > 0; half /= 2) {
#pragma omp simd
    for (Index l = 0; l < half; ++l)
      sum[l] += sum[l + half];
  }
  return sum[0];
}

template <class T>
MOE_INLINE void dots(const T* w, const float* x, float* y, float beta, Index rows, Index n) {
  for (Index r = 0; r < rows; ++r) {
    const float dot = row_dot(w + r * n, x, n);
    y[r] = beta == 0 ? dot : dot + beta * y[r];
  }
}

}  // namespace

MOE_SIMD void row_dots(const float* w, const float* x, float* y, float beta, Index rows, Index n) {
  dots(w, x, y, beta, rows, n);
}
MOE_SIMD void row_dots(const std::uint16_t* w, const float* x, float* y, float beta, Index rows,
                       Index n) {
  dots(w, x, y, beta, rows, n);
}
MOE_SIMD void key_scores(const float* q, const float* k, Index stride, Index keys, Index n,
                         float* scores) {
  for (Index j = 0; j < keys; ++j) {
    const float* const row = k + j * stride;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < n; ++i)
      sum += q[i] * row[i];
    scores[j] = sum;
  }
}
MOE_SIMD void weighted_values(const float* p, const float* v, Index stride, Index keys, Index n,
                              float* __restrict out) {
  std::fill_n(out, n, 0.0f);
  Index j = 0;
  for (; j + 4 <= keys; j += 4) {
    const float* const row = v + j * stride;
#pragma omp simd
    for (Index i = 0; i < n; ++i) {
      out[i] += (p[j] * row[i] + p[j + 1] * row[stride + i]) +
                (p[j + 2] * row[2 * stride + i] + p[j + 3] * row[3 * stride + i]);
    }
  }
  for (; j < keys; ++j) {
    const float* const row = v + j * stride;
#pragma omp simd
    for (Index i = 0; i < n; ++i)
      out[i] += p[j] * row[i];
  }
}
MOE_SIMD void round_half(float* x, Index n) {
  for (Index i = 0; i < n; ++i) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x[i]);
    const std::uint32_t magnitude = u & 0x7fffffffu;
    const std::uint32_t near = (u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u;
    const std::uint32_t nan = (u & 0xffff0000u) | 0x400000u;
    x[i] = std::bit_cast<float>(magnitude > 0x7f800000u ? nan : near);
  }
}
MOE_SIMD double sum_squares(const float* x, Index n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index i = 0; i < n; ++i)
    sum += double(x[i]) * double(x[i]);
  return sum;
}
MOE_SIMD void adamw(float* __restrict value, const float* __restrict grad, float* __restrict m,
                    float* __restrict v, const AdamW& o, Index n) {
  const float b1 = float(o.beta1);
  const float b2 = float(o.beta2);
  const float a1 = float(1 - o.beta1);
  const float a2 = float(1 - o.beta2);
  const float eps = float(o.eps);
  const float scale = float(o.grad_scale);
  const float decay = float(o.lr * o.decay);
  const float rate = float(o.lr / (1 - std::pow(o.beta1, double(o.step))));
  const float c2 = float(1 / (1 - std::pow(o.beta2, double(o.step))));
  for (Index i = 0; i < n; ++i) {
    const float g = grad[i] * scale;
    const float m1 = b1 * m[i] + a1 * g;
    const float v1 = b2 * v[i] + a2 * g * g;
    m[i] = m1;
    v[i] = v1;
    value[i] -= rate * m1 / (std::sqrt(v1 * c2) + eps) + decay * value[i];
  }
}

MOE_SIMD void add_row(const float* b, float* y, Index rows, Index n) {
  for (Index r = 0; r < rows; ++r, y += n) {
    for (Index i = 0; i < n; ++i)
      y[i] += b[i];
  }
}
MOE_SIMD void add_columns(const float* x, float* __restrict sum, Index rows, Index n) {
  for (Index r = 0; r < rows; ++r, x += n) {
    for (Index i = 0; i < n; ++i)
      sum[i] += x[i];
  }
}

MOE_SIMD void norm(const float* x, const float* w, double eps, float* y, float* rstd, Index rows,
                   Index n) {
  for (Index r = 0; r < rows; ++r, x += n, y += n) {
    float square = 0;
#pragma omp simd reduction(+ : square)
    for (Index i = 0; i < n; ++i)
      square += x[i] * x[i];
    const float scale = float(1 / std::sqrt(double(square) / double(n) + eps));
    rstd[r] = scale;
    for (Index i = 0; i < n; ++i)
      y[i] = x[i] * scale * w[i];
  }
}
MOE_SIMD void norm_backward(const float* dy, const float* x, const float* w, const float* rstd,
                            float* dx, float* __restrict dw, float beta, Index rows, Index n) {
  for (Index r = 0; r < rows; ++r, x += n, dy += n, dx += n) {
    const float scale = rstd[r];
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < n; ++i)
      sum += dy[i] * w[i] * x[i];
    if (dw) {
      for (Index i = 0; i < n; ++i)
        dw[i] += dy[i] * x[i] * scale;
    }
    const float pull = scale * scale * scale * sum / float(n);
    if (beta == 0) {
      for (Index i = 0; i < n; ++i)
        dx[i] = scale * dy[i] * w[i] - pull * x[i];
    } else {
      for (Index i = 0; i < n; ++i)
        dx[i] = scale * dy[i] * w[i] - pull * x[i] + beta * dx[i];
    }
  }
}

MOE_SIMD void rope(float* x, const float* cosine, const float* sine, float sign, Index heads,
                   Index head_dim, Index pairs, bool interleaved) {
  for (Index h = 0; h < heads; ++h, x += head_dim) {
    if (interleaved) {
      for (Index i = 0; i < pairs; ++i) {
        const float c = cosine[i];
        const float s = sign * sine[i];
        const float va = x[2 * i];
        const float vb = x[2 * i + 1];
        x[2 * i] = va * c - vb * s;
        x[2 * i + 1] = vb * c + va * s;
      }
      continue;
    }
    float* __restrict a = x;
    float* __restrict b = x + pairs;
    for (Index i = 0; i < pairs; ++i) {
      const float c = cosine[i];
      const float s = sign * sine[i];
      const float va = a[i];
      const float vb = b[i];
      a[i] = va * c - vb * s;
      b[i] = vb * c + va * s;
    }
  }
}

namespace {
// A NaN must come through: it loses no comparison against a number here.
MOE_INLINE float greater(float a, float b) {
  return a > b ? a : b;
}
}  // namespace

MOE_SIMD float cross_entropy(float* z, Index n, Index target, float scale, bool backward) {
  if (target < 0) {
    for (Index i = 0; i < n && backward; ++i)
      z[i] = 0;
    return 0;
  }
  float top = z[0];
  float sum = 0;
#pragma omp simd reduction(max : top)
  for (Index i = 0; i < n; ++i)
    top = greater(z[i], top);
  const float wanted = z[target];
  if (!backward) {
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < n; ++i)
      sum += simd::exp(z[i] - top);
    return top - wanted + std::log(sum);
  }
#pragma omp simd reduction(+ : sum)
  for (Index i = 0; i < n; ++i)
    sum += z[i] = simd::exp(z[i] - top);
  const float share = scale / sum;
  for (Index i = 0; i < n; ++i)
    z[i] *= share;
  z[target] -= scale;
  return top - wanted + std::log(sum);
}

MOE_SIMD float softmax(float* row, Index first, Index last, Index keys, float scale, float* lse) {
  float top = row[first];
  float sum = 0;
#pragma omp simd reduction(max : top)
  for (Index i = first; i < last; ++i)
    top = greater(row[i], top);
  for (Index i = 0; i < first; ++i)
    row[i] = 0;
#pragma omp simd reduction(+ : sum)
  for (Index i = first; i < last; ++i)
    sum += row[i] = simd::exp(scale * (row[i] - top));
  for (Index i = last; i < keys; ++i)
    row[i] = 0;
  *lse = scale * top + std::log(sum);
  return 1 / sum;
}
MOE_SIMD void softmax_backward(float* __restrict p, float* __restrict ds, Index first, Index last,
                               Index keys, float scale, float lse, float delta) {
  for (Index i = 0; i < first; ++i)
    p[i] = ds[i] = 0;
  for (Index i = first; i < last; ++i) {
    p[i] = simd::exp(scale * p[i] - lse);
    ds[i] = p[i] * (ds[i] - delta) * scale;
  }
  for (Index i = last; i < keys; ++i)
    p[i] = ds[i] = 0;
}

}  // namespace moe::loops
