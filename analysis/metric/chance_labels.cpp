// What chance gives pairs of experts of one token, and labels that are seen a few times each.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/joint.h"

namespace moe::chance {
namespace {

struct Pair {
  double lift, conditional, npmi;
};

// One trace of random choices: its pairs of experts in falling order of lift, given the rarer of
// the two.
std::vector<Pair> one_run(int experts, int k, std::int64_t tokens, std::size_t top, Rng& rng,
                          double& max_lift) {
  Counts pairs(experts, experts);
  std::vector<int> deck(static_cast<std::size_t>(experts)), one(static_cast<std::size_t>(k));
  std::iota(deck.begin(), deck.end(), 0);
  for (std::int64_t t = 0; t < tokens; ++t) {
    draw_experts(deck, one, rng);
    for (const int a : one) {
      for (const int b : one)
        ++pairs(a, b);
    }
  }
  std::vector<Pair> out;
  max_lift = coactivation_max_lift(pairs, tokens);
  for (Index i = 0; i < experts; ++i) {
    for (Index j = i + 1; j < experts; ++j) {
      const double a = double(pairs(i, i));
      const double b = double(pairs(j, j));
      const double both = double(pairs(i, j));
      const double expected = a * b / double(tokens);
      if (expected < 5)
        continue;
      const double lift = both / expected;
      out.push_back({lift, both / std::min(a, b),
                     both == 0                ? -1
                     : both == double(tokens) ? 0
                                              : std::log(lift) / -std::log(both / double(tokens))});
    }
  }
  std::partial_sort(out.begin(), out.begin() + std::ptrdiff_t(std::min(top, out.size())), out.end(),
                    [](const Pair& x, const Pair& y) { return x.lift > y.lift; });
  out.resize(std::min(top, out.size()));
  return out;
}

int label_runs(int experts) {
  return runs_within(std::clamp(8192 / experts, 100, 800), experts);
}

}  // namespace

namespace {

// of a pair drawn blindly
struct OfOnePair {
  OfOnePair(double experts, double k)
      : lift(experts * (k - 1) / (k * (experts - 1))),
        together(k * (k - 1) / (experts * (experts - 1))),
        conditional((k - 1) / (experts - 1)) {}
  double lift, together, conditional;
};

// Very many experts: pairs are near Poisson, and one expert's count hardly varies beside them.
ClosestPairs of_many_experts(double e, double c, double tokens, std::size_t top) {
  ClosestPairs out{{}, std::vector<PairValue>(top)};
  const double all = e * (e - 1) / 2;
  const double together = OfOnePair(e, c).together;
  const double mean = tokens * together;
  const double thin = std::sqrt(1 - together);
  const auto fullest = fullest_cells(all, tokens * c * (c - 1) / 2, top);
  for (std::size_t i = 0; i < top && double(i) < all; ++i) {
    const double lift = (mean + (fullest[i] - mean) * thin) / (tokens * c * c / (e * e));
    out.listed[i] = {{lift}, {lift * c / e}, {std::log(lift) / -std::log(lift * c * c / (e * e))}};
  }
  out.max_lift = out.listed[0].lift;
  return out;
}

struct Runs {  // what was simulated: (top, runs), and the largest lift of each run
  explicit Runs(std::size_t top) : lift(top), conditional(top), npmi(top) {}
  void add(const std::vector<Pair>& found) {
    for (std::size_t i = 0; i < found.size(); ++i) {
      lift[i].push_back(found[i].lift);
      conditional[i].push_back(found[i].conditional);
      npmi[i].push_back(found[i].npmi);
    }
  }
  std::vector<std::vector<double>> lift, conditional, npmi;
  std::vector<double> max_lift;
};

}  // namespace

ClosestPairs closest_pairs(int experts, int k, std::int64_t tokens, std::size_t top, int runs) {
  ClosestPairs out{{}, std::vector<PairValue>(top)};
  if (experts < 2 || k < 2 || k > experts || tokens < 1)
    return out;
  const OfOnePair one(experts, k);
  // tokens that bring a pair together 50 times: beyond that, deviations shrink as 1/sqrt(tokens)
  const double enough = 50 / one.together;
  constexpr double most = 65536;
  if (double(tokens) > most && enough > most)
    return of_many_experts(experts, k, double(tokens), top);
  const std::int64_t drawn =
      std::min<std::int64_t>(tokens, std::max<std::int64_t>(1024, std::llround(enough)));
  const double shrink = std::sqrt(double(drawn) / double(tokens));
  Runs seen(top);
  for (int run = 0; run < runs; ++run) {
    Rng rng(seed, std::uint64_t(run));
    seen.add(one_run(experts, k, drawn, top, rng, seen.max_lift.emplace_back()));
  }
  const auto scaled = [&](const std::vector<double>& of, double limit) {
    const Value v = of_runs(of);
    return Value{limit + (v.mean - limit) * shrink, v.spread * shrink};
  };
  out.max_lift = scaled(seen.max_lift, one.lift);
  for (std::size_t i = 0; i < top; ++i) {
    out.listed[i] = {scaled(seen.lift[i], one.lift), scaled(seen.conditional[i], one.conditional),
                     scaled(seen.npmi[i], std::log(one.lift) / -std::log(one.together))};
  }
  return out;
}

std::int64_t Labels::step(std::int64_t tokens) const {
  return tokens <= 32
             ? tokens
             : std::llround(std::pow(1.1, std::round(std::log(double(tokens)) / std::log(1.1))));
}

const Label& Labels::nearest(std::int64_t tokens) {
  const std::int64_t n = step(tokens);
  auto [at, fresh] = known_.try_emplace(n);
  Label& l = at->second;
  if (!fresh)
    return l;
  l.favourite.assign(std::size_t(experts_), 0);
  l.favourite_share = l.favourite;
  if (experts_ >= 1 && k_ >= 1 && k_ <= experts_ && n >= 1)
    simulate(l, n);
  return l;
}

void Labels::simulate(Label& l, std::int64_t n) const {
  const int runs = label_runs(experts_);
  std::vector<double> share, entropy, deviation;
  for (int run = 0; run < runs; ++run) {
    // of their own: a shared beginning would err alike for all n
    Rng rng(seed + std::uint64_t(n) * 7919, std::uint64_t(run));
    const auto counts = draw_counts(experts_, k_, n, rng);
    const auto most = std::max_element(counts.begin(), counts.end());
    const auto all = double(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    double square = 0;
    for (const auto c : counts)
      square += (double(c) / all - 1.0 / experts_) * (double(c) / all - 1.0 / experts_) / experts_;
    share.push_back(double(*most) / double(n));
    entropy.push_back(entropy_bits(counts));
    deviation.push_back(std::sqrt(square));
    l.favourite[most - counts.begin()] += 1.0 / runs;
    l.favourite_share[most - counts.begin()] += share.back() / runs;
  }
  for (std::size_t e = 0; e < l.favourite.size(); ++e)
    l.favourite_share[e] /= l.favourite[e] > 0 ? l.favourite[e] : 1;
  l.share = of_runs(share);
  l.entropy = of_runs(entropy);
  l.deviation = of_runs(deviation);
}

// Between the numbers simulated, what random counts add to their limit falls as 1/sqrt(n).
Value Labels::share(std::int64_t n) {
  const double shrink = std::sqrt(double(step(n)) / double(n));
  const double limit = double(k_) / experts_;
  const Value v = nearest(n).share;
  return {limit + (v.mean - limit) * shrink, v.spread * shrink};
}
Value Labels::deviation(std::int64_t n) {
  const double shrink = std::sqrt(double(step(n)) / double(n));
  const Value v = nearest(n).deviation;
  return {v.mean * shrink, v.spread * shrink};
}
Value Labels::entropy(std::int64_t n) {  // bits; what is missing falls as 1/n
  const double e = experts_;
  const double k = k_;
  const double most = std::log2(e);
  const double assignments = double(n) * k;
  if (e < 2 || k > e)
    return {e < 2 ? 0 : std::numeric_limits<double>::quiet_NaN(), 0};
  // closed form: what is missing is near chi-squared, scaled, with E-1 degrees of freedom
  if (assignments > 40 * e) {
    const double missing = (e - k) / (2 * assignments * std::numbers::ln2);
    return {most - missing, missing * std::sqrt(2 / (e - 1))};
  }
  const double shrink = double(step(n)) / double(n);
  const Value v = nearest(n).entropy;
  return {most - (most - v.mean) * shrink, v.spread * shrink};
}

double Labels::same_favourite(std::int64_t n, std::int64_t m) {
  const auto& x = nearest(n).favourite;
  const auto& y = nearest(m).favourite;
  const double both = std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
  const double runs = label_runs(experts_);
  // of the same draws: each agrees with itself
  return step(n) == step(m) ? std::max(0.0, (runs * both - 1) / (runs - 1)) : both;
}

Value Labels::mi_bits(std::span<const std::int64_t> label_tokens) {
  double all = 0;
  double labels = 0;
  for (const auto n : label_tokens) {
    all += double(n);
    labels += n > 0;
  }
  if (all == 0)
    return {};
  const Value whole = entropy(std::int64_t(all));
  double mean = whole.mean;
  double variance = 0;
  for (const auto n : label_tokens) {
    if (n == 0)
      continue;
    const Value v = entropy(n);
    mean -= double(n) / all * v.mean;
    variance += double(n) / all * double(n) / all * v.spread * v.spread;
  }
  // one degree less: the labels share the whole
  return {std::max(0.0, mean), std::sqrt(variance * (labels - 1) / labels)};
}

}  // namespace moe::chance
