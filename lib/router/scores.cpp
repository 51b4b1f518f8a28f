#include "lib/router/scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "lib/core/clones.h"
#include "lib/core/parallel.h"

namespace moe {
namespace {

constexpr double never = -std::numeric_limits<double>::infinity();
constexpr Index rows_at_once = 256;
constexpr std::size_t keys_at_once = 32;
constexpr std::size_t gradients_at_once = 16;

// The first place from `e` on, in steps of keys_at_once, where a key above `least` may stand.
MOE_SIMD std::size_t next_above(const double* key, std::size_t e, std::size_t n, double least) {
  for (; e + keys_at_once <= n; e += keys_at_once) {
    int above = 0;
#pragma omp simd reduction(| : above)
    for (std::size_t i = 0; i < keys_at_once; ++i)
      above |= key[e + i] > least;
    if (above)
      break;
  }
  return e;
}

// Few of many, or of few: a sorted list of the best so far.
void few_best_of(std::span<const double> key, std::span<int> out) {
  const std::size_t n = out.size();
  std::size_t held = 0;
  std::size_t e = 0;
  while (e < key.size()) {
    if (held == n)
      e = next_above(key.data(), e, key.size(), key[out[n - 1]]);
    const std::size_t last = std::min(key.size(), e + keys_at_once);
    for (; e < last; ++e) {
      if (key[e] == never || (held == n && !(key[e] > key[out[n - 1]])))
        continue;
      std::size_t at = held < n ? held++ : n - 1;
      for (; at > 0 && key[e] > key[out[at - 1]]; --at)
        out[at] = out[at - 1];
      out[at] = int(e);
    }
  }
  std::fill(out.begin() + std::ptrdiff_t(held), out.end(), -1);
}

// NaN is passed over.
MOE_SIMD double largest(const double* z, std::size_t n) {
  double top = never;
#pragma omp simd reduction(max : top)
  for (std::size_t i = 0; i < n; ++i)
    top = z[i] > top ? z[i] : top;
  return top;
}

MOE_SIMD void divide(double* p, std::size_t n, double by) {
  for (std::size_t i = 0; i < n; ++i)
    p[i] /= by;
}

// sum dp p, in order; stretches of zeros, which add nothing, are passed over.
MOE_SIMD double sum_of_products(const double* dp, const double* p, std::size_t n) {
  double sum = 0;
  for (std::size_t first = 0; first < n; first += gradients_at_once) {
    const std::size_t count = std::min(gradients_at_once, n - first);
    int some = 0;
#pragma omp simd reduction(| : some)
    for (std::size_t i = 0; i < count; ++i)
      some |= dp[first + i] != 0;
    for (std::size_t i = 0; i < count && some; ++i)
      sum += dp[first + i] * p[first + i];
  }
  return sum;
}

MOE_SIMD void add_centred(const double* p, const double* dp, double mean, double* dz,
                          std::size_t n) {
  for (std::size_t i = 0; i < n; ++i)
    dz[i] += p[i] * (dp[i] - mean);
}

}  // namespace

void best_of(std::span<const double> key, std::span<int> out) {
  const std::size_t n = out.size();
  if (n * 4 < key.size() || key.size() <= keys_at_once)
    return few_best_of(key, out);
  std::vector<int> order(key.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int a, int b) { return key[a] > key[b]; });
  for (std::size_t j = 0; j < n; ++j)
    out[j] = j < order.size() && key[order[j]] != never ? order[j] : -1;
}

double log_sum_exp(std::span<const double> z) {
  const double top = largest(z.data(), z.size());
  double sum = 0;
  for (const double v : z)
    sum += std::exp(v - top);
  return top + std::log(sum);
}
void softmax_row(std::span<const double> z, std::span<double> p) {
  const double top = largest(z.data(), z.size());
  double sum = 0;
  for (std::size_t e = 0; e < z.size(); ++e)
    sum += p[e] = std::exp(z[e] - top);
  divide(p.data(), p.size(), sum);
}
void softmax_row_backward(std::span<const double> p, std::span<const double> dp,
                          std::span<double> dz) {
  const double mean = sum_of_products(dp.data(), p.data(), p.size());
  add_centred(p.data(), dp.data(), mean, dz.data(), p.size());
}

void sigmoid_row(std::span<const double> z, std::span<double> s) {
  for (std::size_t e = 0; e < s.size(); ++e)
    s[e] = 1 / (1 + std::exp(-z[e]));
}
void sqrt_softplus_row(std::span<const double> z, std::span<double> s) {
  for (std::size_t e = 0; e < s.size(); ++e)
    s[e] = std::sqrt(std::max(z[e], 0.0) + std::log1p(std::exp(-std::abs(z[e]))));
}
double sqrt_softplus_slope(double s) {
  return s > 0 ? -std::expm1(-s * s) / (2 * s) : 0;
}
Matrix<double> normalized_rows(const Matrix<double>& s) {
  Matrix<double> p = Matrix<double>::unset(s.rows(), s.cols());
  parallel_for(s.rows(), rows_at_once, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      double sum = norm_eps;
      for (const double v : s.row(t))
        sum += v;
      for (Index e = 0; e < s.cols(); ++e)
        p(t, e) = s(t, e) / sum;
    }
  });
  return p;
}
void normalized_row_backward(std::span<const double> s, std::span<const double> dp,
                             std::span<double> ds) {
  double sum = norm_eps;
  double mean = 0;
  for (const double v : s)
    sum += v;
  for (std::size_t e = 0; e < s.size(); ++e)
    mean += dp[e] * s[e] / sum;
  for (std::size_t e = 0; e < s.size(); ++e)
    ds[e] += (dp[e] - mean) / sum;
}

double divisor_of(std::span<const double> score, std::span<const int> ids, const WeightRule& rule) {
  if (!rule.norm)
    return 1;
  double sum = 0;
  for (const int e : ids) {
    if (e >= 0)
      sum += score[e];
  }
  return std::max(sum + rule.eps, rule.least);
}

void weights_of(std::span<const double> score, std::span<const int> ids, const WeightRule& rule,
                std::span<double> weight) {
  const double d = divisor_of(score, ids, rule);
  for (std::size_t j = 0; j < ids.size(); ++j)
    weight[j] = ids[j] < 0 ? 0 : rule.scale * score[ids[j]] / d;
}
void weights_of_backward(std::span<const double> score, std::span<const int> ids,
                         const WeightRule& rule, std::span<const double> weight,
                         std::span<const double> dweight, std::span<double> dscore) {
  const double d = divisor_of(score, ids, rule);
  double mean = 0;
  for (std::size_t j = 0; j < ids.size() && divides_by_sum(rule, d); ++j) {
    if (ids[j] >= 0)
      mean += dweight[j] * weight[j] / rule.scale;
  }
  for (std::size_t j = 0; j < ids.size(); ++j) {
    if (ids[j] >= 0)
      dscore[ids[j]] += rule.scale / d * (dweight[j] - mean);
  }
}

namespace {

// The k/groups best of every group, best key first.
void choose_in_every_group(std::span<const double> key, const Groups& g, std::span<int> out) {
  const std::size_t size = key.size() / std::size_t(g.groups);
  const std::size_t each = out.size() / std::size_t(g.groups);
  std::vector<int> picked(out.size());
  for (std::size_t i = 0; i < std::size_t(g.groups); ++i) {
    const std::span<int> mine = std::span(picked).subspan(i * each, each);
    best_of(key.subspan(i * size, size), mine);
    for (int& e : mine)
      e += int(i * size);
  }
  std::ranges::sort(picked);
  std::ranges::stable_sort(picked, [&](int a, int b) { return key[a] > key[b]; });
  std::ranges::copy(picked, out.begin());
}

// Keys outside the best topk groups become -inf.
void keep_best_groups(std::span<double> key, std::span<const double> group_key, const Groups& g) {
  const std::size_t size = key.size() / std::size_t(g.groups);
  std::vector<double> value(std::size_t(g.groups));
  for (std::size_t i = 0; i < value.size(); ++i) {
    const auto mine = group_key.subspan(i * size, size);
    int top[2] = {-1, -1};
    best_of(mine, std::span(top).first(g.score == Groups::Score::max ? 1 : 2));
    value[i] = mine[top[0]] + (top[1] >= 0 ? mine[top[1]] : 0);
  }
  std::vector<int> keep(std::size_t(g.topk));
  best_of(value, keep);
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (std::ranges::find(keep, int(i)) == keep.end())
      std::ranges::fill(key.subspan(i * size, size), never);
  }
}

}  // namespace

void choose(std::span<double> key, std::span<const double> group_key, const Groups& g,
            std::span<int> out) {
  if (g.mode == Groups::Mode::one)
    return choose_in_every_group(key, g, out);
  if (g.mode == Groups::Mode::limited)
    keep_best_groups(key, group_key, g);
  best_of(key, out);
}

}  // namespace moe
