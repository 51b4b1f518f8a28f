// Two traces over the same tokens: equal, unrelated, of other tokens, and with flips where the
// router was unsure.
#include "analysis/metric/agreement.h"

#include <catch2/catch.hpp>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

const std::vector<double>& of(const std::vector<MetricValue>& all, const std::string& id) {
  for (const MetricValue& v : all) {
    if (v.id == id)
      return v.values;
  }
  throw std::runtime_error("no " + id);
}

TraceRows rows_of(const MemoryTrace& t) {
  return t.read(0, t.tokens(), t.fields());
}
MemoryTrace with(const MemoryTrace& t, TraceRows rows) {
  return MemoryTrace(t.header(), t.sequences(), t.steps(), std::move(rows));
}

}  // namespace

TEST_CASE("a trace agrees with itself wholly, and with unrelated routing as chance says") {
  const MemoryTrace a = make_trace({});
  const auto same = agree(a, a).values();
  for (const double v : of(same, "router_saturation"))
    CHECK(v == 1);
  CHECK(of(same, "flip_rate")[0] == 0);
  CHECK(of(same, "flip_token_rate")[0] == 0);
  TraceRows other = rows_of(a);
  Rng rng(99);
  for (LayerRows& l : other.layer) {
    for (Index t = 0; t < l.expert.rows(); ++t) {
      const auto e = draw({}, rng);
      std::copy(e.begin(), e.end(), l.expert.row(t).begin());
    }
  }
  const Agreement result = agree(with(a, other), a);
  const auto v = result.values();
  for (const double s : of(v, "router_saturation"))
    CHECK(s == Approx(0.25).margin(0.03));
  for (const double s : of(v, "router_saturation_top1"))
    CHECK(s == Approx(0.125).margin(0.03));
  CHECK(of(v, "flip_rate")[0] == Approx(0.75).margin(0.02));
  CHECK(of(v, "flip_layers_mean")[0] == Approx(3 * (1 - 1.0 / 28)).margin(0.05));
  Report r;
  result.report(r);
  for (const Table& t : r.tables) {
    for (const Column& c : t.columns) {
      if (const auto* cells = std::get_if<std::vector<double>>(&c.cells)) {
        for (std::size_t i = 0; i < c.chance.size(); ++i) {
          if (!std::isnan((*cells)[i]))
            CHECK((*cells)[i] == Approx(c.chance[i]).margin(0.03));
        }
      }
    }
  }
  CHECK(r.tables.size() == 3);
  CHECK(r.findings.size() == 1);
}

TEST_CASE("flips are told by margin, and by the first k choices, whatever the window and threads") {
  const MemoryTrace b = make_trace({.layers = 2});
  TraceRows rows = rows_of(b);
  TraceRows changed = rows;
  for (LayerRows& l : rows.layer) {
    for (std::size_t t = 0; t < l.margin.size(); ++t)
      l.margin[t] = t % 4 ? 0.5f : 0.002f;
  }
  for (LayerRows& l : changed.layer)
  // another second choice where the margin is small
  {
    for (Index t = 0; t < l.expert.rows(); t += 4) {
      int e = 0;
      while (e == l.expert(t, 0) || e == l.expert(t, 1))
        ++e;
      l.expert(t, 1) = e;
    }
  }
  const MemoryTrace reference = with(b, rows);
  const MemoryTrace checkpoint = with(b, changed);
  const auto v = agree(checkpoint, reference).values();
  CHECK(of(v, "router_saturation")[0] == 0.875);
  CHECK(of(v, "router_saturation_by_k") == std::vector<double>{1, 0.875, 1, 0.875});
  CHECK(of(v, "flip_token_rate")[0] == 0.25);
  const auto& by = of(v, "flip_rate_by_margin");
  REQUIRE(by.size() == 14);
  CHECK(std::isnan(by[0]));
  CHECK(by[1] == 0.5);
  CHECK(by[6] == 0);
  const auto& by_expert = of(v, "flip_rate_by_expert");
  REQUIRE(by_expert.size() == 16);
  for (int e = 0; e < 8; ++e) {
    double chosen = 0;
    double lost = 0;
    for (Index t = 0; t < rows.layer[1].expert.rows(); ++t) {
      const auto ids = rows.layer[1].expert.row(t);
      chosen += ids[0] == e || ids[1] == e;
      lost += t % 4 == 0 && ids[1] == e;
    }
    CHECK(by_expert[std::size_t(8 + e)] == lost / chosen);
  }
  const int before = threads();
  set_threads(3);
  AgreeOptions o;
  o.window = 13;
  const auto small = agree(checkpoint, reference, o).values();
  set_threads(before);
  for (std::size_t i = 0; i < v.size(); ++i) {
    for (std::size_t j = 0; j < v[i].values.size(); ++j)
      CHECK((small[i].values[j] == v[i].values[j] || std::isnan(v[i].values[j])));
  }
}

TEST_CASE("traces that cannot be compared are refused in a sentence, empty ones are not") {
  const MemoryTrace a = make_trace({});
  const MemoryTrace shorter = make_trace({.tokens = 64});
  const MemoryTrace wider = make_trace({.experts = 16});
  const MemoryTrace deeper = make_trace({.layers = 4});
  CHECK(incomparable(a, shorter) == "one trace has 2048 tokens, the other 64");
  CHECK(incomparable(a, deeper) == "one trace has 3 MoE layers, the other 4");
  CHECK(incomparable(a, wider).find("has 8 experts") != std::string::npos);
  CHECK_THROWS_AS(agree(a, shorter), Error);
  TraceRows rows = rows_of(a);
  rows.token_id[17] ^= 1;
  CHECK_THROWS_WITH(agree(with(a, rows), a), Catch::Contains("row 17"));
  const MemoryTrace none = make_trace({.tokens = 0});
  const MemoryTrace one = make_trace({.tokens = 1, .experts = 1, .k = 1, .extras = false});
  Report r;
  agree(none, none).report(r);
  CHECK(r.warnings.size() == 1);
  agree(one, one).report(r);
  CHECK(r.tables.size() == 2);
}
