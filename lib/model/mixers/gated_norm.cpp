#include "lib/model/mixers/gated_norm.h"

#include <cmath>

#include "lib/model/mixers/row_math.h"

namespace moe {
namespace {

template <class S>
void gates(bool silu, const S* z, S* value, S* slope, Index n) {
  if (silu)
    row_math::silu(z, value, slope, n);
  else
    row_math::sigmoid(z, value, slope, n);
}

// Of one row of n numbers in groups: dx from dn, the gradient by x r w.
template <class S>
void norm_row_backward(const GatedNorm<S>& g, const S* dn, const S* x, const S* rstd, S* dx, S* dw,
                       Index n) {
  const Index period = g.w.cols;
  for (Index first = 0; first < n; first += g.group) {
    const S r = rstd[first / g.group];
    S along = 0;
    for (Index j = first; j < first + g.group; ++j) {
      const S weighed = dn[j] * g.w.data[j % period];
      dw[j % period] += dn[j] * x[j] * r;
      along += weighed * x[j];
      dx[j] = weighed * r;
    }
    row_math::add(x + first, -along * r * r * r / S(g.group), dx + first, g.group);
  }
}

}  // namespace

template <class S>
void GatedNorm<S>::forward(View<const S> y, Columns<const S> z, View<S> out, View<S> rstd) const {
  const Index n = y.cols;
  const Index period = w.cols;
  parallel_for(y.rows, rows_of_piece, [&](Index from, Index to) {
    std::vector<S> gate(static_cast<std::size_t>(n)), u(static_cast<std::size_t>(n));
    for (Index t = from; t < to; ++t) {
      const S* x = y.row(t).data();
      S* o = out.row(t).data();
      gates<S>(silu, z.row(t), gate.data(), nullptr, n);
      if (gate_first) {
        row_math::product(x, gate.data(), u.data(), n);
        x = u.data();
      }
      for (Index first = 0; first < n; first += group) {
        const S mean = row_math::dot(x + first, x + first, group) / S(group);
        const S r = 1 / std::sqrt(mean + S(eps));
        rstd(t, first / group) = r;
        for (Index j = first; j < first + group; ++j)
          o[j] = x[j] * r * w.data[j % period];
      }
      if (!gate_first)
        row_math::product(o, gate.data(), o, n);
    }
  });
}

template <class S>
void GatedNorm<S>::backward(View<const S> dout, View<const S> y, Columns<const S> z,
                            View<const S> rstd, View<S> dy, Columns<S> dz, View<S> dw) const {
  const Index n = y.cols;
  sum_rows<S>(y.rows, dw, [&](Index t, S* sum) {
    static thread_local std::vector<S> space;
    space.resize(std::size_t(4 * n));
    S* gate = space.data();
    S* slope = gate + n;
    S* u = slope + n;
    S* du = u + n;
    const S* x = y.row(t).data();
    const S* d = dout.row(t).data();
    const S* r = rstd.row(t).data();
    gates<S>(silu, z.row(t), gate, slope, n);
    if (gate_first) {
      row_math::product(x, gate, u, n);
      norm_row_backward(*this, d, u, r, du, sum, n);
      row_math::product(du, gate, dy.row(t).data(), n);
      row_math::product(du, x, u, n);
      row_math::product(u, slope, dz.row(t), n);
      return;
    }
    row_math::product(d, gate, du, n);
    norm_row_backward(*this, du, x, r, dy.row(t).data(), sum, n);
    for (Index j = 0; j < n; ++j)
      dz.row(t)[j] = d[j] * x[j] * r[j / group] * w.data[j % w.cols] * slope[j];
  });
}

template struct GatedNorm<float>;
template struct GatedNorm<double>;

}  // namespace moe
