// Bodies over single numbers, and sums over columns in two steps of fixed order: parts of the rows
// first, then the parts.
#pragma once
#include "lib/backend/backend.h"

namespace moe::gpu {

struct ToHalf {  // f32 -> bf16, nearest even
  const float* x;
  std::uint16_t* y;
  MOE_HD void operator()(Index i) const {
    y[i] = float_to_bf16(x[i]);
  }
};
struct FromHalf {  // y = x + beta y
  const std::uint16_t* x;
  float* y;
  float beta;
  MOE_HD void operator()(Index i) const {
    y[i] = bf16_to_float(x[i]) + (beta == 0 ? 0 : beta * y[i]);
  }
};
struct Scaled {  // y = beta y; 0 whatever y holds where beta is 0
  float* y;
  float beta;
  MOE_HD void operator()(Index i) const {
    y[i] = beta == 0 ? 0 : beta * y[i];
  }
};
struct Add {
  const float* x;
  float* y;
  float scale;
  MOE_HD void operator()(Index i) const {
    y[i] += scale * x[i];
  }
};

struct Activate {
  Activation a;
  const float *gate, *up;  // gate null where ungated
  float* h;
  MOE_HD void operator()(Index i) const {
    h[i] = body(a, gate ? gate[i] : 0.0f, up[i]).h;
  }
};

struct Adam {
  float *value, *grad, *m, *v;
  AdamW o;
  double c1, c2;  // bias corrections
  MOE_HD void operator()(Index i) const {
    const double g = double(grad[i]) * o.grad_scale;
    const double m1 = o.beta1 * double(m[i]) + (1 - o.beta1) * g;
    const double v1 = o.beta2 * double(v[i]) + (1 - o.beta2) * g * g;
    m[i] = float(m1);
    v[i] = float(v1);
    const double old = double(value[i]);
    value[i] = float(old - o.lr * (m1 / c1 / (sqrt(v1 / c2) + o.eps) + o.decay * old));
  }
};

// ---- sums ------------------------------------------------------------------------------------

struct Value {  // what a column sum adds up: x(r,c), or x(r,c) y(r,c) s(r)
  const float *x, *y = nullptr, *s = nullptr;
  Index cols = 0;
  MOE_HD double operator()(Index r, Index c) const {
    const double v = double(x[r * cols + c]);
    return y ? v * double(y[r * cols + c]) * double(s[r]) : v;
  }
};
// i: column c of part p of expert e; partial (E, parts, cols). Without offsets there is one expert,
// whose rows are all.
struct PartialSums {
  Value value;
  const int* offset;
  Index rows, parts;
  double* partial;
  MOE_HD void operator()(Index i) const {
    const Index c = i % value.cols;
    const Index p = i / value.cols % parts;
    const Index e = i / value.cols / parts;
    const Index start = offset ? offset[e] : 0;
    const Index count = offset ? offset[e + 1] - start : rows;
    double sum = 0;
    for (Index r = start + count * p / parts, last = start + count * (p + 1) / parts; r < last; ++r)
      sum += value(r, c);
    partial[i] = sum;
  }
};
struct AddPartial {  // i: column c of expert e; out += sum of its parts
  const double* partial;
  float* out;
  Index cols, parts;
  MOE_HD void operator()(Index i) const {
    const double* mine = partial + i / cols * parts * cols + i % cols;
    double sum = 0;
    for (Index p = 0; p < parts; ++p)
      sum += mine[p * cols];
    out[i] += float(sum);
  }
};

struct SumSquares {  // i: the sum of x[i]^2, x[i+parts]^2, ...
  const float* x;
  Index size, parts;
  double* partial;
  MOE_HD void operator()(Index i) const {
    double sum = 0;
    for (Index j = i; j < size; j += parts)
      sum += double(x[j]) * double(x[j]);
    partial[i] = sum;
  }
};
struct AddSum {
  const double* x;
  double* sum;
  MOE_HD void operator()(Index) const {
    *sum += *x;
  }
};
struct SumRun {  // r: the sum of `each` numbers from r*each on
  const double* in;
  Index size, each;
  double* out;
  template <class G>
  MOE_HD void operator()(Index r, const G& g) const {
    double sum = 0;
    const Index last = (r + 1) * each < size ? (r + 1) * each : size;
    for (Index i = r * each + g.lane(); i < last; i += G::width)
      sum += in[i];
    sum = g.sum(sum);
    if (g.lane() == 0)
      out[r] = sum;
  }
};

}  // namespace moe::gpu
