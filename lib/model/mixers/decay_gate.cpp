#include "lib/model/mixers/decay_gate.h"

#include <cmath>

namespace moe {

double softplus(double v) {
  return v > 30 ? v : std::log1p(std::exp(v));
}
double logistic(double v) {
  return 1 / (1 + std::exp(-v));
}

double step_start(Index, double draw) {
  const double low = std::log(0.001);
  const double dt = std::max(1e-4, std::exp(low + draw * (std::log(0.1) - low)));
  return dt + std::log(-std::expm1(-dt));
}

template <class S>
void DecayGate<S>::forward(View<const S> a, View<S> decay) const {
  const HostNumbers<S> log = side.read(a_log);
  const HostNumbers<S> bias = side.read(dt_bias);
  for_rows(a.rows, [&](Index r) {
    for (Index i = 0; i < a.cols; ++i) {
      const double rate = std::exp(double(log(0, i / width)));
      const double raw = double(a(r, i)) + double(bias(0, i));
      decay(r, i) = S(bound < 0 ? bound * logistic(rate * raw) : -rate * softplus(raw));
    }
  });
}

template <class S>
void DecayGate<S>::backward(View<const S> a, View<const S> ddecay, View<S> da) const {
  const HostNumbers<S> log = side.read(a_log);
  const HostNumbers<S> bias = side.read(dt_bias);
  const Index heads = a.cols / width;
  Array<S> sums = side.zeros(1, heads + a.cols);
  sum_rows<S>(a.rows, sums.view(), [&](Index r, S* sum) {
    for (Index i = 0; i < a.cols; ++i) {
      const double rate = std::exp(double(log(0, i / width)));
      const double raw = double(a(r, i)) + double(bias(0, i));
      const double g = double(ddecay(r, i));
      double by_raw = 0;
      double by_log = 0;
      if (bound < 0) {
        const double s = logistic(rate * raw);
        by_raw = g * bound * s * (1 - s) * rate;
        by_log = by_raw * raw;
      } else {
        by_raw = -g * rate * logistic(raw);
        by_log = -g * rate * softplus(raw);
      }
      da(r, i) = S(by_raw);
      sum[i / width] += S(by_log);
      sum[heads + i] += S(by_raw);
    }
  });
  const S* sum = sums.view().data;
  side.accumulate({sum, 1, heads}, a_log);
  side.accumulate({sum + heads, 1, a.cols}, dt_bias);
}

template struct DecayGate<float>;
template struct DecayGate<double>;

}  // namespace moe
