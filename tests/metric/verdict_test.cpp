// What is said of small traces: lights, findings and counts of dead experts where random routing
// would often show as much, where it never would, and how many tokens it takes.
#include "analysis/metric/verdict.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "analysis/compare/lights.h"
#include "analysis/metric/load.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

// Routing that is all random, every time another one.
MemoryTrace random_trace(Make m, std::uint64_t seed) {
  const MemoryTrace shape = make_trace(m);
  TraceRows rows = shape.read(0, shape.tokens(), shape.fields());
  Rng rng(seed);
  for (std::uint32_t& id : rows.token_id)
    id = std::uint32_t(rng.below(64));
  for (LayerRows& l : rows.layer) {
    for (Index t = 0; t < l.expert.rows(); ++t)
      std::ranges::copy(draw(m, rng), l.expert.row(t).begin());
  }
  return {shape.header(), shape.sequences(), shape.steps(), std::move(rows)};
}

Report lit(const MemoryTrace& trace) {
  AnalyzeOptions o;
  o.sample_tokens = 0;
  Report r = analyze(trace, {}, o);
  REQUIRE(add_lights(r, thresholds({})));
  return r;
}

const Table& table(const Report& r, const std::string& id) {
  const auto found = std::ranges::find(r.tables, id, &Table::id);
  REQUIRE(found != r.tables.end());
  return *found;
}

std::vector<std::string> colours(const Report& r) {
  const Table& t = table(r, "lights");
  return std::get<std::vector<std::string>>(t.columns.at(1).cells);
}

bool says(const Report& r, const std::string& part) {
  return std::ranges::any_of(
      r.findings, [&](const Finding& f) { return f.text.find(part) != std::string::npos; });
}

// Sentences that say more than random routing does.
constexpr const char* claims[] = {"lights is red:",
                                  "lights are red:",
                                  "Routing is badly",
                                  "Routing is moderately",
                                  "experts are dead:",
                                  "Experts tell the domains apart most",
                                  "Who took",
                                  "tells most about the next layer's",
                                  "The token id alone tells",
                                  "one expert takes alone",
                                  "The closest pair of experts is ",
                                  "Neighbouring tokens keep their"};

struct TraceSize {
  double experts, k, tokens;
};
const std::vector<TraceSize> shapes = {{8, 2, 12},    {8, 2, 96},   {8, 1, 40},   {64, 8, 50},
                                       {64, 8, 2000}, {128, 1, 20}, {16, 4, 5000}};

// The shares of random traces that pass what random routing is said to reach.
struct Passed {
  double cv = 0, maxvio = 0, dead = 0, ranks = 0;
};
Passed passed(const TraceSize& s, int runs) {
  const chance::Size size{s.experts, s.k, s.tokens, 1};
  Passed out;
  Rng rng(11);
  for (int run = 0; run < runs; ++run) {
    const auto counts = chance::draw_counts(int(s.experts), int(s.k), std::int64_t(s.tokens), rng);
    const LoadFigures f = load_figures(counts);
    double rank[4] = {};
    for (std::size_t e = 0; e < counts.size(); ++e)
      rank[e * 4 / counts.size()] += double(counts[e]);
    const double balanced = s.tokens * s.k / 4 / *std::max_element(rank, rank + 4);
    out.cv += f.cv > chance::reach_load_cv(size) + 1e-9;
    out.maxvio += f.maxvio > chance::reach_maxvio(size) + 1e-9;
    out.dead += f.dead_fraction > chance::reach_dead_fraction(size) + 1e-9;
    out.ranks += balanced < chance::reach_balancedness(size, 4) - 1e-9;
  }
  for (double* share : {&out.cv, &out.maxvio, &out.dead, &out.ranks})
    *share /= runs;
  return out;
}

}  // namespace

TEST_CASE("random routing passes its reach in no more than one of a hundred traces") {
  constexpr int runs = 2000;
  const double most = chance::rarely + 4 * std::sqrt(chance::rarely / runs);
  for (const TraceSize& s : shapes) {
    INFO("E=" << s.experts << " K=" << s.k << " T=" << s.tokens);
    const Passed share = passed(s, runs);
    CHECK(share.cv <= most);
    CHECK(share.maxvio <= most);
    CHECK(share.dead <= most);
    CHECK(share.ranks <= most);
  }
}

TEST_CASE("the reach of random routing is not far beyond what it gives") {
  for (const TraceSize& s : shapes) {
    INFO("E=" << s.experts << " K=" << s.k << " T=" << s.tokens);
    const chance::Size size{s.experts, s.k, s.tokens, 1};
    const auto random =
        chance::simulate_load(int(s.experts), int(s.k), std::int64_t(s.tokens), 3, [](auto counts) {
          const LoadFigures f = load_figures(counts);
          return std::vector<double>{f.cv, f.maxvio, f.dead_fraction};
        });
    const auto within = [](double reach, const chance::Value& v) {
      return reach >= v.mean && reach <= v.mean + 6 * v.spread + 1e-9;
    };
    CHECK(within(chance::reach_load_cv(size), random[0]));
    CHECK(within(chance::reach_maxvio(size), random[1]));
    CHECK(within(chance::reach_dead_fraction(size), random[2]));
  }
}

TEST_CASE("tails are sums of probabilities") {
  CHECK(chance::binomial_tail(12, 0.25, 12) == Approx(std::pow(0.25, 12)));
  CHECK(chance::binomial_tail(3, 0.5, 2) == Approx(0.5));
  CHECK(chance::binomial_tail(3, 0.5, 4) == 0);
  CHECK(chance::poisson_tail(2, 1) == Approx(1 - std::exp(-2)));
  CHECK(chance::rare_deviations(1) == Approx(3.1367).epsilon(1e-3));
  CHECK(chance::reach_maxvio({8, 2, 12, 4}) == Approx(2));
  CHECK(chance::reach_dead_fraction({8, 2, 12, 1}) == 0.25);
  CHECK(chance::rare_deviations(32) > chance::rare_deviations(4));
}

TEST_CASE("tokens needed are the fewest that keep random routing short of the threshold") {
  const chance::Size size{8, 2, 12, 4};
  const double cv = chance::tokens_needed(size, chance::reach_load_cv, 0.25, false);
  CHECK(cv > 3 / 0.0625);
  CHECK(cv < 400);
  for (const double tokens : {cv, 4 * cv})
    CHECK(chance::reach_load_cv({8, 2, tokens, 4}) < 0.25);
  CHECK(chance::reach_load_cv({8, 2, 0.8 * cv, 4}) > 0.25);
  CHECK(chance::tokens_needed(size, chance::reach_dead_fraction, 0.001, false) ==
        Approx(std::log(100 * 8 * 4) / -std::log(0.75)).margin(1));
  const auto ranks = [](const chance::Size& s) {
    return chance::reach_balancedness(s, 2);
  };
  CHECK(std::isfinite(chance::tokens_needed(size, ranks, 0.8, true)));
  // 3 experts on 2 ranks: never better than 3/4
  CHECK(std::isinf(chance::tokens_needed({3, 1, 12, 1}, ranks, 0.8, true)));
}

TEST_CASE("twelve tokens over eight experts are too few for any light and for dead experts") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const Report r = lit(random_trace({.tokens = 12, .layers = 4}, seed));
    const std::vector<std::string> all = colours(r);
    for (const std::string& colour : {all[0], all[1], all[2], all[3]})
      CHECK(colour == "grey");
    CHECK_THAT(r.findings[0].text, Catch::Contains("12 tokens of this trace are too few"));
    CHECK_THAT(r.findings[0].text, Catch::Contains("dead experts (needs about 29)"));
    for (const char* claim : claims) {
      INFO(claim);
      CHECK_FALSE(says(r, claim));
    }
  }
}

TEST_CASE("where every token id is another, it is not said that ids tell nothing") {
  const MemoryTrace shape = make_trace({.tokens = 12, .layers = 2});
  TraceRows rows = shape.read(0, shape.tokens(), shape.fields());
  for (std::size_t t = 0; t < rows.token_id.size(); ++t)
    rows.token_id[t] = std::uint32_t(t);
  const MemoryTrace trace(shape.header(), shape.sequences(), shape.steps(), std::move(rows));
  const Report r = analyze(trace, {"vocabulary"});
  CHECK(says(r, "12 tokens are too few to judge whether the token id tells the expert."));
  CHECK_FALSE(says(r, "The token id tells no more"));
}

TEST_CASE(
    "a large balanced trace is green, and what no random routing gives is red however small") {
  const Report large = lit(random_trace({.tokens = 8192, .layers = 4}, 5));
  for (const std::string& colour : colours(large))
    CHECK(colour == "green");
  CHECK(says(large, "No expert is dead"));
  for (const int tokens : {12, 40, 4096}) {
    INFO(tokens);
    const Report r = lit(make_trace({.tokens = tokens, .layers = 4, .routing = Make::collapsed}));
    CHECK(colours(r)[0] == "red");
    CHECK(says(r, "Routing is badly unbalanced"));
    CHECK(says(r, "24 of 32 experts are dead"));
  }
}

TEST_CASE("of a hundred random traces of any size hardly one is given a finding") {
  int traces = 0;
  std::map<std::string, int> claimed;
  for (const Make& m : {Make{.tokens = 12, .layers = 4}, Make{.tokens = 60, .experts = 16, .k = 1},
                        Make{.tokens = 300, .layers = 6, .experts = 32, .k = 4, .domains = 4},
                        Make{.tokens = 2000, .layers = 4}}) {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
      const Report r = lit(random_trace(m, seed));
      ++traces;
      for (const char* claim : claims)
        claimed[claim] += says(r, claim);
    }
  }
  for (const auto& [claim, times] : claimed) {
    INFO(claim << " of " << traces << " random traces");
    CHECK(times <= 1);
  }
}

TEST_CASE("a layer without any choice is named and not judged") {
  const MemoryTrace shape = make_trace({.tokens = 4096});
  TraceRows rows = shape.read(0, shape.tokens(), shape.fields());
  rows.layer[1].expert = Matrix<int>(4096, 2, -1);
  const MemoryTrace trace(shape.header(), shape.sequences(), shape.steps(), std::move(rows));
  const Report r = lit(trace);
  CHECK(std::ranges::any_of(r.warnings, [](const std::string& w) {
    return w.find("no token has a choice in layer 3") != std::string::npos;
  }));
  CHECK(colours(r)[2] == "green");
  CHECK_FALSE(says(r, "are dead"));
  const Table& load = table(r, "load");
  for (const Column& c : load.columns) {
    if (c.name == "dead" || c.name == "dead share" || c.name == "CV")
      CHECK(std::isnan(std::get<std::vector<double>>(c.cells)[1]));
  }
}

TEST_CASE("drops that random routing would show in steps of this size are no finding") {
  const auto dropped = [](int tokens, double share) {
    const MemoryTrace shape = make_trace({.tokens = tokens, .layers = 2});
    TraceHeader h = shape.header();
    for (TraceLayer& l : h.layers)
      l.capacity_factor = 1.25f;
    TraceRows rows = shape.read(0, shape.tokens(), shape.fields());
    Rng rng(3);
    for (LayerRows& l : rows.layer) {
      for (std::uint8_t& d : l.dropped.flat())
        d = rng.uniform() < share;
    }
    return MemoryTrace(h, shape.sequences(), shape.steps(), std::move(rows));
  };
  const auto light = [](const MemoryTrace& trace) {
    Report r = analyze(trace, {"drops"});
    REQUIRE(add_lights(r, thresholds({})));
    return colours(r)[0];
  };
  CHECK(light(dropped(12, 0.05)) == "grey");
  CHECK(light(dropped(12, 0.7)) == "red");
  CHECK(light(dropped(2048, 0)) == "grey");  // steps of 64 tokens: random routing drops some
  CHECK(light(dropped(2048, 0.3)) == "red");
}
