#include "analysis/metric/chance.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "analysis/metric/reach.h"
#include "lib/core/shuffle.h"

namespace moe::chance {
namespace {

// C(left,K)/C(E,K), for broken K by interpolation
double missed(double experts, double k, double left) {
  k = std::min(k, experts);
  const auto whole = [&](int choices) {
    double p = 1;
    for (int j = 0; j < choices && experts > j; ++j)
      p *= std::max(0.0, (left - j) / (experts - j));
    return p;
  };
  const int below = int(k);
  const double part = k - below;
  return (1 - part) * whole(below) + (part > 0 ? part * whole(below + 1) : 0);
}

double median(std::vector<double> values) {
  if (values.empty())
    return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

bool impossible(int experts, int k, std::int64_t tokens) {
  return experts < 1 || k < 1 || k > experts || tokens < 1;
}

// runs
int enough(Index cells) {
  return int(std::clamp<Index>(32768 / std::max<Index>(1, cells), 100, 2000));
}

// `of` of each of `runs` draws; statistic `median_of`: median, and no spread.
template <class Draw, class Of>
std::vector<Value> simulated(std::size_t results, int runs, Draw draw, const Of& of,
                             int median_of = -1) {
  std::vector<std::vector<double>> seen(results);
  for (int run = 0; run < runs; ++run) {
    Rng rng(seed, std::uint64_t(run));
    const std::vector<double> one = of(draw(rng));
    for (std::size_t i = 0; i < results; ++i)
      seen[i].push_back(one[i]);
  }
  std::vector<Value> out;
  for (std::size_t i = 0; i < results; ++i)
    out.push_back(int(i) == median_of ? Value{median(seen[i])} : of_runs(seen[i]));
  return out;
}

}  // namespace

int runs_within(int runs, Index experts) {
  constexpr Index most_draws = Index(1) << 23;
  return std::min(runs, int(std::max<Index>(8, most_draws / std::max<Index>(1, experts))));
}

Value of_runs(std::span<const double> runs) {
  double sum = 0;
  double square = 0;
  double n = 0;
  for (const double v : runs) {
    if (std::isfinite(v)) {
      sum += v;
      n += 1;
    }
  }
  if (n == 0)
    return {};
  for (const double v : runs) {
    if (std::isfinite(v))
      square += (v - sum / n) * (v - sum / n);
  }
  return n > 1 ? Value{sum / n, std::sqrt(square / (n - 1))} : Value{sum / n};
}

Value mean_of_independent(std::span<const Value> each) {
  Value out{0, 0};
  const double n = double(each.size());
  for (const Value& v : each) {
    out.mean += v.mean / n;
    out.spread += v.spread * v.spread / (n * n);
  }
  out.spread = std::sqrt(out.spread);
  return each.empty() ? Value{} : out;
}

double load_cv(double e, double k, double t) {
  return std::sqrt(std::max(0.0, e / k - 1) / t);
}
double load_jain(double e, double k, double t) {
  return 1 / (1 + std::max(0.0, e / k - 1) / t);
}
double load_dead(double e, double k, double t) {
  return std::pow(1 - k / e, t);
}
double meets(double e, double k, double of) {
  return 1 - missed(e, k, e - of);
}
double repeat_any(double e, double k) {
  return meets(e, k, k);
}
double distinct_experts(double e, double k, double block) {
  return e * (1 - std::pow(1 - k / e, block));
}
double mi_bits(double labels, double e, double k, double n) {
  return std::max(0.0, labels - 1) * std::max(0.0, e - k) / (2 * n * std::numbers::ln2);
}
double total_variation(double e, double k, double t) {
  return std::min(1.0, std::sqrt(std::max(0.0, e - k) / (std::numbers::pi * k * t)));
}
double crosslayer_mi_bits(double from, double to, double t) {
  return (from - 1) * (to - 1) / (2 * t * std::numbers::ln2);
}

double distinct_ranks(int experts, double k, int ranks) {
  std::vector<int> on(static_cast<std::size_t>(ranks), 0);
  for (std::int64_t e = 0; e < experts; ++e)
    ++on[e * ranks / experts];
  double sum = 0;
  for (const int n : on)
    sum += meets(experts, k, n);
  return sum;
}

double same_set(double e, double k) {
  double p = 1;
  for (int j = 0; j < int(std::lround(k)) && j < e; ++j)
    p *= (j + 1) / (e - j);
  return p;
}

double lru_hit_rate(double e, double k, double cache) {
  if (cache >= e)
    return 1;
  double sum = 0;
  const int choices = std::clamp(int(std::lround(k)), 1, int(e));
  for (int j = 0; j < choices; ++j)
    sum += std::max(0.0, cache - j) / (e - j);
  return sum / choices;
}

double mean_root(double freedom) {
  return freedom > 0 ? std::exp(std::lgamma((freedom + 1) / 2) - std::lgamma(freedom / 2)) *
                           std::sqrt(2 / freedom)
                     : 1;
}

// density (1-c^2)^((H-3)/2); the largest of n lies below c with probability P(c)^n
double largest_cosine(double pairs, double dimensions) {
  if (pairs < 1 || dimensions < 2)
    return std::numeric_limits<double>::quiet_NaN();
  const double reach = std::min(1.0, 12 / std::sqrt(dimensions));
  constexpr int steps = 8192;
  std::vector<double> below(steps);
  double sum = 0;
  for (int i = 0; i < steps; ++i) {
    const double c = reach * (2 * (i + 0.5) / steps - 1);
    const double here = std::exp((dimensions - 3) / 2 * std::log1p(-c * c));
    below[i] = sum + here / 2;
    sum += here;
  }
  double mean = reach;
  for (const double p : below)
    mean -= 2 * reach / steps * std::pow(p / sum, pairs);
  return mean;
}

std::vector<double> fullest_cells(double cells, double tokens, std::size_t n) {
  cells = std::min(cells, 1e200);  // more make no difference
  const double mean = tokens / cells;
  const double first = std::max(1.0, std::floor(mean - 12 * std::sqrt(mean)));
  std::vector<double> out(n, first - 1);  // every cell holds that many
  for (double c = first;; ++c) {
    // cells with c or more: binomially many
    const double share = poisson_tail(mean, c);
    const double fuller = cells * share;
    if (fuller < 1e-9)
      break;
    const double odds = share < 1 ? share / (1 - share) : 0;
    double exactly = share < 1 ? std::exp(cells * std::log1p(-share)) : 0;
    double at_most = 0;
    for (std::size_t i = 0; i < n && double(i) < cells; ++i) {
      at_most += exactly;
      exactly *= (cells - double(i)) / double(i + 1) * odds;
      out[i] += fuller > 700 + double(n) ? 1 : std::max(0.0, 1 - at_most);
    }
  }
  // their sum is fixed
  for (std::size_t i = 0; i < n; ++i)
    out[i] = double(i) < cells ? mean + (out[i] - mean) * std::sqrt(1 - 1 / cells) : 0;
  return out;
}

void draw_experts(std::vector<int>& deck, std::span<int> out, Rng& rng) {
  for (std::size_t j = 0; j < out.size(); ++j) {
    draw_to(deck, j, rng);
    out[j] = deck[j];
  }
}

namespace {

std::vector<std::int64_t> counts_token_by_token(int experts, int k, std::int64_t tokens, Rng& rng) {
  std::vector<std::int64_t> counts(std::size_t(experts), 0);
  std::vector<int> deck(counts.size());
  std::vector<int> one(static_cast<std::size_t>(k));
  std::iota(deck.begin(), deck.end(), 0);
  for (std::int64_t t = 0; t < tokens; ++t) {
    draw_experts(deck, one, rng);
    for (const int e : one)
      ++counts[e];
  }
  return counts;
}

// (E) of the normal limit, skewed as the counts are, before their sum is fixed.
std::vector<double> skewed_normal(int experts, double skew, Rng& rng) {
  std::vector<double> out(static_cast<std::size_t>(experts));
  for (double& x : out) {
    x = rng.normal();
    x += skew / 6 * (x * x - 1);
  }
  return out;
}

}  // namespace

std::vector<std::int64_t> draw_counts(int experts, int k, std::int64_t tokens, Rng& rng) {
  if (tokens * k <= 16 * experts || tokens <= 8)
    return counts_token_by_token(experts, k, tokens, rng);
  const double p = double(k) / experts;
  const double mean = double(tokens) * p;
  const double spread =
      experts > 1 ? std::sqrt(double(tokens) * p * (1 - p) * experts / (experts - 1.0)) : 0;
  const double skew = spread > 0 ? (1 - 2 * p) / std::sqrt(double(tokens) * p * (1 - p)) : 0;
  const std::vector<double> g = skewed_normal(experts, skew, rng);
  double middle = 0;
  for (const double x : g)
    middle += x / experts;
  std::vector<std::int64_t> counts(g.size(), 0);
  std::int64_t left = tokens * k;
  for (std::size_t e = 0; e < g.size(); ++e) {
    counts[e] = std::clamp<std::int64_t>(std::llround(mean + spread * (g[e] - middle)), 0, tokens);
    left -= counts[e];
  }
  while (left != 0) {  // rounded
    std::int64_t& c = counts[rng.below(experts)];
    const std::int64_t one = left > 0 ? 1 : -1;
    if (c + one >= 0 && c + one <= tokens) {
      c += one;
      left -= one;
    }
  }
  return counts;
}

std::vector<Value> simulate_load(int experts, int k, std::int64_t tokens, std::size_t results,
                                 const Statistics& of, int median_of) {
  if (impossible(experts, k, tokens))
    return std::vector<Value>(results);
  return simulated(
      results, runs_within(enough(experts), experts),
      [&](Rng& rng) { return draw_counts(experts, k, tokens, rng); }, of, median_of);
}

Counts draw_joint(std::span<const std::int64_t> row_tokens, int columns, int k, Rng& rng) {
  Counts joint(Index(row_tokens.size()), columns);
  for (std::size_t r = 0; r < row_tokens.size(); ++r) {
    if (impossible(columns, k, row_tokens[r]))
      continue;
    const auto counts = draw_counts(columns, k, row_tokens[r], rng);
    std::copy(counts.begin(), counts.end(), joint.row(Index(r)).begin());
  }
  return joint;
}

std::vector<Value> simulate_joint(std::span<const std::int64_t> row_tokens, int columns, int k,
                                  std::size_t results, const JointStatistics& of) {
  return simulated(
      results, enough(columns * Index(row_tokens.size())),
      [&](Rng& rng) { return draw_joint(row_tokens, columns, k, rng); }, of);
}

std::vector<Value> simulate_steps(int from, int to, std::int64_t tokens, std::size_t results,
                                  const JointStatistics& of) {
  if (impossible(from, 1, tokens) || to < 1)
    return std::vector<Value>(results);
  return simulated(
      results, enough(Index(from) * to / 8),
      [&](Rng& rng) { return draw_joint(draw_counts(from, 1, tokens, rng), to, 1, rng); }, of);
}

}  // namespace moe::chance
