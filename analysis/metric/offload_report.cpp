// What offload.h measures, as tables and findings.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/metric/finding.h"
#include "analysis/metric/offload.h"

namespace moe {
namespace {

constexpr double worth = 0.02;  // of what is waited for or read

// Of random routing: misses and experts fetched of each way to keep, a token and layer.
struct ByChance {
  std::array<std::vector<double>, keepings> misses, fetched;
};

// A layer behind another one of the same shape, both routed at random, learned from and judged.
void simulate(const OffloadShape& shape, int k, std::int64_t tokens, Rng rng, ByChance& out) {
  OffloadLayer layer(shape);
  std::vector<int> deck(std::size_t(shape.experts));
  std::vector<int> deck_before(std::size_t(shape.before));
  std::iota(deck.begin(), deck.end(), 0);
  std::iota(deck_before.begin(), deck_before.end(), 0);
  std::vector<int> experts(std::size_t(k), 0);
  std::vector<int> before(std::size_t(std::min(k, shape.before)), 0);
  for (const bool learning : {true, false}) {
    std::vector<int> last;
    for (std::int64_t t = 0; t < tokens; ++t) {
      chance::draw_experts(deck, experts, rng);
      if (!before.empty())
        chance::draw_experts(deck_before, before, rng);
      const OffloadToken token{std::uint32_t(rng.below(1024)), before, last, experts};
      learning ? layer.learn(token) : layer.judge(token);
      last = experts;
    }
    if (learning)
      layer.learned();
  }
  for (std::size_t i = 0; i < keepings; ++i) {
    const auto mean = [&](const std::vector<std::uint16_t>& of) {
      return std::accumulate(of.begin(), of.end(), 0.0) / double(of.size());
    };
    out.misses[i].push_back(mean(layer.misses(Keeping(i))));
    out.fetched[i].push_back(mean(layer.fetched(Keeping(i))));
  }
}

}  // namespace

std::vector<std::size_t> OffloadMetric::judged_layers() const {
  std::vector<std::size_t> out;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    if (layer_[l].tokens() > 0)
      out.push_back(l);
  }
  return out;
}

// Misses of each way to keep, then experts fetched, of one layer; simulated on at most 4096 tokens,
// the empty start included.
std::vector<chance::Value> OffloadMetric::by_chance(std::size_t l) const {
  const OffloadLayer& layer = layer_[l];
  const OffloadShape& shape = layer.shape();
  const int k = whole_choices(double(layer.choices()) / double(layer.tokens()), shape.experts);
  const std::int64_t tokens = std::min<std::int64_t>(layer.tokens(), 4096);
  const std::vector<double> key{double(shape.experts), double(shape.before), double(k),
                                double(tokens)};
  return store().memo.get(key, [&] {
    ByChance drawn;
    for (int run = 0; run < 8; ++run)
      simulate(shape, k, tokens, Rng(chance::seed, std::uint64_t(run)), drawn);
    std::vector<chance::Value> out;
    for (const auto* of : {&drawn.misses, &drawn.fetched}) {
      for (const auto& runs : *of)
        out.push_back({chance::of_runs(runs).mean});
    }
    return out;
  });
}

OffloadMetric::ChanceColumns OffloadMetric::chance_columns(
    const std::vector<std::size_t>& used) const {
  ChanceColumns out{std::vector<double>(keepings), std::vector<double>(keepings),
                    std::vector<double>(keepings)};
  for (const std::size_t l : used) {
    const auto lot = by_chance(l);
    for (std::size_t k = 0; k < keepings; ++k) {
      out.misses[k] += lot[k].mean;
      out.fetched[k] += lot[keepings + k].mean;
      out.bytes[k] += lot[keepings + k].mean * expert_bytes(l);
    }
  }
  return out;
}

std::string OffloadMetric::reading(const OffloadLayer& layer) const {
  return concat(
      "Each layer holds ", layer.shape().cache,
      " experts; a token's others are fetched, one token after the other. Judged on every second "
      "sequence of each domain (",
      layer.tokens(),
      " tokens), learned from the others: the most used experts, and what a predictor fetches "
      "ahead "
      "(",
      layer.shape().ahead,
      " experts a layer). Misses are waited for; fetched are misses and what was fetched ahead. "
      "Belady knows the future. p50 and p99: half and 99 of a hundred tokens have no more. Chance: "
      "experts drawn at random.");
}

void OffloadMetric::report_caches(Report& r, const std::vector<std::size_t>& used) const {
  std::vector<MetricValue> given;
  give_caches(given);
  const Values all(std::move(given));
  const ChanceColumns lot = chance_columns(used);
  TableBuilder t("offload", "What running with few experts in memory would wait for",
                 section::deployment);
  t.reading(reading(layer_[used[0]]));
  t.key("kept", "what a layer holds",
        std::vector<std::string>(keeping_names, keeping_names + keepings));
  const auto column = [&](const char* name, const char* unit, const char* meaning, const char* id) {
    return t.column(name).unit(unit).meaning(meaning).of(id).values(all.at(id).value);
  };
  column("misses", "a token", "experts that a token waits for, all layers together, mean",
         "offload_misses")
      .chance(lot.misses);
  column("misses p50", "a token", "of the median token", "offload_misses_p50").digits(0);
  column("misses p99", "a token", "of the 99th of a hundred tokens", "offload_misses_p99")
      .digits(0);
  column("fetched", "a token", "experts fetched, waited for or ahead, mean", "offload_fetched")
      .chance(lot.fetched);
  if (knows_bytes()) {
    const char* const unit = "bytes a token";
    column("bytes", unit, "fetched, mean", "offload_bytes").digits(0).chance(lot.bytes);
    column("bytes p50", unit, "of the median token", "offload_bytes_p50").digits(0);
    column("bytes p99", unit, "of the 99th of a hundred tokens", "offload_bytes_p99").digits(0);
  }
  t.into(r);
}

void OffloadMetric::report_foresight(Report& r, const std::vector<std::size_t>& used) const {
  TableBuilder t("foresight", "What foretells the experts of unseen text", section::deployment);
  t.reading(
      "The share of a token's experts among the first m that are foretold, learned from every "
      "second sequence of each domain and judged on the others: by the token's experts in the "
      "layer "
      "before, by its id, by the experts of the token before it, and the most used. What a "
      "predictor does not know is filled with the most used. Drawing m experts at random finds "
      "m/E.");
  std::vector<std::int64_t> numbers;
  for (const std::size_t l : used)
    numbers.push_back(shape_.number[l]);
  t.layers(numbers);
  constexpr const char* ids[] = {"prefetch_recall_previous_layer", "prefetch_recall_token_id",
                                 "prefetch_recall_last_token", "prefetch_recall_most_used"};
  for (std::size_t f = 0; f < foresights; ++f) {
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
      Values::Rows rows;
      for (const std::size_t l : used) {
        rows.add(layer_[l].recall(Foresight(f), i),
                 std::min(1.0, double(sizes_[i]) / shape_.experts[l]));
      }
      t.column(concat(foresight_names[f], " ", sizes_[i]))
          .unit("share")
          .meaning("of a token's experts among the first so many foretold")
          .of(ids[f])
          .rows(rows);
    }
  }
  t.into(r);
}

void OffloadMetric::report_reads(Report& r, const std::vector<std::size_t>& used) const {
  Values v;
  std::vector<std::int64_t> numbers;
  for (const std::size_t l : used) {
    const OffloadLayer& layer = layer_[l];
    const double k = double(layer.choices()) / double(layer.tokens());
    const double experts = shape_.experts[l];
    const double lot = k * (experts - k + 1) / experts;
    numbers.push_back(shape_.number[l]);
    v["disk_reads_in_order"].add(layer.reads_in_order(), lot);
    v["disk_reads"].add(layer.reads(), lot);
  }
  TableBuilder t("reads", "What an order of the experts on disk would save", section::deployment);
  t.reading(
      "Neighbours on disk are read at once. The order is learned from every second sequence of "
      "each "
      "domain, experts that are often chosen together side by side, and judged on the others. "
      "Experts at random need K (E-K+1)/E reads in any order.");
  t.layers(numbers);
  t.column("in order")
      .unit("reads a token")
      .meaning("runs of neighbouring ids that hold a token's experts")
      .of("disk_reads_in_order", v);
  t.column("planned")
      .unit("reads a token")
      .meaning("the same in the learned order (disk_order of --values)")
      .of("disk_reads", v);
  t.into(r);
}

namespace {

// What LRU waits for, and whether fetching ahead is worth what it fetches.
void tell_caches(Report& r, int cache) {
  const QuotedTable t(r, "offload");
  const auto misses = t.numbers("misses");
  const auto row = [](Keeping k) {
    return std::size_t(k);
  };
  const std::size_t lru = row(Keeping::lru);
  std::size_t best = row(Keeping::lru_previous_layer);
  for (const Keeping k : {Keeping::lru_token_id, Keeping::lru_last_token}) {
    if (misses[row(k)] < misses[best])
      best = row(k);
  }
  const bool worth_it = misses[best] < (1 - worth) * misses[lru];
  tell(r, "With ", cache, " experts of a layer in memory, a token would wait for ",
       t.cell("misses", lru).figure(), " experts under LRU (99 of a hundred for ",
       t.cell("misses p99", lru).figure(0), " at most), for ",
       t.cell("misses", row(Keeping::belady)).figure(),
       " under Belady, which knows the future. Fetching ahead by ",
       std::string(keeping_names[best]).substr(6), " leaves ", t.cell("misses", best).figure(),
       " to wait for and fetches ", t.cell("fetched", best).figure(), " instead of ",
       t.cell("fetched", lru).figure(), worth_it ? "." : ": it is not worth it.");
}

void tell_reads(Report& r) {
  const QuotedTable t(r, "reads");
  double saved = 0;
  for (std::size_t i = 0; i < t.rows(); ++i)
    saved += (1 - t.numbers("planned")[i] / t.numbers("in order")[i]) / double(t.rows());
  tell(r, derived(concat("An order on disk by what is chosen together would save ", percent(saved),
                         " of the reads on unseen text, mean over layers",
                         saved < worth ? ": it is not worth it." : "."),
                  {t.basis("in order"), t.basis("planned")}));
}

}  // namespace

void OffloadMetric::report(Report& r) const {
  const std::vector<std::size_t> used = judged_layers();
  if (used.empty()) {
    r.warnings.push_back(
        "predictors are learned from every second sequence and judged on the others: there are too "
        "few tokens for that");
    return;
  }
  report_caches(r, used);
  report_foresight(r, used);
  report_reads(r, used);
  tell_caches(r, layer_[used[0]].shape().cache);
  tell_reads(r);
  if (!last_[used[0]].ids) {
    r.warnings.push_back(
        "token ids are not in the trace: what is foretold by them is the most used");
  }
}

}  // namespace moe
