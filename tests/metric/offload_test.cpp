// Running with few experts in memory: caches beside those of the metric `cache`, predictors that
// are judged on text that they have not seen, and orders on disk.
#include <catch2/catch.hpp>

#include <cmath>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/offload.h"
#include "lib/core/error.h"
#include "tests/metric/rows.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

OffloadShape shape_of(int experts, int cache, int ahead) {
  return {.experts = experts, .before = experts, .cache = cache, .ahead = ahead, .sizes = {1, 2}};
}

double mean(const std::vector<std::uint16_t>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / double(v.size());
}

double figure_of(const std::vector<MetricValue>& all, const std::string& id, std::size_t at = 0) {
  for (const MetricValue& v : all) {
    if (v.id == id)
      return v.values.at(at);
  }
  throw std::runtime_error("no " + id);
}

const Table& table(const Report& r, const std::string& id) {
  for (const Table& t : r.tables) {
    if (t.id == id)
      return t;
  }
  throw std::runtime_error("no table " + id);
}

}  // namespace

TEST_CASE("each predictor finds what it alone can know") {
  // the layer before decides (e + 1), the id of a token decides (id), the last token repeats
  const auto recalls = [](auto experts_of) {
    Rng rng(3);
    OffloadLayer layer(shape_of(8, 2, 1));
    for (const bool learning : {true, false}) {
      std::vector<int> last;
      for (int t = 0; t < 4000; ++t) {
        const std::vector<int> before{int(rng.below(8))};
        const auto id = std::uint32_t(rng.below(8));
        const std::vector<int> experts{experts_of(before[0], int(id), last, rng)};
        const OffloadToken token{id, before, last, experts};
        learning ? layer.learn(token) : layer.judge(token);
        last = experts;
      }
      if (learning)
        layer.learned();
    }
    std::vector<double> out;
    for (std::size_t f = 0; f < foresights; ++f)
      out.push_back(layer.recall(Foresight(f), 0));
    return out;
  };
  using Last = std::vector<int>;
  const auto before = recalls([](int b, int, const Last&, Rng&) { return (b + 1) % 8; });
  CHECK(before[0] == 1);
  CHECK(before[1] == Approx(0.125).margin(0.03));
  const auto id = recalls([](int, int i, const Last&, Rng&) { return i; });
  CHECK(id[1] == 1);
  CHECK(id[0] == Approx(0.125).margin(0.03));
  const auto last = recalls([](int, int, const Last& l, Rng& rng) {
    return l.empty() || rng.uniform() < 0.2 ? int(rng.below(8)) : l[0];
  });
  CHECK(last[2] == Approx(0.8 + 0.2 / 8).margin(0.03));
  CHECK(last[3] == Approx(0.125).margin(0.05));
  const auto used = recalls(
      [](int, int, const Last&, Rng& rng) { return rng.uniform() < 0.7 ? 5 : int(rng.below(8)); });
  CHECK(used[3] == Approx(0.7 + 0.3 / 8).margin(0.03));
}

TEST_CASE("caches of the metric cache miss as often") {
  const MemoryTrace trace =
      make_trace({.tokens = 4096, .layers = 1, .experts = 16, .k = 2, .extras = false});
  Rng rng(1);
  OffloadLayer layer(shape_of(16, 4, 2));
  RecencyStack stack(16, {4});
  LfuCache lfu(16, 4);
  layer.learned();
  std::vector<int> deck(16);
  std::iota(deck.begin(), deck.end(), 0);
  std::vector<int> experts(2);
  for (int t = 0; t < 3000; ++t) {
    chance::draw_experts(deck, experts, rng);
    if (t % 3 == 0)
      experts = {0, 1};
    layer.judge({0, {}, {}, experts});
    for (const int e : experts) {
      stack.request(e);
      lfu.request(e);
    }
  }
  const auto missed = [&](std::int64_t hits) {
    return double(stack.requests() - hits) / 3000;
  };
  CHECK(mean(layer.misses(Keeping::lru)) == Approx(missed(stack.lru_hits(4))));
  CHECK(mean(layer.misses(Keeping::lfu)) == Approx(missed(lfu.hits())));
  CHECK(mean(layer.misses(Keeping::belady)) == Approx(missed(stack.belady_hits(0))));
  CHECK(mean(layer.misses(Keeping::belady)) < mean(layer.misses(Keeping::lru)));
  CHECK(layer.fetched(Keeping::lru) == layer.misses(Keeping::lru));
}

TEST_CASE("what is fetched ahead is not waited for, and is counted") {
  // the layer before tells the expert; the cache holds one
  OffloadLayer layer(shape_of(8, 1, 1));
  for (int t = 0; t < 80; ++t) {
    const std::vector<int> before{t % 8};
    const std::vector<int> experts{(t * 3) % 8};
    layer.learn({0, before, {}, experts});
  }
  layer.learned();
  for (int t = 0; t < 80; ++t) {
    const std::vector<int> before{t % 8};
    const std::vector<int> experts{(t * 3) % 8};
    layer.judge({0, before, {}, experts});
  }
  CHECK(mean(layer.misses(Keeping::lru)) == 1);
  CHECK(mean(layer.misses(Keeping::lru_previous_layer)) == 0);
  CHECK(mean(layer.fetched(Keeping::lru_previous_layer)) == 1);
  // by the last token, which there is none of: the most used, never the one that comes
  CHECK(mean(layer.misses(Keeping::lru_last_token)) > 0.8);
}

TEST_CASE("the order on disk puts together what is chosen together") {
  OffloadLayer layer(shape_of(9, 1, 0));
  Rng rng(2);
  const auto draw_one = [&] {
    const int block = int(rng.below(3));
    const int first = int(rng.below(3));
    return std::vector<int>{first * 3 + block, (first + 1 + int(rng.below(2))) % 3 * 3 + block};
  };
  for (int t = 0; t < 500; ++t)
    layer.learn({0, {}, {}, draw_one()});
  layer.learned();
  for (int t = 0; t < 500; ++t)
    layer.judge({0, {}, {}, draw_one()});
  // two of three neighbours: side by side in two of three draws
  CHECK(layer.reads() == Approx(2 - 2.0 / 3).margin(0.07));
  CHECK(layer.reads_in_order() == 2);
  std::vector<int> order = layer.order();
  std::sort(order.begin(), order.end());
  CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8});
}

TEST_CASE("figures a token are sums over layers, with quantiles") {
  Make m{.tokens = 2048, .layers = 3, .experts = 8, .k = 2, .routing = Make::sticky};
  const auto all = measure(make_trace(m), {"offload:cache=2,expert_bytes=1000"});
  // sequences of 32: 31 of 32 tokens find both in every layer
  CHECK(figure_of(all, "offload_misses") == Approx(3 * 2.0 / 32 * 6 / 8).epsilon(0.3));
  CHECK(figure_of(all, "offload_misses_p50") == 0);
  CHECK(figure_of(all, "offload_misses_p99") >= 3);
  CHECK(figure_of(all, "offload_bytes") == Approx(1000 * figure_of(all, "offload_fetched")));
  CHECK(figure_of(all, "prefetch_recall_last_token") > 0.95);
  const auto without = measure(make_trace(m), {"offload:cache=2"});
  CHECK_THROWS(figure_of(without, "offload_bytes"));
  const Report r = analyze(make_trace(m), {"offload:cache=2"});
  CHECK(table(r, "offload").columns.size() == 5);
  CHECK(table(r, "foresight").columns.size() == 9);
  CHECK(r.findings.size() == 2);
}

TEST_CASE("random routing waits for what the chance column says") {
  std::vector<double> measured(keepings, 0), chance(keepings, 0);
  constexpr int runs = 12;
  for (int run = 0; run < runs; ++run) {
    Rng rng(50, std::uint64_t(run));
    const MemoryTrace trace =
        trace_of(16, 2, 100, [&](int, int) { return draw({.experts = 16, .k = 2}, rng); });
    const Report r = analyze(trace, {"offload:cache=4"});
    const Table& t = table(r, "offload");
    for (const Column& c : t.columns) {
      for (std::size_t k = 0; k < keepings && c.metric == "offload_misses"; ++k) {
        measured[k] += std::get<std::vector<double>>(c.cells)[k] / runs;
        chance[k] += c.chance[k] / runs;
      }
    }
    CHECK_THAT(r.findings[1].text, Catch::Contains("not worth it"));
  }
  for (std::size_t k = 0; k < keepings; ++k) {
    INFO(keeping_names[k]);
    CHECK(measured[k] == Approx(chance[k]).epsilon(0.02));
  }
}

TEST_CASE("what does not fit the memory of a metric is refused") {
  AnalyzeOptions o;
  o.memory = 100'000;
  CHECK_THROWS_WITH(measure(make_trace({.tokens = 4096}), {"offload"}, o),
                    Catch::Contains("more than the 0 MiB that one metric may have"));
}
