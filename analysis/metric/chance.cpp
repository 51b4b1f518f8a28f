#include "analysis/metric/chance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "analysis/metric/joint.h"

namespace moe::chance {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr std::uint64_t seed = 20240229;  // any number, always the same

double missed(double experts, double k, double left) {  // C(left,K)/C(E,K), for broken K by interpolation
  const auto whole = [&](int choices) {
    double p = 1;
    for (int j = 0; j < choices; ++j) p *= std::max(0.0, (left - j) / (experts - j));
    return p;
  };
  const int below = int(k);
  const double part = k - below;
  return (1 - part) * whole(below) + (part > 0 ? part * whole(below + 1) : 0);
}

double mean_of(std::vector<double> values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return values.empty() ? nan : sum / double(values.size());
}

double median_of(std::vector<double> values) {
  if (values.empty()) return nan;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

bool impossible(int experts, int k, std::int64_t tokens) { return experts < 1 || k < 1 || k > experts || tokens < 1; }

}  // namespace

double load_cv(double e, double k, double t) { return std::sqrt(std::max(0.0, e / k - 1) / t); }
double load_jain(double e, double k, double t) { return 1 / (1 + std::max(0.0, e / k - 1) / t); }
double load_avgvio(double e, double k, double t) { return std::sqrt(2 / std::numbers::pi) * load_cv(e, k, t); }
double load_entropy(double e, double k, double t) { return std::log(e) - std::max(0.0, e / k - 1) / t / 2; }
double load_entropy_norm(double e, double k, double t) { return e > 1 ? load_entropy(e, k, t) / std::log(e) : 1; }
double load_effective(double e, double k, double t) { return 1 - std::max(0.0, e / k - 1) / t / 2; }
double load_gini(double e, double k, double t) { return load_cv(e, k, t) / std::sqrt(std::numbers::pi); }
double load_dead(double e, double k, double t) { return std::pow(1 - k / e, t); }
double repeat_any(double e, double k) { return 1 - missed(e, k, e - k); }
double distinct_experts(double e, double k, double block) { return e * (1 - std::pow(1 - k / e, block)); }
double distinct_ranks(double e, double k, double ranks) { return ranks * (1 - missed(e, k, e - e / ranks)); }
double mi_bits(double labels, double e, double k, double n) { return std::max(0.0, labels - 1) * std::max(0.0, e - k) / (2 * n * std::numbers::ln2); }
double total_variation(double e, double k, double t) { return std::min(1.0, std::sqrt(std::max(0.0, e - k) / (std::numbers::pi * k * t))); }
double same_set(double e, double k) {
  double p = 1;
  for (int j = 0; j < int(std::lround(k)); ++j) p *= (j + 1) / (e - j);
  return p;
}
double crosslayer_mi_bits(double from, double to, double t) { return (from - 1) * (to - 1) / (2 * t * std::numbers::ln2); }

double lru_hit_rate(double e, double k, double cache) {
  if (cache >= e) return 1;
  double sum = 0;
  const int choices = std::max(1, int(std::lround(k)));
  for (int j = 0; j < choices; ++j) sum += std::max(0.0, cache - j) / (e - j);
  return sum / choices;
}

std::vector<std::int64_t> draw_counts(int experts, int k, std::int64_t tokens, Rng& rng) {
  std::vector<std::int64_t> counts(std::size_t(experts), 0);
  if (tokens * k <= 8 * experts || tokens * k <= 512) {
    std::vector<int> deck(counts.size());
    std::iota(deck.begin(), deck.end(), 0);
    for (std::int64_t t = 0; t < tokens; ++t)
      for (int j = 0; j < k; ++j) {  // Fisher-Yates, as far as needed
        std::swap(deck[std::size_t(j)], deck[std::size_t(j + rng.below(experts - j))]);
        ++counts[std::size_t(deck[std::size_t(j)])];
      }
    return counts;
  }
  const double p = double(k) / experts, mean = double(tokens) * p;
  const double spread = experts > 1 ? std::sqrt(double(tokens) * p * (1 - p) * experts / (experts - 1.0)) : 0;
  std::vector<double> g(counts.size());
  double middle = 0;
  for (double& x : g) x = rng.normal(), middle += x / experts;
  for (std::size_t e = 0; e < g.size(); ++e) counts[e] = std::max<std::int64_t>(0, std::llround(mean + spread * (g[e] - middle)));
  return counts;
}

std::int64_t draw_poisson(double mean, Rng& rng) {
  if (mean > 64) return std::max<std::int64_t>(0, std::llround(mean + std::sqrt(mean) * rng.normal()));
  const double u = rng.uniform();
  double p = std::exp(-mean), sum = p;
  std::int64_t n = 0;
  while (u > sum && n < 1000) p *= mean / double(++n), sum += p;
  return n;
}

std::vector<double> simulate_load(int experts, int k, std::int64_t tokens, std::size_t results, const Statistics& of, int runs, int median) {
  if (impossible(experts, k, tokens)) return std::vector<double>(results, nan);
  std::vector<std::vector<double>> seen(results);
  for (int run = 0; run < runs; ++run) {
    Rng rng(seed, std::uint64_t(run));
    const std::vector<double> one = of(draw_counts(experts, k, tokens, rng));
    for (std::size_t i = 0; i < results; ++i) seen[i].push_back(one[i]);
  }
  std::vector<double> out;
  for (std::size_t i = 0; i < results; ++i) out.push_back(int(i) == median ? median_of(seen[i]) : mean_of(seen[i]));
  return out;
}

double domain_max_lift(int experts, int k, std::span<const std::int64_t> domain_tokens, int runs) {
  std::vector<double> seen;
  for (int run = 0; run < runs; ++run) {
    Rng rng(seed, std::uint64_t(run));
    Counts joint(Index(domain_tokens.size()), experts);
    for (std::size_t d = 0; d < domain_tokens.size(); ++d) {
      if (impossible(experts, k, domain_tokens[d])) continue;
      const auto counts = draw_counts(experts, k, domain_tokens[d], rng);
      std::copy(counts.begin(), counts.end(), joint.row(Index(d)).begin());
    }
    const double lift = max_lift(joint);
    if (!std::isnan(lift)) seen.push_back(lift);
  }
  return mean_of(seen);
}

double coactivation_max_lift(int experts, int k, std::int64_t tokens, int runs) {
  if (impossible(experts, k, tokens) || experts < 2) return nan;
  if (k < 2) return 0;
  // Pair counts are near Poisson (thinned by the share of pairs that one token takes); the singles hardly vary beside them.
  const double pairs = double(experts) * (experts - 1) / 2, mean = double(tokens) * k * (k - 1) / 2 / pairs;
  const double thin = std::sqrt(std::max(0.0, 1 - mean / double(tokens))), single = double(tokens) * k / experts;
  std::vector<double> seen;
  for (int run = 0; run < runs; ++run) {
    Rng rng(seed, std::uint64_t(run));
    double most = 0;
    for (double p = 0; p < pairs; ++p) most = std::max(most, double(draw_poisson(mean, rng)));
    seen.push_back((mean + (most - mean) * thin) * double(tokens) / (single * single));
  }
  return mean_of(seen);
}

double best_guess_share(int from, int to, std::int64_t tokens, int runs) {
  if (from < 1 || to < 1 || tokens < 1) return nan;
  std::vector<double> seen;
  for (int run = 0; run < runs; ++run) {
    Rng rng(seed, std::uint64_t(run));
    double best = 0;
    for (const std::int64_t row : draw_counts(from, 1, tokens, rng)) {
      if (row == 0) continue;
      const auto cells = draw_counts(to, 1, row, rng);
      best += double(*std::max_element(cells.begin(), cells.end()));
    }
    seen.push_back(best / double(tokens));
  }
  return mean_of(seen);
}

double biggest_share(int experts, int k, std::int64_t tokens, int runs) {
  return simulate_load(experts, k, tokens, 1, [tokens](std::span<const std::int64_t> counts) {
    return std::vector<double>{double(*std::max_element(counts.begin(), counts.end())) / double(tokens)};
  }, runs)[0];
}

}  // namespace moe::chance
