// The definitions of Mamba's selective scan and of RWKV-4's weighted mean: a channel at a time, in
// double. Going backwards the states of all rows of a channel are kept for as long as it takes.
#include <cmath>
#include <vector>

#include "lib/backend/scans.h"

namespace moe {
namespace {

constexpr double least = -1e38;  // the exponent of nothing

// (rows+1, n) states of channel i of a sequence, the initial ones first.
template <class S>
std::vector<double> states_of(const SelectiveInputs<S>& in, Index sequence, Index i) {
  const Index n = in.rate.cols;
  const Index first = in.start[sequence];
  const Index rows = in.start[std::size_t(sequence) + 1] - first;
  std::vector<double> h(std::size_t((rows + 1) * n), 0.0);
  for (Index j = 0; j < n && !in.initial.empty(); ++j)
    h[j] = double(in.initial(sequence * in.x.cols + i, j));
  for (Index r = 0; r < rows; ++r) {
    const double dt = double(in.dt(first + r, i));
    const double write = dt * double(in.x(first + r, i));
    for (Index j = 0; j < n; ++j) {
      h[(r + 1) * n + j] =
          std::exp(dt * double(in.rate(i, j))) * h[r * n + j] + write * double(in.b(first + r, j));
    }
  }
  return h;
}

// One channel of a sequence going backwards; `by` is the gradient by the state after row t.
template <class S>
struct ChannelBackward {
  const SelectiveInputs<S>& in;
  const SelectiveGradients<S>& to;
  Index i;
  std::vector<double> by, drate;

  void step(Index t, double g, const double* before, const double* after) {
    const double dt = double(in.dt(t, i));
    const double x = double(in.x(t, i));
    double dwrite = 0;
    double ddt = 0;
    for (Index j = 0; j < in.rate.cols; ++j) {
      double& d = by[j];
      const double rate = double(in.rate(i, j));
      to.c(t, j) += S(g * after[j]);
      d += g * double(in.c(t, j));
      dwrite += d * double(in.b(t, j));
      to.b(t, j) += S(d * dt * x);
      d *= std::exp(dt * rate);
      ddt += d * before[j] * rate;
      drate[j] += d * before[j] * dt;
    }
    to.x(t, i) = S(dwrite * dt);
    to.dt(t, i) = S(ddt + dwrite * x);
  }
};

template <class S>
void selective_channel_backward(const SelectiveInputs<S>& in, Index sequence, Index i,
                                View<const S> dout, View<const S> dlast,
                                const SelectiveGradients<S>& to) {
  const Index n = in.rate.cols;
  const Index first = in.start[sequence];
  const Index rows = in.start[std::size_t(sequence) + 1] - first;
  const Index row = sequence * in.x.cols + i;
  const std::vector<double> h = states_of(in, sequence, i);
  ChannelBackward<S> back{in, to, i, std::vector<double>(std::size_t(n)),
                          std::vector<double>(std::size_t(n))};
  for (Index j = 0; j < n && !dlast.empty(); ++j)
    back.by[j] = double(dlast(row, j));
  for (Index r = rows; r-- > 0;)
    back.step(first + r, double(dout(first + r, i)), h.data() + r * n, h.data() + (r + 1) * n);
  for (Index j = 0; j < n; ++j) {
    to.rate(i, j) += S(back.drate[j]);
    if (!to.initial.empty())
      to.initial(row, j) = S(back.by[j]);
  }
}

struct Mean {  // num e^max / den e^max
  double num = 0, den = 0, max = least;
};

template <class S>
Mean initial_mean(const WeightedMeanInputs<S>& in, Index sequence, Index i) {
  if (in.initial.empty())
    return {};
  return {double(in.initial(3 * sequence, i)), double(in.initial(3 * sequence + 1, i)),
          double(in.initial(3 * sequence + 2, i))};
}
template <class S>
Mean next_mean(const WeightedMeanInputs<S>& in, Index t, Index i, const Mean& m) {
  const double past = m.max - double(in.decay(0, i));
  const double k = double(in.k(t, i));
  const double top = std::max(past, k);
  const double e1 = std::exp(past - top);
  const double e2 = std::exp(k - top);
  return {e1 * m.num + e2 * double(in.v(t, i)), e1 * m.den + e2, top};
}

// One channel of a sequence going backwards; `by` is the gradient by the state after row t.
template <class S>
struct MeanBackward {
  const WeightedMeanInputs<S>& in;
  const WeightedMeanGradients<S>& to;
  Index i;
  Mean by{0, 0, 0};
  double ddecay = 0, dfirst = 0;

  void write(Index t, const Mean& m, double& dk, double& dv) {
    const double past = m.max - double(in.decay(0, i));
    const double k = double(in.k(t, i));
    const double v = double(in.v(t, i));
    const double top = std::max(past, k);
    const double e1 = std::exp(past - top);
    const double e2 = std::exp(k - top);
    const double dpast = e1 * (by.num * m.num + by.den * m.den);
    const double dnew = e2 * (by.num * v + by.den);
    const double dtop = by.max - dpast - dnew;
    dv += by.num * e2;
    dk += dnew + (past > k ? 0 : dtop);
    const double dmax = dpast + (past > k ? dtop : 0);
    ddecay -= dmax;
    by = {by.num * e1, by.den * e1, dmax};
  }
  void read(Index t, const Mean& m, double g, double& dk, double& dv) {
    const double v = double(in.v(t, i));
    const double now = double(in.first(0, i)) + double(in.k(t, i));
    const double top = std::max(m.max, now);
    const double e1 = std::exp(m.max - top);
    const double e2 = std::exp(now - top);
    const double below = e1 * m.den + e2;
    const double o = (e1 * m.num + e2 * v) / below;
    const double scaled = g / below;
    dv += scaled * e2;
    const double dnow = scaled * e2 * (v - o);
    dk += dnow;
    dfirst += dnow;
    by.num += scaled * e1;
    by.den -= scaled * e1 * o;
    by.max += scaled * e1 * (m.num - o * m.den);
  }
};

template <class S>
void mean_channel_backward(const WeightedMeanInputs<S>& in, Index q, Index i, View<const S> dout,
                           View<const S> dlast, const WeightedMeanGradients<S>& to) {
  const Index first = in.start[q];
  const Index end = in.start[std::size_t(q) + 1];
  std::vector<Mean> before;
  Mean m = initial_mean(in, q, i);
  for (Index t = first; t < end; ++t) {
    before.push_back(m);
    m = next_mean(in, t, i, m);
  }
  MeanBackward<S> back{in, to, i};
  if (!dlast.empty()) {
    back.by = {double(dlast(3 * q, i)), double(dlast(3 * q + 1, i)), double(dlast(3 * q + 2, i))};
  }
  for (Index t = end; t-- > first;) {
    const Mean& now = before[t - first];
    double dk = 0;
    double dv = 0;
    back.write(t, now, dk, dv);
    back.read(t, now, double(dout(t, i)), dk, dv);
    to.k(t, i) = S(dk);
    to.v(t, i) = S(dv);
  }
  to.decay(0, i) += S(back.ddecay);
  to.first(0, i) += S(back.dfirst);
  if (!to.initial.empty()) {
    to.initial(3 * q, i) = S(back.by.num);
    to.initial(3 * q + 1, i) = S(back.by.den);
    to.initial(3 * q + 2, i) = S(back.by.max);
  }
}

}  // namespace

template <class S>
void Scans<S>::selective_scan(const SelectiveInputs<S>& in, View<S> last, View<S> out) {
  const Index n = in.rate.cols;
  for (Index q = 0; q + 1 < Index(in.start.size()); ++q) {
    const Index first = in.start[q];
    const Index rows = in.start[std::size_t(q) + 1] - first;
    for (Index i = 0; i < in.x.cols; ++i) {
      const std::vector<double> h = states_of(in, q, i);
      for (Index r = 0; r < rows; ++r) {
        double sum = 0;
        for (Index j = 0; j < n; ++j)
          sum += h[(r + 1) * n + j] * double(in.c(first + r, j));
        out(first + r, i) = S(sum);
      }
      for (Index j = 0; j < n && !last.empty(); ++j)
        last(q * in.x.cols + i, j) = S(h[rows * n + j]);
    }
  }
}

template <class S>
void Scans<S>::selective_scan_backward(const SelectiveInputs<S>& in, View<const S> dout,
                                       View<const S> dlast, const SelectiveGradients<S>& to) {
  std::ranges::fill(to.b.flat(), S(0));
  std::ranges::fill(to.c.flat(), S(0));
  for (Index q = 0; q + 1 < Index(in.start.size()); ++q) {
    for (Index i = 0; i < in.x.cols; ++i)
      selective_channel_backward(in, q, i, dout, dlast, to);
  }
}

template <class S>
void Scans<S>::weighted_mean(const WeightedMeanInputs<S>& in, View<S> last, View<S> out) {
  for (Index q = 0; q + 1 < Index(in.start.size()); ++q) {
    for (Index i = 0; i < in.k.cols; ++i) {
      Mean m = initial_mean(in, q, i);
      for (Index t = in.start[q]; t < in.start[std::size_t(q) + 1]; ++t) {
        const double now = double(in.first(0, i)) + double(in.k(t, i));
        const double top = std::max(m.max, now);
        const double e1 = std::exp(m.max - top);
        const double e2 = std::exp(now - top);
        out(t, i) = S((e1 * m.num + e2 * double(in.v(t, i))) / (e1 * m.den + e2));
        m = next_mean(in, t, i, m);
      }
      if (last.empty())
        continue;
      last(3 * q, i) = S(m.num);
      last(3 * q + 1, i) = S(m.den);
      last(3 * q + 2, i) = S(m.max);
    }
  }
}

template <class S>
void Scans<S>::weighted_mean_backward(const WeightedMeanInputs<S>& in, View<const S> dout,
                                      View<const S> dlast, const WeightedMeanGradients<S>& to) {
  for (Index q = 0; q + 1 < Index(in.start.size()); ++q) {
    for (Index i = 0; i < in.k.cols; ++i)
      mean_channel_backward(in, q, i, dout, dlast, to);
  }
}

template void Scans<float>::selective_scan(const SelectiveInputs<float>&, View<float>, View<float>);
template void Scans<double>::selective_scan(const SelectiveInputs<double>&, View<double>,
                                            View<double>);
template void Scans<float>::selective_scan_backward(const SelectiveInputs<float>&,
                                                    View<const float>, View<const float>,
                                                    const SelectiveGradients<float>&);
template void Scans<double>::selective_scan_backward(const SelectiveInputs<double>&,
                                                     View<const double>, View<const double>,
                                                     const SelectiveGradients<double>&);
template void Scans<float>::weighted_mean(const WeightedMeanInputs<float>&, View<float>,
                                          View<float>);
template void Scans<double>::weighted_mean(const WeightedMeanInputs<double>&, View<double>,
                                           View<double>);
template void Scans<float>::weighted_mean_backward(const WeightedMeanInputs<float>&,
                                                   View<const float>, View<const float>,
                                                   const WeightedMeanGradients<float>&);
template void Scans<double>::weighted_mean_backward(const WeightedMeanInputs<double>&,
                                                    View<const double>, View<const double>,
                                                    const WeightedMeanGradients<double>&);

}  // namespace moe
