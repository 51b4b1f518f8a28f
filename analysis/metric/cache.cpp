#include "analysis/metric/cache.h"

#include <cmath>
#include <utility>

#include "lib/core/load.h"

namespace moe {
namespace {

using Simulation = CacheMetric::Simulation;

std::vector<int> usual_sizes(const Shape& s) {  // an eighth, a quarter, half of the experts
  std::vector<int> out;
  for (const int part : {8, 4, 2}) {
    if (const int c = std::max(1, s.max_experts() / part); out.empty() || out.back() != c)
      out.push_back(c);
  }
  return out;
}

constexpr int most_followed = 65534;           // experts of a layer: depths are 16 bits
constexpr std::int64_t most_simulated = 8192;  // tokens behind the chance values of LFU and Belady

// What an LRU cache that has met only so many experts misses, beyond a warm one, at a token's j-th
// request: share of requests.
double cold(int met, int j, int size, int experts) {
  const double full = std::min(size, experts);
  return (std::max(0.0, full - j) - std::max(0.0, std::min<double>(full, double(met)) - j)) /
         (experts - j);
}

chance::Value fixed(int experts, int k, std::int64_t tokens, int size) {
  return chance::simulate_load(experts, k, tokens, 1, [size](auto counts) {
    return std::vector<double>{load_topn_coverage(counts, size)};
  })[0];
}

struct Drawn {  // hit rates of random requests: (sizes, runs)
  explicit Drawn(std::size_t sizes) : lru(sizes), lfu(sizes), belady(sizes) {}
  std::vector<std::vector<double>> lru, lfu, belady;
};

// Requests of `tokens` tokens that draw k distinct experts at random. Of LRU the value of a warm
// cache, less what the empty start of a trace of `all` tokens costs.
void draw_requests(int experts, int k, std::int64_t tokens, std::int64_t all,
                   const std::vector<int>& sizes, Rng rng, Drawn& out) {
  Simulation s(experts, sizes);
  std::vector<int> deck(static_cast<std::size_t>(experts)), one(static_cast<std::size_t>(k));
  std::iota(deck.begin(), deck.end(), 0);
  std::vector<double> lost(sizes.size(), 0);
  std::vector<char> seen(deck.size(), 0);
  int met = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    chance::draw_experts(deck, one, rng);
    for (int j = 0; j < k; ++j) {
      const int e = one[j];
      for (std::size_t i = 0; i < sizes.size(); ++i)
        lost[i] += cold(met, j, sizes[i], experts);
      s.request(e);
      met += !std::exchange(seen[e], 1);
    }
  }
  const double n = double(s.recency.requests());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    out.lru[i].push_back(chance::lru_hit_rate(experts, k, sizes[i]) - lost[i] / (double(all) * k));
    out.lfu[i].push_back(double(s.lfu[i].hits()) / n);
    out.belady[i].push_back(double(s.recency.belady_hits(i)) / n);
  }
}

}  // namespace

CacheMetric::CacheMetric(Spec& spec, const TraceSource& trace)
    : shape_(trace),
      sizes_(whole_list_of(spec, "cache_sizes", list_text(usual_sizes(shape_)).c_str(), 1)),
      most_(spec.get("tokens", 65536, 0)) {
  for (const int e : shape_.experts)
    layer_.emplace_back(e, sizes_);
}

TraceFields CacheMetric::needs() const {
  return no_fields;
}

void CacheMetric::observe_layer(const Window& w, Index l) {
  Simulation& s = layer_[l];
  for (const Index t : w.valid) {
    if (most_ > 0 && s.tokens >= most_)
      return;
    ++s.tokens;
    for (const int e : w.layer[l].of(t))
      s.request(e);
  }
}

std::vector<MetricValue> CacheMetric::values() const {
  std::vector<double> accesses;
  std::vector<std::vector<double>> lru, lfu, belady, fixed, rate;
  for (const Simulation& s : layer_) {
    accesses.push_back(double(s.recency.requests()));
    for (auto* rows : {&lru, &lfu, &belady, &fixed, &rate})
      rows->emplace_back();
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
      lru.back().push_back(double(s.recency.lru_hits(sizes_[i])));
      lfu.back().push_back(double(s.lfu[i].hits()));
      belady.back().push_back(double(s.recency.belady_hits(i)));
      fixed.back().push_back(double(s.static_hits(sizes_[i])));
      rate.back().push_back(lru.back().back() / accesses.back());
    }
  }
  return {per_layer("cache_accesses", accesses), per_layer("cache_hits_lru", lru),
          per_layer("cache_hits_lfu", lfu),      per_layer("cache_hits_belady", belady),
          per_layer("cache_hits_static", fixed), per_layer("cache_hit_rate_lru", rate)};
}

// Hit rates of LRU, LFU, Belady and static at each size when experts are drawn at random, the start
// with an empty cache included. LFU and Belady are simulated on the first 8192 tokens at most.
std::vector<chance::Value> CacheMetric::simulate(int experts, int k, std::int64_t all) const {
  const std::int64_t tokens = std::min(all, most_simulated);
  const int runs = int(std::clamp<std::int64_t>(262144 / (tokens * k), 4, 200));
  Drawn drawn(sizes_.size());
  for (int run = 0; run < runs; ++run)
    draw_requests(experts, k, tokens, all, sizes_, Rng(chance::seed, std::uint64_t(run)), drawn);
  const double requests = double(all) * k;
  const double shorter = std::sqrt(double(tokens) / double(all));
  std::vector<chance::Value> out;
  for (std::size_t i = 0; i < sizes_.size(); ++i) {
    const double rate = chance::of_runs(drawn.lru[i]).mean;
    const double spread = std::sqrt(rate * (1 - rate) / requests);
    out.push_back({rate, spread});
    for (const auto* hits : {&drawn.lfu[i], &drawn.belady[i]}) {
      const chance::Value v = chance::of_runs(*hits);
      out.push_back({v.mean, runs < 16 ? spread : v.spread * shorter});
    }
    out.push_back(fixed(experts, k, all, sizes_[i]));
  }
  return out;
}

std::vector<CacheMetric::HitRates> CacheMetric::by_lot(Memo& memo, std::size_t l) const {
  const int experts = shape_.experts[l];
  const Simulation& s = layer_[l];
  const int k = whole_choices(double(s.recency.requests()) / double(s.tokens), experts);
  const auto& all = memo.get({double(experts), double(k), double(s.tokens)},
                             [&] { return simulate(experts, k, s.tokens); });
  std::vector<HitRates> out;
  for (auto next = all.begin(); next != all.end(); next += 4)
    out.push_back({next[0], next[1], next[2], next[3]});
  return out;
}

std::unique_ptr<Metric> make_cache_metric(Spec& spec, const TraceSource& trace,
                                          const AnalyzeOptions&) {
  auto metric = std::make_unique<CacheMetric>(spec, trace);
  const int experts = trace.header().max_experts();
  if (experts <= most_followed)
    return metric;
  return left_out(concat("what a cache of experts would hold is left out: a layer has ", experts,
                         " experts, and up to ", most_followed, " are followed"));
}

}  // namespace moe
