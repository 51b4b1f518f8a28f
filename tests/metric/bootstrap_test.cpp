// Intervals: that they are those of the figures in the tables, that they cover what they should,
// and that seeds and windows change nothing.
#include "analysis/metric/bootstrap.h"

#include <catch2/catch.hpp>
#include <set>

#include "tests/metric/traces.h"

using namespace moe;

namespace {

std::vector<Replicated> replicas(const TraceSource& t, int n, std::uint64_t window = 16384) {
  std::vector<Replicated> out;
  AnalyzeOptions o;
  o.bootstrap = n;
  o.replicas = &out;
  o.window = window;
  measure(t, {"load"}, o);
  return out;
}

const Replicated& at(const std::vector<Replicated>& all, const std::string& id, Index layer) {
  for (const Replicated& r : all) {
    if (r.id == id && r.layer == layer)
      return r;
  }
  throw std::runtime_error("no " + id);
}

}  // namespace

TEST_CASE(
    "the weights of a sequence are Poisson(1), the first replica weighs one, and any sequence can "
    "be drawn alone") {
  double sum = 0;
  double square = 0;
  double none = 0;
  double n = 0;
  std::vector<std::uint32_t> w(401);
  std::vector<std::uint32_t> again(101);
  for (std::uint64_t q = 0; q < 200; ++q) {
    poisson_weights(3, q, w);
    poisson_weights(3, q, again);
    CHECK(w[0] == 1);
    CHECK(std::equal(again.begin(), again.end(), w.begin()));
    for (std::size_t r = 1; r < w.size(); ++r) {
      sum += w[r];
      square += double(w[r]) * w[r];
      none += w[r] == 0;
      n += 1;
    }
  }
  CHECK(sum / n == Approx(1).margin(0.015));
  CHECK(square / n - 1 == Approx(1).margin(0.03));
  CHECK(none / n == Approx(std::exp(-1)).margin(0.008));
}

TEST_CASE(
    "replica 0 is the figure of the metric, whatever the window, and the tables get low and high "
    "around it") {
  const MemoryTrace t = make_trace({.tokens = 4096, .layers = 2});
  const auto all = replicas(t, 60);
  const auto small = replicas(t, 60, 37);
  REQUIRE(all.size() == small.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t r = 0; r < all[i].values.size(); ++r)
      CHECK(all[i].values[r] == Approx(small[i].values[r]).epsilon(1e-12));
  }
  for (const MetricValue& m : measure(t, {"load", "repeats", "ranks", "domains", "router"})) {
    for (const Replicated& r : all) {
      if (r.id == m.id)
        CHECK(r.values[0] == Approx(m.values[std::size_t(r.layer)]).margin(1e-9));
    }
  }
  AnalyzeOptions o;
  o.bootstrap = 60;
  o.sample_tokens = 0;
  std::set<std::string> with;
  for (const Table& table : analyze(t, {}, o).tables) {
    for (const Column& c : table.columns) {
      for (std::size_t r = 0; r < c.low.size(); ++r) {
        const double v = std::get<std::vector<double>>(c.cells)[r];
        CHECK(c.low[r] <= v);
        CHECK(c.high[r] >= v);
        with.insert(c.metric);
      }
    }
  }
  for (const char* id : {"load_cv", "load_maxvio_global", "load_dead_fraction",
                         "capacity_drop_rate", "router_entropy_norm", "domain_expert_mi_bits",
                         "repeat_first", "a2a_dedup_factor", "ep_balancedness"}) {
    INFO(id);
    CHECK(with.count(id) == 1);
  }
}

TEST_CASE("intervals hold what the same process gives on average, about 95 times of 100") {
  // Zipf-like loads: expert e is drawn for whole sequences, so that sequences and not tokens are
  // what varies.
  const int traces = 60;
  const int sequences = 64;
  const int length = 32;
  const int experts = 8;
  double inside = 0;
  double expected = 0;
  std::vector<std::vector<Replicated>> all;
  for (int i = 0; i < traces; ++i) {
    Make m{.tokens = sequences * length, .layers = 1, .experts = experts, .k = 1, .extras = false};
    const MemoryTrace base = make_trace(m);
    TraceRows rows = base.read(0, base.tokens(), base.fields());
    Rng rng(1000 + std::uint64_t(i));
    for (int q = 0; q < sequences; ++q) {
      const double u = rng.uniform();
      const int e = int(u * u * experts);
      for (int t = 0; t < length; ++t)
        rows.layer[0].expert(q * length + t, 0) = rng.uniform() < 0.5 ? e : int(rng.below(experts));
    }
    all.push_back(replicas(MemoryTrace(base.header(), base.sequences(), base.steps(), rows), 100));
    expected += at(all.back(), "load_cv", 0).values[0] / traces;
  }
  for (const auto& one : all) {
    const Replicated& r = at(one, "load_cv", 0);
    const Interval i = interval_of(r.values, r.values[0], r.least, r.most);
    inside += i.low <= expected && expected <= i.high;
  }
  CHECK(inside / traces >= 0.88);
  CHECK(inside / traces <= 1.0);
}

TEST_CASE("few sequences and no replicas give no interval") {
  CHECK(replicas(make_trace({.tokens = 128}), 60).empty());  // 4 sequences
  std::vector<double> v{50};
  for (int i = 0; i <= 100; ++i)
    v.push_back(i);
  CHECK(interval_of(v, 50, 0, 1e9).low == Approx(2.5));
  CHECK(interval_of(v, 50, 0, 1e9).high == Approx(97.5));
  CHECK(interval_of(v, 30, 0, 70).low == 0);
  CHECK(interval_of(v, 30, 0, 70).high == 70);
  CHECK(std::isnan(interval_of(std::span(v).first(15), 50, 0, 1e9).low));
}
