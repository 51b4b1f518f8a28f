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

std::string text_of(const std::vector<int>& list) {
  std::string out;
  for (const int v : list)
    out += (out.empty() ? "" : ",") + std::to_string(v);
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

class Cache final : public Metric {
 public:
  Cache(Spec& spec, const TraceSource& trace)
      : shape_(trace),
        sizes_(whole_list_of(spec, "cache_sizes", text_of(usual_sizes(shape_)).c_str(), 1)),
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
  // Hit rates of LRU, LFU, Belady and static at each size when experts are drawn by lot, the start
  // with an empty cache included. LFU and Belady are simulated on the first 8192 tokens at most.
  const std::vector<chance::Value>& random(Memo& memo, std::size_t l) const {
    const int experts = shape_.experts[l];
    const int k =
        whole_choices(double(layer_[l].recency.requests()) / double(layer_[l].tokens), experts);
    const std::int64_t all = layer_[l].tokens;
    const std::int64_t tokens = std::min<std::int64_t>(all, 8192);
    return memo.get({double(experts), double(k), double(all)}, [&] {
      const int runs = int(std::clamp<std::int64_t>(262144 / (tokens * k), 4, 200));
      std::vector<std::vector<double>> lru(sizes_.size());
      std::vector<std::vector<double>> lfu = lru;
      std::vector<std::vector<double>> belady = lru;
      for (int run = 0; run < runs; ++run) {
        Simulation s(experts, sizes_);
        Rng rng(chance::seed, std::uint64_t(run));
        std::vector<int> deck(static_cast<std::size_t>(experts)), one(static_cast<std::size_t>(k));
        std::iota(deck.begin(), deck.end(), 0);
        std::vector<double> lost(sizes_.size(), 0);
        std::vector<char> seen(deck.size(), 0);
        int met = 0;
        for (std::int64_t t = 0; t < tokens; ++t) {
          chance::draw_experts(deck, one, rng);
          for (int j = 0; j < k; ++j) {
            const auto e = std::size_t(one[std::size_t(j)]);
            for (std::size_t i = 0; i < sizes_.size(); ++i)
              lost[i] += cold(met, j, sizes_[i], experts);
            s.request(int(e));
            met += !std::exchange(seen[e], 1);
          }
        }
        const double n = double(s.recency.requests());
        for (std::size_t i = 0; i < sizes_.size(); ++i) {
          lru[i].push_back(chance::lru_hit_rate(experts, k, sizes_[i]) -
                           lost[i] / (double(all) * k));
          lfu[i].push_back(double(s.lfu[i].hits()) / n);
          belady[i].push_back(double(s.recency.belady_hits(i)) / n);
        }
      }
      const double requests = double(all) * k;
      const double shorter = std::sqrt(double(tokens) / double(all));
      std::vector<chance::Value> out;
      for (std::size_t i = 0; i < sizes_.size(); ++i) {
        const double rate = chance::of_runs(lru[i]).mean;
        out.push_back({rate, std::sqrt(rate * (1 - rate) / requests)});
        for (const auto* hits : {&lfu[i], &belady[i]}) {
          out.push_back({chance::of_runs(*hits).mean,
                         runs < 16 ? out[4 * i].spread : chance::of_runs(*hits).spread * shorter});
        }
        out.push_back(fixed(experts, k, all, sizes_[i]));
      }
      return out;
    });
  }
  // What an LRU cache that has met only so many experts misses, beyond a warm one, at a token's
  // j-th request: share of requests.
  static double cold(int met, int j, int size, int experts) {
    const double full = std::min(size, experts);
    return (std::max(0.0, full - j) - std::max(0.0, std::min<double>(full, double(met)) - j)) /
           (experts - j);
  }
  static chance::Value fixed(int experts, int k, std::int64_t tokens, int size) {
    return chance::simulate_load(experts, k, tokens, 1, [size](auto counts) {
      return std::vector<double>{load_topn_coverage(counts, size)};
    })[0];
  }

  Shape shape_;
  std::vector<int> sizes_;
  std::int64_t most_;
  std::vector<Simulation> layer_;
};

void Cache::report(Report& r) const {
  std::vector<std::int64_t> size;
  std::vector<double> v[4];  // lru, lfu, belady, static
  Nulls null[4];
  std::int64_t tokens = 0;
  std::int64_t whole = 0;
  Memo memo;
  for (std::size_t i = 0; i < sizes_.size(); ++i) {
    double sum[4] = {};
    double layers = 0;
    std::vector<chance::Value> lots[4];
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const Simulation& s = layer_[l];
      const double n = double(s.recency.requests());
      if (n == 0)
        continue;
      layers += 1;
      tokens = std::max(tokens, s.tokens);
      whole = std::max<std::int64_t>(whole, shape_.experts[l]);
      const double hits[] = {double(s.recency.lru_hits(sizes_[i])), double(s.lfu[i].hits()),
                             double(s.recency.belady_hits(i)), double(s.static_hits(sizes_[i]))};
      const auto& lot = random(memo, l);
      for (std::size_t c = 0; c < 4; ++c) {
        sum[c] += hits[c] / n;
        lots[c].push_back(lot[4 * i + c]);
      }
    }
    if (layers == 0)
      return;
    size.push_back(sizes_[i]);
    for (int c = 0; c < 4; ++c) {
      v[c].push_back(sum[c] / layers);
      null[c].add(chance::mean_of_independent(lots[c]));
    }
  }
  r.tables.push_back(
      {"cache",
       "What a cache of experts would catch",
       "Share of requests that find their expert in a cache of so many experts a layer, mean over "
       "layers, one token after the other, over " +
           std::to_string(tokens) +
           " tokens from the start of the trace. Belady is the best that any policy could do with "
           "the future known; static holds the most used of these very tokens. Chance values: "
           "tokens that draw their experts by lot.",
       Chart::none,
       {column({"experts held", "", "cache size, experts a layer", ""}, size),
        column({"LRU", "share", "evicts the one not requested for longest", "cache_hit_rate_lru"},
               v[0], null[0]),
        column({"LFU", "share",
                "evicts the one least requested so far: cache_hits_lfu over cache_accesses",
                "cache_hits_lfu"},
               v[1], null[1]),
        column(
            {"Belady", "share",
             "evicts the one requested latest in the future: cache_hits_belady over cache_accesses",
             "cache_hits_belady"},
            v[2], null[2]),
        column({"static", "share",
                "holds the most used and never changes: cache_hits_static over cache_accesses",
                "cache_hits_static"},
               v[3], null[3])},
       section::deployment,
       false,
       {}});
  const std::size_t i = sizes_.size() / 2;
  r.findings.push_back("A cache of " + std::to_string(size[i]) + " of " + std::to_string(whole) +
                       " experts a layer would catch " + percent(v[0][i]) +
                       " of the requests with LRU (random routing: " + percent(null[0].value[i]) +
                       "), " + percent(v[2][i]) + " at best.");
}

}  // namespace

std::unique_ptr<Metric> make_cache_metric(Spec& spec, const TraceSource& trace,
                                          const AnalyzeOptions&) {
  return std::make_unique<Cache>(spec, trace);
}

}  // namespace moe
