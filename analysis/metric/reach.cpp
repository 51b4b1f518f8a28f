#include "analysis/metric/reach.h"

#include <algorithm>
#include <cmath>

namespace moe::chance {
namespace {

constexpr double endless = std::numeric_limits<double>::infinity();
constexpr double most_tokens = 1e15;
constexpr double common = 20;  // dead experts, of which there is a normal number
constexpr double many = 1e6;   // variance from which on the normal limit is as good

double of_one_layer(const Size& s) {  // the share of random traces that a layer may spoil
  return rarely / std::max(1.0, s.layers);
}

bool nothing(const Size& s) {
  return !(s.tokens >= 1) || !(s.k > 0) || !(s.experts >= 1);
}

// Deviations that a normal variable passes with probability p.
double normal_beyond(double p) {
  double low = 0;
  double high = 40;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(middle / std::sqrt(2.0)) / 2 > p ? low : high) = middle;
  }
  return high;
}

// The fewest counts above `mean` that come with probability at most p; more than `most`: most + 1.
double rare_count(double mean, double most, double p, const std::function<double(double)>& tail) {
  double low = std::floor(mean);  // too likely
  double high = most + 1;
  while (high - low > std::max(1.0, 1e-12 * high)) {
    const double middle = std::floor((low + high) / 2);
    (tail(middle) > p ? low : high) = middle;
  }
  return high;
}

double rare_binomial(double n, double p, double at_most) {
  return rare_count(n * p, n, at_most, [&](double c) { return binomial_tail(n, p, c); });
}

double rare_poisson(double mean, double at_most) {
  const double most = mean + 60 * std::sqrt(mean) + 60;
  return rare_count(mean, most, at_most, [&](double c) { return poisson_tail(mean, c); });
}

// Wilson and Hilferty 1931: the cube root of chi-squared over its freedom is nearly normal.
double rare_chi_squared(double freedom, double p) {
  const double v = 2 / (9 * freedom);
  return std::pow(std::max(0.0, 1 - v + normal_beyond(p) * std::sqrt(v)), 3);
}

// Squared CV where tokens hardly meet: two of them share K^2/E experts on average, so that the
// pairs that do are counted as rare events, of the size that gives them their variance.
double rare_squared_cv_of_pairs(const Size& s) {
  const double share = s.k / s.experts;
  const double unit = (1 - share) * (s.experts - s.k) / (s.experts - 1);
  const double pairs = s.tokens * (s.tokens - 1) / 2 * s.k * share;
  const double most = unit * (rare_poisson(pairs / unit, of_one_layer(s)) - 1);
  const double assignments = s.tokens * s.k;
  return (2 * most + assignments) * s.experts / (assignments * assignments) - 1;
}

double two_digits_up(double n) {
  const double unit = std::pow(10, std::max(0.0, std::floor(std::log10(n)) - 1));
  return std::ceil(n / unit) * unit;
}

}  // namespace

double poisson_tail(double mean, double c) {
  if (mean > 600)
    return std::erfc((c - 0.5 - mean) / std::sqrt(2 * mean)) / 2;
  const auto exactly = [mean](double x) {
    return std::exp(x * std::log(mean) - mean - std::lgamma(x + 1));
  };
  double sum = 0;
  if (c > mean) {
    for (double x = c, p = exactly(c); p > sum * 1e-17; p *= mean / ++x)
      sum += p;
    return sum;
  }
  for (double x = c - 1, p = exactly(c - 1); x >= 0 && p > sum * 1e-17; p *= x / mean, --x)
    sum += p;
  return 1 - sum;
}

double binomial_tail(double n, double p, double c) {
  if (c > n || p <= 0)
    return 0;
  if (p >= 1)
    return 1;
  if (const double variance = n * p * (1 - p); variance > many)
    return std::erfc((c - 0.5 - n * p) / std::sqrt(2 * variance)) / 2;
  double term = std::exp(std::lgamma(n + 1) - std::lgamma(c + 1) - std::lgamma(n - c + 1) +
                         c * std::log(p) + (n - c) * std::log1p(-p));
  double sum = 0;
  for (double x = c; x <= n && term > sum * 1e-12; ++x) {
    sum += term;
    term *= (n - x) / (x + 1) * p / (1 - p);
  }
  return sum;
}

double reach_load_cv(const Size& s) {
  if (nothing(s))
    return endless;
  if (s.k >= s.experts)
    return 0;
  const double dense =
      (s.experts / s.k - 1) / s.tokens * rare_chi_squared(s.experts - 1, of_one_layer(s));
  return std::sqrt(std::max(dense, rare_squared_cv_of_pairs(s)));
}

double reach_maxvio(const Size& s) {
  if (nothing(s))
    return endless;
  if (s.k >= s.experts)
    return 0;
  const double share = s.k / s.experts;
  const double n = std::round(s.tokens);
  const double rare = rare_binomial(n, share, of_one_layer(s) / s.experts);
  return (rare - 1) / (n * share) - 1;
}

double reach_dead_fraction(const Size& s) {
  if (nothing(s))
    return endless;
  const double k = std::min(s.k, s.experts);
  const double dead = s.experts * load_dead(s.experts, k, s.tokens);
  if (dead <= 0)
    return 0;
  if (dead < common)
    return (rare_poisson(dead, of_one_layer(s)) - 1) / s.experts;
  // Few tokens over many experts: the rest are dead for sure, and those that a later token spared
  // by choosing what another had are rare events.
  const double unchosen = s.experts - s.tokens * k;
  const double repeats = std::max(0.0, dead - unchosen);
  if (unchosen > 0 && repeats < common)
    return (unchosen + rare_poisson(repeats, of_one_layer(s)) - 1) / s.experts;
  // of two experts, that a token chose neither
  const double neither = (s.experts - k) * (s.experts - k - 1) / (s.experts * (s.experts - 1));
  const double variance =
      dead + s.experts * (s.experts - 1) * std::pow(neither, s.tokens) - dead * dead;
  const double most = dead + normal_beyond(of_one_layer(s)) * std::sqrt(std::max(0.0, variance));
  return most / s.experts;
}

// Distinct experts of a token spread over ranks at least as evenly as draws with replacement.
double reach_balancedness(const Size& s, int ranks) {
  if (nothing(s))
    return 0;
  const double n = std::round(s.tokens * s.k);
  const double experts_of_fullest = std::ceil(s.experts / ranks);
  const double share = std::min(1.0, experts_of_fullest / s.experts);
  if (share >= 1)
    return 1.0 / ranks;
  const double rare = rare_binomial(n, share, of_one_layer(s) / ranks);
  return n / ranks / std::max(1.0, rare - 1);
}

double rare_deviations(double figures) {
  constexpr double euler = 0.57721566490153286;
  const double p = rarely / std::max(1.0, figures);
  return (-std::log(-std::log1p(-p)) - euler) * 0.77969680123368117;  // sqrt(6)/pi
}

double tokens_needed(Size s, const Reach& reach, double threshold, bool low_is_bad) {
  const auto enough = [&](double tokens) {
    s.tokens = tokens;
    const double worst = reach(s);
    return low_is_bad ? worst > threshold : worst < threshold;
  };
  double high = 1;
  while (!enough(high)) {
    high *= 2;
    if (high > most_tokens)
      return endless;
  }
  double low = high / 2;
  while (high - low > std::max(1.0, 0.005 * high)) {
    const double middle = std::round((low + high) / 2);
    (enough(middle) ? high : low) = middle;
  }
  return two_digits_up(high);
}

}  // namespace moe::chance
