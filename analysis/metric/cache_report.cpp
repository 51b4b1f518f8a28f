// What cache.h counts, as tables and findings.
#include "analysis/metric/cache.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/verdict.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// What is to be said first where the figure does not stand out.
Finding opening(const Standing& s, std::int64_t tokens) {
  if (s.shown == Shown::too_few)
    return told(too_few(double(tokens), "what a cache would catch", s.needed), " ");
  return told(s.shown == Shown::no_more ? Priority::chance : Priority::told, "");
}

}  // namespace

void CacheMetric::report(Report& r) const {
  Memo& memo = store().memo;
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
  table(r, hit_rates(used, lot), tokens);
  const std::size_t i = sizes_.size() / 2;
  const QuotedTable t(r, "cache");
  // the experts of a layer are the trace's shape, which stands in the facts
  const Column& lru = t.column("LRU");
  const Standing s = standing(t.numbers("LRU")[i], {lru.chance.at(i), lru.chance_spread.at(i)},
                              {.tokens = double(tokens)});
  tell(r, opening(s, tokens), "A cache of ", t.cell("experts held", i), " of ", most_experts,
       " experts a layer would catch ", t.cell("LRU", i).percent(),
       " of the requests with LRU (random routing: ", t.chance("LRU", i).percent(), "), ",
       t.cell("Belady", i).percent(), " at best.");
}

// A row a size, each a mean over the layers that have requests.
Values CacheMetric::hit_rates(const std::vector<std::size_t>& used,
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

void CacheMetric::table(Report& r, const Values& values, std::int64_t tokens) const {
  TableBuilder t("cache", "What a cache of experts would catch", section::deployment);
  t.reading(concat(
      "Share of requests that find their expert in a cache of so many experts a layer, mean over "
      "layers, one token after the other, over ",
      tokens,
      " tokens from the start of the trace. Belady is the best that any policy could do with "
      "the future known; static holds the most used of these very tokens. Chance values: "
      "tokens that choose their experts at random."));
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

}  // namespace moe
