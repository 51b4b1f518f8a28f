// Bodies of what is done to heads around attention: turning, joining and splitting, clamping,
// centring, sinks.
#pragma once
#include "lib/backend/cuda/bodies_rows.h"

namespace moe::gpu {

struct Center {
  float* x;
  Index cols;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    double sum = 0;
    for (Index c = g.lane(); c < cols; c += G::width)
      sum += double(x[r * cols + c]);
    const double mean = g.sum(sum) / double(cols);
    for (Index c = g.lane(); c < cols; c += G::width)
      x[r * cols + c] = float(double(x[r * cols + c]) - mean);
  }
};
struct Clamp {
  float* x;
  float limit;
  MOE_HD void operator()(Index i) const {
    x[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
  }
};
struct ClampBackward {
  const float* y;
  float* dy;
  float limit;
  MOE_HD void operator()(Index i) const {
    if (y[i] >= limit || y[i] <= -limit)
      dy[i] = 0;
  }
};

struct Rope {  // r: a token; its angles serve all heads
  float* x;
  const int* position;
  const double* frequency;
  Index cols, head_dim, first, pairs;
  bool interleaved, transposed;
  double scale;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    const Index step = interleaved ? 2 : 1;
    const Index apart = interleaved ? 1 : pairs;
    for (Index j = g.lane(); j < pairs; j += G::width) {
      const double angle = double(position[r]) * frequency[j] * (transposed ? -1 : 1);
      const double c = scale * cos(angle);
      const double s = scale * sin(angle);
      for (Index h = 0; h < cols / head_dim; ++h) {
        float* a = x + r * cols + h * head_dim + first + j * step;
        const double va = double(a[0]);
        const double vb = double(a[apart]);
        a[0] = float(va * c - vb * s);
        a[apart] = float(vb * c + va * s);
      }
    }
  }
};

// Rows of heads of m + n numbers; `apart` is 0 where one head of b serves all.
struct JoinHeads {
  const float *a, *b;
  float* y;
  Index heads, m, n, apart;
  MOE_HD void operator()(Index i) const {
    const Index wide = m + n;
    const Index t = i / (heads * wide);
    const Index h = i / wide % heads;
    const Index c = i % wide;
    y[i] = c < m ? a[(t * heads + h) * m + c] : b[t * (apart ? heads * n : n) + h * apart + c - m];
  }
};
struct SplitFirst {  // i: a number of a
  const float* y;
  float* a;
  Index m, n;
  MOE_HD void operator()(Index i) const {
    a[i] = y[i / m * (m + n) + i % m];
  }
};
struct SplitSecond {  // i: a number of b
  const float* y;
  float* b;
  Index heads, m, n, apart;
  MOE_HD void operator()(Index i) const {
    const Index wide = m + n;
    if (apart) {
      b[i] = y[i / n * wide + m + i % n];
      return;
    }
    float sum = 0;
    for (Index h = 0; h < heads; ++h)
      sum += y[(i / n * heads + h) * wide + m + i % n];
    b[i] = sum;
  }
};

MOE_HD inline double with_sink(double lse, double sink) {
  return fmax(lse, sink) + log1p(exp(-fabs(lse - sink)));
}
struct SinkScale {  // i: a number of out
  const float *sink, *lse;
  float* out;
  Index heads, d;
  MOE_HD void operator()(Index i) const {
    const Index r = i / d;
    out[i] = float(double(out[i]) *
                   exp(double(lse[r]) - with_sink(double(lse[r]), double(sink[r % heads]))));
  }
};
struct SinkSum {  // i: a number of lse
  const float* sink;
  float* lse;
  Index heads;
  MOE_HD void operator()(Index i) const {
    lse[i] = float(with_sink(double(lse[i]), double(sink[i % heads])));
  }
};
struct SinkBackward {  // r: a head; lanes share the tokens
  const float *sink, *out, *lse, *dout;
  float* dsink;
  Index tokens, heads, d;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    double sum = 0;
    for (Index t = g.lane(); t < tokens; t += G::width) {
      double dot = 0;
      for (Index i = 0; i < d; ++i)
        dot += double(out[(t * heads + r) * d + i]) * double(dout[(t * heads + r) * d + i]);
      sum -= exp(double(sink[r]) - double(lse[t * heads + r])) * dot;
    }
    sum = g.sum(sum);
    if (g.lane() == 0)
      dsink[r] += float(sum);
  }
};

}  // namespace moe::gpu
