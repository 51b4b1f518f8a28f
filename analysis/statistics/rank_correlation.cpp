#include "analysis/statistics/rank_correlation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

namespace moe::statistics {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double deviations_of_95 = 1.959963984540054;
constexpr double nearly_one = 0.999999;

// Sums of products around the means.
struct Moments {
  double xx = 0, yy = 0, xy = 0;
  double correlation() const {
    return xx > 0 && yy > 0 ? std::clamp(xy / std::sqrt(xx * yy), -1.0, 1.0) : nan;
  }
};

// Ranks lie around (n - 1) / 2; `scale` times that.
void add(Moments& to, std::span<const double> x, std::span<const double> y, double scale) {
  const double middle = double(x.size() - 1) / 2;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double a = (x[i] - middle) * scale;
    const double b = (y[i] - middle) * scale;
    to.xx += a * a;
    to.yy += b * b;
    to.xy += a * b;
  }
}

double of_ranks(std::span<const double> x, std::span<const double> y) {
  if (x.size() < 2)
    return nan;
  Moments m;
  add(m, x, y, 1);
  return m.correlation();
}

}  // namespace

std::vector<double> ranks_of(std::span<const double> v) {
  std::vector<std::pair<double, std::size_t>> order(v.size());
  for (std::size_t i = 0; i < v.size(); ++i)
    order[i] = {v[i], i};
  std::ranges::sort(order);
  std::vector<double> out(v.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t last = i;
    while (last + 1 < order.size() && order[last + 1].first == order[i].first)
      ++last;
    for (std::size_t j = i; j <= last; ++j)
      out[order[j].second] = double(i + last) / 2;
    i = last + 1;
  }
  return out;
}

double rank_correlation(std::span<const double> a, std::span<const double> b) {
  return of_ranks(ranks_of(a), ranks_of(b));
}

double partial_rank_correlation(std::span<const double> a, std::span<const double> b,
                                std::span<const double> fixed) {
  const std::vector<double> x = ranks_of(a);
  const std::vector<double> y = ranks_of(b);
  const std::vector<double> z = ranks_of(fixed);
  const double together = of_ranks(x, y);
  const double first = of_ranks(x, z);
  const double second = of_ranks(y, z);
  if (std::isnan(first) || std::isnan(second))
    return together;
  const double left = (1 - first * first) * (1 - second * second);
  if (!(left > 1e-12))
    return nan;
  return std::clamp((together - first * second) / std::sqrt(left), -1.0, 1.0);
}

Correlated rank_correlation_within(std::span<const double> a, std::span<const double> b,
                                   std::span<const int> group) {
  std::map<int, std::pair<std::vector<double>, std::vector<double>>> groups;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i]))
      continue;
    auto& [x, y] = groups[group[i]];
    x.push_back(a[i]);
    y.push_back(b[i]);
  }
  Moments all;
  double pairs = 1;
  for (const auto& [name, values] : groups) {
    const auto& [x, y] = values;
    if (x.size() < 2)
      continue;
    add(all, ranks_of(x), ranks_of(y), 1 / double(x.size()));
    pairs += double(x.size()) - 1;
  }
  Correlated out{all.correlation(), nan, nan, pairs};
  if (std::isnan(out.value) || pairs < 4)
    return out;
  const double z = std::atanh(std::clamp(out.value, -nearly_one, nearly_one));
  const double reach = deviations_of_95 * std::sqrt((1 + out.value * out.value / 2) / (pairs - 3));
  out.low = std::tanh(z - reach);
  out.high = std::tanh(z + reach);
  return out;
}

}  // namespace moe::statistics
