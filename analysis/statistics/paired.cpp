#include "analysis/statistics/paired.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "lib/core/rng.h"

namespace moe::statistics {
namespace {

constexpr int replicas = 4000;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// cos^2, cos^4 ... with their coefficients: the series of even and odd degrees of freedom.
double cosine_series(double cosine, int first, int last) {
  double term = 1;
  double sum = 1;
  for (int k = first; k <= last; k += 2) {
    term *= cosine * cosine * double(k) / double(k + 1);
    sum += term;
  }
  return sum;
}

// The replica means of the values, sorted. Drawn by a fixed seed: the same values, the same means.
std::vector<double> resampled_means(std::span<const double> over, std::span<const double> under) {
  Rng rng(std::uint64_t(over.size()), 0x73747564);
  std::vector<double> out(replicas);
  for (double& mean : out) {
    double a = 0;
    double b = 0;
    for (std::size_t i = 0; i < over.size(); ++i) {
      const auto j = std::size_t(rng.below(Index(over.size())));
      a += over[j];
      b += under[j];
    }
    mean = b > 0 ? a / b : nan;
  }
  std::ranges::sort(out);
  return out;
}

double percentile(const std::vector<double>& sorted, double share) {
  const double at = share * double(sorted.size() - 1);
  const auto below = std::size_t(std::floor(at));
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - double(below)) * (sorted[above] - sorted[below]);
}

// Widens low and high to the bootstrap's percentiles, expanded for few values.
void widen(Estimate& e, const std::vector<double>& means, double level) {
  const double t = student_quantile(1 - level, e.n - 1);
  const double tail = normal_below(-std::sqrt(double(e.n) / double(e.n - 1)) * t);
  e.low = std::min(e.low, percentile(means, tail));
  e.high = std::max(e.high, percentile(means, 1 - tail));
}

}  // namespace

double normal_below(double z) {
  return 0.5 * std::erfc(-z / std::numbers::sqrt2);
}

double student_tail(double t, int freedom) {
  t = std::abs(t);
  if (std::isinf(t))
    return 0;
  const double angle = std::atan(t / std::sqrt(double(freedom)));
  const double cosine = std::cos(angle);
  const double sine = std::sin(angle);
  double inside = 0;
  if (freedom % 2 == 0) {
    inside = sine * cosine_series(cosine, 1, freedom - 3);
  } else {
    const double series = freedom == 1 ? 0 : sine * cosine * cosine_series(cosine, 2, freedom - 3);
    inside = (angle + series) * 2 / std::numbers::pi;
  }
  return std::clamp(1 - inside, 0.0, 1.0);
}

double student_quantile(double tail, int freedom) {
  double low = 0;
  double high = 1;
  while (student_tail(high, freedom) > tail && high < 1e12)
    high *= 2;
  for (int i = 0; i < 200 && high - low > 1e-12 * high; ++i) {
    const double middle = (low + high) / 2;
    (student_tail(middle, freedom) > tail ? low : high) = middle;
  }
  return (low + high) / 2;
}

Estimate estimate(std::span<const double> values, double against, double level) {
  Estimate e{.value = nan, .low = nan, .high = nan, .deviation = nan, .n = int(values.size())};
  e.p = nan;
  if (values.empty())
    return e;
  e.value = std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
  if (values.size() < 2 || !std::isfinite(e.value))
    return e;
  const auto [least, most] = std::ranges::minmax(values);
  if (least == most) {
    e.value = least;
    e.low = e.high = least;
    e.deviation = 0;
    e.p = least == against ? 1 : 0;
    return e;
  }
  double square = 0;
  for (const double v : values)
    square += (v - e.value) * (v - e.value);
  e.deviation = std::sqrt(square / double(e.n - 1));
  const double error = e.deviation / std::sqrt(double(e.n));
  e.p = student_tail((e.value - against) / error, e.n - 1);
  const double reach = student_quantile(1 - level, e.n - 1) * error;
  e.low = e.value - reach;
  e.high = e.value + reach;
  const std::vector<double> ones(values.size(), 1.0);
  widen(e, resampled_means(values, ones), level);
  return e;
}

Estimate ratio_estimate(std::span<const double> over, std::span<const double> under, double level) {
  Estimate e{.value = nan, .low = nan, .high = nan, .deviation = nan, .n = int(over.size())};
  e.p = nan;
  const double all = std::accumulate(under.begin(), under.end(), 0.0);
  if (over.empty() || !(all > 0))
    return e;
  e.value = std::accumulate(over.begin(), over.end(), 0.0) / all;
  if (e.n < 2)
    return e;
  double square = 0;
  for (std::size_t i = 0; i < over.size(); ++i) {
    const double off = over[i] - e.value * under[i];
    square += off * off;
  }
  const double error = std::sqrt(square * double(e.n) / double(e.n - 1)) / all;
  e.deviation = error * std::sqrt(double(e.n));
  e.low = e.high = e.value;
  if (!(error > 0)) {
    e.p = e.value == 0 ? 1 : 0;
    return e;
  }
  e.p = student_tail(e.value / error, e.n - 1);
  const double reach = student_quantile(1 - level, e.n - 1) * error;
  e.low = e.value - reach;
  e.high = e.value + reach;
  widen(e, resampled_means(over, under), level);
  return e;
}

Estimate unpaired(std::span<const double> a, std::span<const double> b, double level) {
  const Estimate first = estimate(a);
  const Estimate second = estimate(b);
  Estimate e{.value = second.value - first.value,
             .low = nan,
             .high = nan,
             .deviation = nan,
             .n = std::min(first.n, second.n),
             .p = nan};
  if (std::isnan(first.deviation) || std::isnan(second.deviation))
    return e;
  const double u = first.deviation * first.deviation / first.n;
  const double v = second.deviation * second.deviation / second.n;
  const double error = std::sqrt(u + v);
  e.deviation = error * std::sqrt(double(e.n));
  if (!(error > 0)) {
    e.low = e.high = e.value;
    e.p = e.value == 0 ? 1 : 0;
    return e;
  }
  const double freedom = (u + v) * (u + v) / (u * u / (first.n - 1) + v * v / (second.n - 1));
  const int whole = std::max(1, int(std::floor(freedom)));
  e.p = student_tail(e.value / error, whole);
  const double reach = student_quantile(1 - level, whole) * error;
  e.low = e.value - reach;
  e.high = e.value + reach;
  return e;
}

std::pair<double, double> wilson(double part, double whole, double z) {
  const double p = part / whole;
  const double squares = z * z / whole;
  const double centre = (p + squares / 2) / (1 + squares);
  const double half = std::sqrt(p * (1 - p) * squares + squares * squares / 4) / (1 + squares);
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

std::vector<Corrected> holm(std::span<const double> p, double error) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (!std::isnan(p[i]))
      order.push_back(i);
  }
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return p[a] < p[b]; });
  std::vector<Corrected> out(p.size(), {1 - error, nan});
  double adjusted = 0;
  double share = error;
  bool rejects = true;
  for (std::size_t r = 0; r < order.size(); ++r) {
    const double left = double(order.size() - r);
    if (rejects)
      share = error / left;
    rejects = rejects && p[order[r]] <= share;
    adjusted = std::max(adjusted, std::min(1.0, left * p[order[r]]));
    out[order[r]] = {1 - share, adjusted};
  }
  return out;
}

int repetitions_needed(double deviation, double distance, double level, int most) {
  for (int n = 2; n <= most; ++n) {
    if (student_quantile(1 - level, n - 1) * deviation / std::sqrt(double(n)) < distance)
      return n;
  }
  return 0;
}

}  // namespace moe::statistics
