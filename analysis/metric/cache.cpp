// Would a cache of experts help? Each layer keeps C experts near the processor and fetches the
// others. Requests are those of the tokens one by one, in the order of the trace; simulated on the
// first `tokens` of them.
#include <cmath>
#include <numeric>
#include <utility>

#include "analysis/metric/cache_policies.h"
#include "analysis/metric/chance.h"
#include "analysis/metric/layout.h"
#include "lib/core/load.h"
#include "lib/core/text.h"

namespace moe {
namespace {

std::vector<int> usual_sizes(const Shape& s) {  // an eighth, a quarter, half of the experts
  std::vector<int> out;
  for (const int part : {8, 4, 2}) {
    if (const int c = std::max(1, s.max_experts() / part); out.empty() || out.back() != c)
      out.push_back(c);
  }
  return out;
}

struct Simulation {  // of one layer
  Simulation(int experts, const std::vector<int>& sizes) : recency(experts, sizes) {
    for (const int c : sizes)
      lfu.emplace_back(experts, c);
  }
  void request(int e) {
    recency.request(e);
    for (LfuCache& c : lfu)
      c.request(e);
  }
  std::int64_t static_hits(int size) const {
    auto counts = recency.counts();
    std::sort(counts.rbegin(), counts.rend());
    return std::accumulate(counts.begin(),
                           counts.begin() + std::min<std::ptrdiff_t>(size, std::ssize(counts)),
                           std::int64_t{0});
  }
  RecencyStack recency;
  std::vector<LfuCache> lfu;
  std::int64_t tokens = 0;
};

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

// Requests of `tokens` tokens that draw k distinct experts by lot. Of LRU the value of a warm
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
      const int e = one[std::size_t(j)];
      for (std::size_t i = 0; i < sizes.size(); ++i)
        lost[i] += cold(met, j, sizes[i], experts);
      s.request(e);
      met += !std::exchange(seen[std::size_t(e)], 1);
    }
  }
  const double n = double(s.recency.requests());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    out.lru[i].push_back(chance::lru_hit_rate(experts, k, sizes[i]) - lost[i] / (double(all) * k));
    out.lfu[i].push_back(double(s.lfu[i].hits()) / n);
    out.belady[i].push_back(double(s.recency.belady_hits(i)) / n);
  }
}

class Cache final : public Metric {
 public:
  Cache(Spec& spec, const TraceSource& trace)
      : shape_(trace),
        sizes_(whole_list_of(spec, "cache_sizes", list_text(usual_sizes(shape_)).c_str(), 1)),
        most_(spec.get("tokens", 65536, 0)) {
    for (const int e : shape_.experts)
      layer_.emplace_back(e, sizes_);
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    Simulation& s = layer_[std::size_t(l)];
    for (const Index t : w.valid) {
      if (most_ > 0 && s.tokens >= most_)
        return;
      ++s.tokens;
      for (const int e : w.layer[std::size_t(l)].of(t))
        s.request(e);
    }
  }

  std::vector<MetricValue> values() const override {
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

  void report(Report&) const override;

 private:
  struct HitRates {  // at one size
    chance::Value lru, lfu, belady, fixed;
  };
  std::vector<HitRates> by_lot(Memo&, std::size_t layer) const;
  std::vector<chance::Value> simulate(int experts, int k, std::int64_t tokens) const;
  Values hit_rates(const std::vector<std::size_t>& used,
                   const std::vector<std::vector<HitRates>>& by_lot) const;
  void table(Report&, const Values&, std::int64_t tokens) const;

  Shape shape_;
  std::vector<int> sizes_;
  std::int64_t most_;
  std::vector<Simulation> layer_;
};

// Hit rates of LRU, LFU, Belady and static at each size when experts are drawn by lot, the start
// with an empty cache included. LFU and Belady are simulated on the first 8192 tokens at most.
std::vector<chance::Value> Cache::simulate(int experts, int k, std::int64_t all) const {
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

std::vector<Cache::HitRates> Cache::by_lot(Memo& memo, std::size_t l) const {
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

void Cache::report(Report& r) const {
  Memo memo;
  std::int64_t tokens = 0;
  std::int64_t most_experts = 0;
  std::vector<std::size_t> used;  // layers with requests
  std::vector<std::vector<HitRates>> lot(layer_.size());
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    if (layer_[l].recency.requests() == 0)
      continue;
    used.push_back(l);
    lot[l] = by_lot(memo, l);
    tokens = std::max(tokens, layer_[l].tokens);
    most_experts = std::max<std::int64_t>(most_experts, shape_.experts[l]);
  }
  if (used.empty() || sizes_.empty())
    return;
  const Values values = hit_rates(used, lot);
  table(r, values, tokens);
  const std::size_t i = sizes_.size() / 2;
  const Values::Rows& lru = values.at("cache_hit_rate_lru");
  r.findings.push_back(
      concat("A cache of ", sizes_[i], " of ", most_experts, " experts a layer would catch ",
             percent(lru.value[i]),
             " of the requests with LRU (random routing: ", percent(lru.chance.value[i]), "), ",
             percent(values.at("cache_hits_belady").value[i]), " at best."));
}

// A row a size, each a mean over the layers that have requests.
Values Cache::hit_rates(const std::vector<std::size_t>& used,
                        const std::vector<std::vector<HitRates>>& lot) const {
  Values values;
  for (std::size_t i = 0; i < sizes_.size(); ++i) {
    const auto add = [&](const char* id, auto hits, chance::Value HitRates::*by_chance) {
      double sum = 0;
      std::vector<chance::Value> random;
      for (const std::size_t l : used) {
        sum += double(hits(layer_[l])) / double(layer_[l].recency.requests());
        random.push_back(lot[l][i].*by_chance);
      }
      values[id].add(sum / double(used.size()), chance::mean_of_independent(random));
    };
    const int size = sizes_[i];
    add(
        "cache_hit_rate_lru", [&](const Simulation& s) { return s.recency.lru_hits(size); },
        &HitRates::lru);
    add(
        "cache_hits_lfu", [&](const Simulation& s) { return s.lfu[i].hits(); }, &HitRates::lfu);
    add(
        "cache_hits_belady", [&](const Simulation& s) { return s.recency.belady_hits(i); },
        &HitRates::belady);
    add(
        "cache_hits_static", [&](const Simulation& s) { return s.static_hits(size); },
        &HitRates::fixed);
  }
  return values;
}

void Cache::table(Report& r, const Values& values, std::int64_t tokens) const {
  TableBuilder t("cache", "What a cache of experts would catch", section::deployment);
  t.reading(concat(
      "Share of requests that find their expert in a cache of so many experts a layer, mean over "
      "layers, one token after the other, over ",
      tokens,
      " tokens from the start of the trace. Belady is the best that any policy could do with "
      "the future known; static holds the most used of these very tokens. Chance values: "
      "tokens that draw their experts by lot."));
  t.key("experts held", "cache size, experts a layer",
        std::vector<std::int64_t>(sizes_.begin(), sizes_.end()));
  t.column("LRU")
      .unit("share")
      .meaning("evicts the one not requested for longest")
      .of("cache_hit_rate_lru", values);
  t.column("LFU")
      .unit("share")
      .meaning("evicts the one least requested so far: cache_hits_lfu over cache_accesses")
      .of("cache_hits_lfu", values);
  t.column("Belady")
      .unit("share")
      .meaning(
          "evicts the one requested latest in the future: cache_hits_belady over cache_accesses")
      .of("cache_hits_belady", values);
  t.column("static")
      .unit("share")
      .meaning("holds the most used and never changes: cache_hits_static over cache_accesses")
      .of("cache_hits_static", values);
  t.into(r);
}

}  // namespace

std::unique_ptr<Metric> make_cache_metric(Spec& spec, const TraceSource& trace,
                                          const AnalyzeOptions&) {
  return std::make_unique<Cache>(spec, trace);
}

}  // namespace moe
