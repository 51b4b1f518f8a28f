// One pass over a trace.
#include "lib/plan/trace_law.h"

#include <algorithm>
#include <deque>
#include <list>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"
#include "lib/serving/cache_policies.h"
#include "lib/trace/reader.h"

namespace moe::plan {
namespace {

constexpr std::uint64_t window = 8192;

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& what,
                         const std::string& hint) {
  throw Error(Exit::input, concat(path.string(), ": ", what)).hint(hint);
}

void check_layers(const std::filesystem::path& path, const TraceHeader& h, Count experts, Count k) {
  for (const TraceLayer& l : h.layers) {
    if (experts > 0 && (l.experts != experts || (k > 0 && l.top_k > 0 && l.top_k != k))) {
      refuse(path,
             concat("its layer ", l.index, " has ", l.experts, " experts, ", l.top_k,
                    " a token, and the model has ", experts, ", ", k, " a token"),
             "a trace of this model, or --routing zipf:s=1");
    }
  }
}

// The experts of a token, without the holes behind them.
template <class Body>
void each_choice(const LayerRows& rows, std::size_t t, Body&& body) {
  for (Index c = 0; c < rows.expert.cols(); ++c) {
    if (const int e = rows.expert(Index(t), c); e >= 0)
      body(e);
  }
}

TraceFields choices_alone() {
  TraceFields f;
  f.weights = f.dropped = f.entropy = f.margin = f.logsumexp = false;
  return f;
}

void count_choices(const TraceRows& rows, std::size_t layer, std::vector<double>& counts) {
  for (std::size_t t = 0; t < rows.tokens(); ++t) {
    if (rows.valid(t))
      each_choice(rows.layer[layer], t, [&](int e) { counts[std::size_t(e)] += 1; });
  }
}

// LRU of a given size, a request in constant time.
class Lru {
 public:
  Lru(int experts, Count size) : size_(std::size_t(size)), at_(std::size_t(experts), held_.end()) {}
  bool request(int expert) {
    auto& at = at_[std::size_t(expert)];
    const bool hit = at != held_.end();
    if (hit)
      held_.erase(at);
    held_.push_front(expert);
    at = held_.begin();
    if (held_.size() > size_) {
      at_[std::size_t(held_.back())] = held_.end();
      held_.pop_back();
    }
    return hit;
  }

 private:
  std::size_t size_;
  std::list<int> held_;
  std::vector<std::list<int>::iterator> at_;
};

struct LayerCache {
  LayerCache(int experts, Count held)
      : recency(experts, {int(held)}), lfu(experts, int(held)), lru(experts, held) {}
  RecencyStack recency;
  LfuCache lfu;
  Lru lru;
  std::vector<std::uint16_t> missed;  // (T) of each token
};

double quantile(std::vector<double>& v, double q) {
  if (v.empty())
    return 0;
  const auto at = std::size_t(q * double(v.size() - 1));
  std::ranges::nth_element(v, v.begin() + std::ptrdiff_t(at));
  return v[at];
}

double share(std::int64_t hits, const LayerCache& c) {
  return double(hits) / double(std::max<std::int64_t>(1, c.recency.requests()));
}

double most_used(const LayerCache& c, Count held) {
  auto counts = c.recency.counts();
  std::ranges::sort(counts, std::greater<>());
  std::int64_t hits = 0;
  for (std::size_t i = 0; i < std::min(counts.size(), std::size_t(held)); ++i)
    hits += counts[i];
  return share(hits, c);
}

CacheReplay sums(const std::deque<LayerCache>& layers, Count held, std::uint64_t tokens) {
  CacheReplay out{.tokens = tokens};
  const double n = double(layers.size());
  std::vector<double> missed(tokens, 0.0);
  for (const LayerCache& c : layers) {
    out.lru += share(c.recency.lru_hits(int(held)), c) / n;
    out.lfu += share(c.lfu.hits(), c) / n;
    out.belady += share(c.recency.belady_hits(0), c) / n;
    out.most_used += most_used(c, held) / n;
    for (std::size_t t = 0; t < c.missed.size(); ++t)
      missed[t] += c.missed[t];
  }
  for (const double m : missed)
    out.missed += m / double(std::max<std::uint64_t>(1, tokens));
  out.missed_p50 = quantile(missed, 0.5);
  out.missed_p99 = quantile(missed, 0.99);
  return out;
}

}  // namespace

ChoiceLaw law_of_trace(const std::filesystem::path& path, Count experts, Count k) {
  const TraceReader trace(path);
  const TraceHeader& h = trace.header();
  check_layers(path, h, experts, k);
  if (trace.tokens() == 0 || h.layers.empty())
    refuse(path, "this trace holds no tokens to count", "moe show says what it holds");
  ChoiceLaw law{.name = path.string(), .experts = h.layers[0].experts, .k = h.layers[0].top_k};
  for (const TraceLayer& l : h.layers)
    law.layer.emplace_back(std::size_t(l.experts), 0.0);
  std::uint64_t counted = 0;
  for (std::uint64_t at = 0; at < trace.tokens(); at += window) {
    const TraceRows rows = trace.read(at, std::min(window, trace.tokens() - at), choices_alone());
    for (std::size_t t = 0; t < rows.tokens(); ++t)
      counted += rows.valid(t);
    parallel_for(Index(law.layer.size()), 1, [&](Index first, Index last) {
      for (Index l = first; l < last; ++l)
        count_choices(rows, std::size_t(l), law.layer[std::size_t(l)]);
    });
  }
  for (auto& p : law.layer) {
    for (double& x : p)
      x /= double(std::max<std::uint64_t>(1, counted));
  }
  return law;
}

CacheReplay replay_cache(const std::filesystem::path& path, Count held, std::uint64_t most_tokens) {
  const TraceReader trace(path);
  std::deque<LayerCache> layers;  // never moved: LRU points into itself
  for (const TraceLayer& l : trace.header().layers)
    layers.emplace_back(l.experts, std::min<Count>(held, l.experts));
  const std::uint64_t tokens = std::min(most_tokens, trace.tokens());
  std::uint64_t seen = 0;
  for (std::uint64_t at = 0; at < tokens; at += window) {
    const TraceRows rows = trace.read(at, std::min(window, tokens - at), choices_alone());
    for (std::size_t t = 0; t < rows.tokens(); ++t)
      seen += rows.valid(t);
    parallel_for(Index(layers.size()), 1, [&](Index first, Index last) {
      for (Index l = first; l < last; ++l) {
        LayerCache& c = layers[std::size_t(l)];
        for (std::size_t t = 0; t < rows.tokens(); ++t) {
          if (!rows.valid(t))
            continue;
          std::uint16_t missed = 0;
          each_choice(rows.layer[std::size_t(l)], t, [&](int e) {
            c.recency.request(e);
            c.lfu.request(e);
            missed += !c.lru.request(e);
          });
          c.missed.push_back(missed);
        }
      }
    });
  }
  return sums(layers, held, seen);
}

}  // namespace moe::plan
