// Lights, conventions and comparisons on traces whose answers are known.
#include "analysis/compare/compare.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "analysis/compare/conventions.h"
#include "analysis/compare/lights.h"
#include "analysis/metric/definitions.h"
#include "lib/core/error.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

Report of(const MemoryTrace& t) {
  AnalyzeOptions o;
  o.sample_tokens = 0;
  o.bootstrap = 40;
  return analyze(t, {"load", "drops", "ranks"}, o);
}

const Table& table(const Report& r, const std::string& id) {
  for (const Table& t : r.tables) {
    if (t.id == id)
      return t;
  }
  throw std::runtime_error("no table " + id);
}

const std::vector<double>& numbers(const Table& t, const std::string& name) {
  for (const Column& c : t.columns) {
    if (c.name == name)
      return std::get<std::vector<double>>(c.cells);
  }
  throw std::runtime_error("no column " + name);
}

const std::vector<std::string>& words(const Table& t, std::size_t column) {
  return std::get<std::vector<std::string>>(t.columns.at(column).cells);
}

NamedTrace named(const std::string& name, const MemoryTrace& t, const std::string& corpus = "c") {
  return {name, &t, corpus};
}

}  // namespace

TEST_CASE(
    "a forced collapse turns lights red, random routing is green where there is enough of it, else "
    "grey") {
  Report collapsed = of(make_trace({.routing = Make::collapsed}));
  CHECK(add_lights(collapsed, thresholds({})) == Light::red);
  CHECK(collapsed.tables[0].id == "lights");
  CHECK(words(collapsed.tables[0], 1)[0] == "red");
  CHECK(collapsed.findings[0].text.find("load CV of layer") != std::string::npos);
  Report even = of(make_trace({.tokens = 4096, .experts = 16}));
  CHECK(add_lights(even, thresholds({})) == Light::green);
  for (const std::string& w : words(even.tables[0], 1))
    CHECK(w == "green");
  Report little = of(make_trace({.tokens = 96, .experts = 16}));
  CHECK(add_lights(little, thresholds({})) == Light::grey);
  CHECK(words(little.tables[0], 1)[0] == "grey");
}

TEST_CASE("thresholds are set by name, and what makes no sense is refused") {
  // 4 of 8 experts: CV 1, dead half, on average
  Report r = of(make_trace({.routing = Make::by_domain}));
  CHECK(add_lights(r, thresholds({"load_cv=5,6", "load_maxvio_global=5,6",
                                  "load_dead_fraction=0.9,0.95", "ep_balancedness=0.2,0.1"})) ==
        Light::green);
  CHECK(add_lights(r, thresholds({"load_cv=0.9,6", "load_maxvio_global=5,6",
                                  "load_dead_fraction=0.9,0.95", "ep_balancedness=0.2,0.1"})) ==
        Light::yellow);
  CHECK_THROWS_WITH(thresholds({"load_cw=1,2"}), Catch::Contains("load_cv"));
  CHECK_THROWS_AS(thresholds({"load_cv=2,1"}), Error);
  CHECK_THROWS_AS(thresholds({"ep_balancedness=0.5,0.8"}), Error);
  CHECK_THROWS_AS(thresholds({"load_cv=1"}), Error);
  CHECK_THROWS_AS(thresholds({"load_cv=a,b"}), Error);
  Report none;
  CHECK_FALSE(add_lights(none, thresholds({})));
}

TEST_CASE("the finding in words goes by the same thresholds as the lights") {
  const MemoryTrace trace = make_trace({.routing = Make::by_domain});  // a CV of 1
  const auto verdict = [&](const std::vector<std::string>& settings) {
    AnalyzeOptions o;
    o.thresholds = thresholds(settings);
    return analyze(trace, {"load"}, o).findings.at(0).text;
  };
  CHECK_THAT(verdict({}), Catch::StartsWith("Routing is badly unbalanced"));
  CHECK_THAT(verdict({"load_cv=0.5,5"}), Catch::StartsWith("Routing is moderately uneven"));
  CHECK_THAT(verdict({"load_cv=4,5"}), Catch::StartsWith("Routing is well balanced"));
  CHECK(analyze(trace, {"load"}).findings.at(0).text == verdict({}));
}

TEST_CASE(
    "every figure of every convention stands on definitions, and is computed where the trace holds "
    "what it needs") {
  const MemoryTrace t = make_trace({.logits = true, .modalities = true});
  const MemoryTrace bare = make_trace({.extras = false});
  for (const Upstream& u : upstream_figures()) {
    INFO(u.name);
    CHECK(find_definition(u.id));
    CHECK(find_definition(u.our_id));
    CHECK_FALSE(u.difference.empty());
  }
  for (const ToolConvention& c : conventions()) {
    INFO(c.name);
    const Report r = in_convention(t, c.name);
    CHECK(r.warnings.empty());
    for (const char* side : {"their value", "our value"}) {
      for (const double v : numbers(r.tables.at(0), side))
        CHECK(std::isfinite(v));
    }
    in_convention(bare, c.name);
  }
  CHECK(in_convention(bare, "hf").warnings.size() == 1);
  CHECK_THROWS_WITH(in_convention(t, "vlmm"), Catch::Contains("vlmm"));
}

TEST_CASE("conventions have their quirks") {
  const MemoryTrace t = make_trace({.logits = true});  // E = 8, k = 2, 3 layers
  const Table nemo = in_convention(t, "nemo").tables[0];
  for (std::size_t l = 0; l < 3; ++l) {
    CHECK(numbers(nemo, "their value")[l] ==
          Approx(numbers(nemo, "our value")[l] * std::sqrt(8.0 / 7)));
  }
  const Table hf = in_convention(t, "hf").tables[0];
  CHECK(numbers(hf, "their value")[0] == Approx(2).margin(0.05));  // K at balance
  CHECK(numbers(hf, "our value")[0] == Approx(1).margin(0.05));
  const Table olmoe = in_convention(t, "olmoe").tables[0];
  CHECK(numbers(olmoe, "their value").back() == Approx(2 * numbers(olmoe, "our value").back()));
  const Table mega = in_convention(t, "megatron").tables[0];
  for (std::size_t i = 0; i < words(mega, 0).size(); ++i)
    CHECK(numbers(mega, "their value")[i] == Approx(numbers(mega, "our value")[i]));
  const Table mixtral =
      in_convention(make_trace({.layers = 1, .routing = Make::sticky}), "mixtral").tables[0];
  CHECK(words(mixtral, 1)[0] == "1");  // the number of its one layer, not "all"
  // any expert in common, the share in common
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(numbers(mixtral, "their value")[i] >= numbers(mixtral, "our value")[i]);
  const Table vllm = in_convention(make_trace({.routing = Make::collapsed}), "vllm").tables[0];
  CHECK(numbers(vllm, "their value")[0] == Approx(0.25));  // both experts on one of 4 ranks
}

TEST_CASE("a trace against itself agrees in every table, other text is refused with the reason") {
  const MemoryTrace a = make_trace({});
  const MemoryTrace b = make_trace({.routing = Make::sticky});
  AnalyzeOptions o;
  o.bootstrap = 40;
  const Report same = compare_against(named("a", a), named("a2", a), o);
  for (const double v : numbers(table(same, "agreement"), "same experts"))
    CHECK(v == 1);
  for (const double v : numbers(table(same, "agreement_by_k"), "k=1"))
    CHECK(v == 1);
  for (const double v : numbers(table(same, "flips"), "value"))
    CHECK(v == 0);
  for (const Column& c : table(same, "differences").columns) {
    for (std::size_t r = 0; r < c.low.size(); ++r) {
      if (!std::isnan(c.low[r]))
        CHECK((c.low[r] == Approx(0).margin(1e-12) && c.high[r] == Approx(0).margin(1e-12)));
    }
  }
  const Report other = compare_against(named("a", b), named("b", a), o);
  const Column& c = table(other, "agreement").columns[1];
  REQUIRE(c.low.size() == 3);
  for (std::size_t l = 0; l < 3; ++l)
    CHECK((c.low[l] < c.high[l] && c.low[l] <= std::get<std::vector<double>>(c.cells)[l]));
  CHECK_THROWS_WITH(compare_against(named("a", a, "aaaa"), named("b", a, "bbbb"), o),
                    Catch::Contains("different text"));
  CHECK_THROWS_WITH(compare_against(named("a", a), named("b", make_trace({.tokens = 64})), o),
                    Catch::Contains("2048 tokens"));
}

TEST_CASE("side by side tells a collapse from random routing, and nothing from nothing") {
  const MemoryTrace a = make_trace({});
  const MemoryTrace b = make_trace({.routing = Make::collapsed});
  const MemoryTrace deeper = make_trace({.layers = 5});
  AnalyzeOptions o;
  o.bootstrap = 40;
  const Report r = side_by_side({named("a", a), named("b", b), named("deeper", deeper, "")}, o);
  const Table& t = table(r, "side_by_side");
  CHECK(words(t, 0)[0] == "loss (nats)");
  CHECK(words(t, 0)[1] == "load CV");
  CHECK(numbers(t, "a")[1] < 0.1);
  CHECK(numbers(t, "b")[1] == Approx(std::sqrt(3.0)));
  const Column& d = table(r, "differences").columns[1];
  CHECK(d.low[1] > 1);
  REQUIRE(r.findings.size() == 2);  // one a trace behind the first
  CHECK(r.findings[0].text.find("load CV (+1.") != std::string::npos);
  CHECK(r.findings[1].text.find("deeper") != std::string::npos);
  CHECK(side_by_side({named("a", a), named("again", a)}, o)
            .findings.at(0)
            .text.find("No headline figure of again differs") == 0);
}
