#include "lib/model/mixers/rwkv_parts.h"

#include <algorithm>
#include <cmath>

#include "lib/model/mixers/row_math.h"

namespace moe {

double share_of(Index i, Index n) {
  return n > 1 ? double(i) / double(n - 1) : 0.0;
}

template <class S>
Array<S> TokenShift<S>::forward(const Batch& batch, View<const S> x, StatePart<S>* state) const {
  Array<S> out = side.zeros(x.rows, x.cols);
  for (Index q = 0; q < batch.sequences(); ++q) {
    const Index first = batch.start[std::size_t(q)];
    const Index end = batch.start[std::size_t(q) + 1];
    if (first == end)
      continue;
    if (state)
      std::ranges::copy(state->numbers.view().row(q), row_of(out, first));
    std::ranges::copy(x.slice(first, end - first - 1).flat(),
                      out.view().slice(first + 1, end - first - 1).data);
    if (state)
      std::ranges::copy(x.row(end - 1), row_of(state->numbers, q));
  }
  return out;
}

template <class S>
void TokenShift<S>::backward(const Batch& batch, const Array<S>& dbefore, View<S> dx,
                             StatePart<S>* gradient) const {
  const Index h = dx.cols;
  for (Index q = 0; q < batch.sequences(); ++q) {
    const Index first = batch.start[std::size_t(q)];
    const Index end = batch.start[std::size_t(q) + 1];
    if (first == end)
      continue;
    for (Index t = first; t + 1 < end; ++t)
      row_math::add(row_of(dbefore, t + 1), S(1), dx.row(t).data(), h);
    if (!gradient)
      continue;
    S* g = row_of(gradient->numbers, q);
    row_math::add(g, S(1), dx.row(end - 1).data(), h);
    std::ranges::copy(dbefore.view().row(first), g);
  }
}

template <class S>
Array<S> TokenMix<S>::forward(View<const S> x, View<const S> before, View<const S> more) const {
  const HostNumbers<S> m = side.read(mu);
  Array<S> y = side.array(x.rows, x.cols);
  for_rows(x.rows, [&](Index r) {
    for (Index i = 0; i < x.cols; ++i) {
      S c = inverse ? 1 - m.view.data[i] : m.view.data[i];
      if (!more.empty())
        c += more(r, i);
      y.view()(r, i) = x(r, i) + (before(r, i) - x(r, i)) * c;
    }
  });
  return y;
}

template <class S>
void TokenMix<S>::backward(View<const S> dy, View<const S> x, View<const S> before,
                           View<const S> more, View<S> dx, View<S> dbefore, View<S> dmore) const {
  const HostNumbers<S> m = side.read(mu);
  Array<S> sum = side.zeros(1, x.cols);
  sum_rows<S>(x.rows, sum.view(), [&](Index r, S* dmu) {
    for (Index i = 0; i < x.cols; ++i) {
      S c = inverse ? 1 - m.view.data[i] : m.view.data[i];
      if (!more.empty())
        c += more(r, i);
      const S g = dy(r, i);
      const S by = g * (before(r, i) - x(r, i));
      dx(r, i) += g * (1 - c);
      dbefore(r, i) += g * c;
      dmu[i] += inverse ? -by : by;
      if (!dmore.empty())
        dmore(r, i) = by;
    }
  });
  side.accumulate(sum.view(), mu);
}

template <class S>
void HeadNorm<S>::forward(View<const S> o, View<S> y, View<S> rstd) const {
  const HostNumbers<S> scale = side.read(w);
  const HostNumbers<S> shift = side.read(b);
  const Index n = o.cols / heads;
  for_rows(o.rows, [&](Index r) {
    for (Index h = 0; h < heads; ++h) {
      const S* x = o.row(r).data() + h * n;
      S* to = y.row(r).data() + h * n;
      double mean = 0;
      for (Index i = 0; i < n; ++i)
        mean += double(x[i]) / double(n);
      double variance = 0;
      for (Index i = 0; i < n; ++i) {
        to[i] = S(double(x[i]) - mean);
        variance += double(to[i]) * double(to[i]) / double(n);
      }
      rstd(r, h) = S(1 / std::sqrt(variance + eps));
      for (Index i = 0; i < n; ++i)
        to[i] = to[i] * rstd(r, h) * scale.view.data[h * n + i] + shift.view.data[h * n + i];
    }
  });
}

namespace {
// One head of n numbers: d from g, the gradient by the normed and weighed x; adds to dw and db.
template <class S>
void head_norm_backward(const S* x, const S* g, const S* w, S rstd, S* d, S* dw, S* db, Index n) {
  double mean = 0;
  for (Index i = 0; i < n; ++i)
    mean += double(x[i]) / double(n);
  double along = 0;
  double total = 0;
  for (Index i = 0; i < n; ++i) {
    const S normed = S(double(x[i]) - mean) * rstd;
    d[i] = g[i] * w[i];
    dw[i] += g[i] * normed;
    db[i] += g[i];
    along += double(d[i]) * double(normed);
    total += double(d[i]);
  }
  for (Index i = 0; i < n; ++i) {
    const double normed = (double(x[i]) - mean) * double(rstd);
    d[i] = S((double(d[i]) - (total + normed * along) / double(n)) * double(rstd));
  }
}
}  // namespace

template <class S>
void HeadNorm<S>::backward(View<const S> dy, View<const S> o, View<const S> rstd,
                           View<S> d_o) const {
  const HostNumbers<S> scale = side.read(w);
  const Index n = o.cols / heads;
  Array<S> sums = side.zeros(2, o.cols);  // by w, by b
  sum_rows<S>(o.rows, sums.view(), [&](Index r, S* sum) {
    for (Index at = 0; at < o.cols; at += n) {
      head_norm_backward(o.row(r).data() + at, dy.row(r).data() + at, scale.view.data + at,
                         rstd(r, at / n), d_o.row(r).data() + at, sum + at, sum + o.cols + at, n);
    }
  });
  side.accumulate(sums.view().slice(0, 1), w);
  side.accumulate(sums.view().slice(1, 1), b);
}

template <class S>
void Bonus<S>::forward(View<const S> r, View<const S> k, View<const S> v, View<S> y) const {
  const HostNumbers<S> weight = side.read(u);
  const Index n = r.cols / heads;
  for_rows(r.rows, [&](Index t) {
    for (Index h = 0; h < heads; ++h) {
      S share = 0;
      for (Index i = h * n; i < (h + 1) * n; ++i)
        share += r(t, i) * k(t, i) * weight.view.data[i];
      row_math::add(v.row(t).data() + h * n, share, y.row(t).data() + h * n, n);
    }
  });
}

template <class S>
void Bonus<S>::backward(View<const S> dy, View<const S> r, View<const S> k, View<const S> v,
                        View<S> dr, View<S> dk, View<S> dv) const {
  const HostNumbers<S> weight = side.read(u);
  const Index n = r.cols / heads;
  Array<S> sum = side.zeros(1, r.cols);
  sum_rows<S>(r.rows, sum.view(), [&](Index t, S* du) {
    for (Index h = 0; h < heads; ++h) {
      const Index at = h * n;
      const S by = row_math::dot(dy.row(t).data() + at, v.row(t).data() + at, n);
      S share = 0;
      for (Index i = at; i < at + n; ++i) {
        const S w = weight.view.data[i];
        share += r(t, i) * k(t, i) * w;
        dr(t, i) += by * k(t, i) * w;
        dk(t, i) += by * r(t, i) * w;
        du[i] += by * r(t, i) * k(t, i);
      }
      row_math::add(dy.row(t).data() + at, share, dv.row(t).data() + at, n);
    }
  });
  side.accumulate(sum.view(), u);
}

template struct TokenShift<float>;
template struct TokenShift<double>;
template struct TokenMix<float>;
template struct TokenMix<double>;
template struct HeadNorm<float>;
template struct HeadNorm<double>;
template struct Bonus<float>;
template struct Bonus<double>;

}  // namespace moe
