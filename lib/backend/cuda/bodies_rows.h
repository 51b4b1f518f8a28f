// Bodies of what goes row by row: biases, norm, gates, tokens, loss. Sums run in double, as in the
// definition (reference.cpp), so the only difference is the order of a sum; each body works on row
// r with the lanes of group g.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "lib/backend/kinds.h"

namespace moe::gpu {

template <class T, class G>
MOE_HD double dot(const G& g, const T* a, const T* b, Index n) {
  double sum = 0;
  for (Index i = g.lane(); i < n; i += G::width)
    sum += double(a[i]) * double(b[i]);
  return g.sum(sum);
}

struct AddBias {  // y += b for each row
  const float* b;
  float* y;
  Index cols;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    for (Index c = g.lane(); c < cols; c += G::width)
      y[r * cols + c] += b[c];
  }
};

struct Norm {  // r: one group of n columns
  const float *x, *w;
  float *y, *rstd;
  Index n;
  double eps;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    const double scale = 1 / sqrt(dot(g, x + r * n, x + r * n, n) / double(n) + eps);
    if (g.lane() == 0)
      rstd[r] = float(scale);
    for (Index i = g.lane(); i < n; i += G::width)
      y[r * n + i] = float(double(x[r * n + i]) * scale) * w[i];
  }
};
struct NormBackward {  // dx = .. + beta dx
  const float *dy, *x, *w, *rstd;
  float* dx;
  Index n;
  float beta;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    const float* gy = dy + r * n;
    const float* gx = x + r * n;
    const double scale = double(rstd[r]);
    double sum = 0;
    for (Index i = g.lane(); i < n; i += G::width)
      sum += double(gy[i]) * double(w[i]) * double(gx[i]);
    sum = g.sum(sum);
    for (Index i = g.lane(); i < n; i += G::width) {
      const double d =
          scale * (double(gy[i]) * double(w[i]) - double(gx[i]) * scale * scale * sum / double(n));
      float& out = dx[r * n + i];
      out = float(d) + (beta == 0 ? 0 : beta * out);
    }
  }
};

struct SigmoidGate {  // y += sigmoid(gate) x
  const float *gate, *x;
  float* y;
  Index cols;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    const float s = 1 + std::exp(-gate[r]);
    for (Index c = g.lane(); c < cols; c += G::width)
      y[r * cols + c] += x[r * cols + c] / s;
  }
};
struct SigmoidGateBackward {
  const float *dy, *gate, *x;
  float *dgate, *dx;
  Index cols;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    const double s = 1 / (1 + exp(-double(gate[r])));
    const double sum = dot(g, dy + r * cols, x + r * cols, cols);
    for (Index c = g.lane(); c < cols; c += G::width)
      dx[r * cols + c] = float(s) * dy[r * cols + c];
    if (g.lane() == 0)
      dgate[r] = float(sum * s * (1 - s));
  }
};

struct Embed {  // y[r] = table[id[r]]
  const float* table;
  const int* id;
  float* y;
  Index cols;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    for (Index c = g.lane(); c < cols; c += G::width)
      y[r * cols + c] = table[id[r] * cols + c];
  }
};
// r: a row of the table; its tokens in order, choice[offset[r]] .. choice[offset[r+1]]
struct EmbedBackward {
  const float* dy;
  const int *offset, *choice;
  float* dtable;
  Index cols;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    const int first = offset[r];
    const int last = offset[r + 1];
    if (first == last)
      return;
    for (Index c = g.lane(); c < cols; c += G::width) {
      float sum = dtable[r * cols + c];
      for (int s = first; s < last; ++s)
        sum += dy[choice[s] * cols + c];
      dtable[r * cols + c] = sum;
    }
  }
};

struct CrossEntropy {
  float* z;
  const int* target;
  float* loss;
  Index cols;
  float scale;
  bool backward;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    float* row = z + r * cols;
    double top = -std::numeric_limits<double>::infinity();
    double sum = 0;
    // a NaN is met in the sum
    for (Index c = g.lane(); c < cols; c += G::width)
      top = fmax(top, double(row[c]));
    top = g.max(top);
    for (Index c = g.lane(); c < cols; c += G::width)
      sum += exp(double(row[c]) - top);
    const double lse = top + log(g.sum(sum));
    const int want = target[r];
    // a lane only reads the columns that it writes, so the loss comes from the lane that has the
    // target
    for (Index c = g.lane(); c < cols; c += G::width) {
      if (c == want)
        loss[r] = float(lse - double(row[c]));
      if (backward)
        row[c] = want < 0 ? 0 : scale * float(exp(double(row[c]) - lse) - (c == want ? 1.0 : 0.0));
    }
    if (want < 0 && g.lane() == 0)
      loss[r] = 0;
  }
};

}  // namespace moe::gpu
