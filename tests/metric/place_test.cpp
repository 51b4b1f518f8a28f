// Plans of placement: sound by every policy, as the published code where it is that, better where
// better is known, and judged on text that they were not made from.
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "analysis/metric/chance.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/place_plan.h"
#include "lib/core/error.h"
#include "lib/serving/eplb.h"
#include "tests/metric/rows.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

PlaceLoads loads_by_lot(int experts, Rng& rng) {
  PlaceLoads out;
  for (int e = 0; e < experts; ++e)
    out.load.push_back(std::floor(1000 * std::pow(rng.uniform(), 3)));
  out.together = Matrix<double>(experts, experts);
  for (Index i = 0; i < experts; ++i) {
    for (Index j = 0; j <= i; ++j)
      out.together(i, j) = out.together(j, i) = double(rng.below(50));
  }
  return out;
}

void check_plan(const PlacePlan& plan, int experts, const PlaceShape& s) {
  REQUIRE(int(plan.expert.size()) == experts + s.extra);
  std::vector<int> copies(std::size_t(experts), 0);
  std::vector<int> on(std::size_t(s.gpus), 0);
  for (std::size_t i = 0; i < plan.expert.size(); ++i) {
    REQUIRE(plan.expert[i] >= 0);
    REQUIRE(plan.expert[i] < experts);
    CHECK(plan.gpu[i] == int(i) / ((experts + s.extra) / s.gpus));
    ++copies[std::size_t(plan.expert[i])];
    ++on[std::size_t(plan.gpu[i])];
  }
  CHECK(copies == plan.copies);
  CHECK(*std::min_element(copies.begin(), copies.end()) >= 1);
  for (const int n : on)
    CHECK(n == (experts + s.extra) / s.gpus);
}

bool has_twins(const PlacePlan& plan) {
  std::set<std::pair<int, int>> seen;
  for (std::size_t i = 0; i < plan.expert.size(); ++i) {
    if (!seen.insert({plan.gpu[i], plan.expert[i]}).second)
      return true;
  }
  return false;
}

double figure_of(const std::vector<MetricValue>& all, const std::string& id, std::size_t at = 0) {
  for (const MetricValue& v : all) {
    if (v.id == id)
      return v.values.at(at);
  }
  throw std::runtime_error("no " + id);
}

// Sixteen experts in four blocks that are scattered over the ids; a token's two are of one block.
MemoryTrace scattered_blocks() {
  Rng rng(5);
  return trace_of(16, 2, 200, [&](int, int) {
    const int block = int(rng.below(4));
    const int first = int(rng.below(4));
    const int other = (first + 1 + int(rng.below(3))) % 4;
    return std::vector<int>{first * 4 + block, other * 4 + block};
  });
}

}  // namespace

TEST_CASE("a plan of every policy has every expert, and as many slots on each GPU") {
  Rng rng(11);
  const std::vector<std::pair<int, PlaceShape>> shapes = {
      {8, {}},
      {8, {.gpus = 8}},
      {8, {.gpus = 4, .nodes = 2, .extra = 4}},
      {60, {.gpus = 4, .nodes = 2, .extra = 4}},
      {64, {.gpus = 16, .nodes = 4, .extra = 16, .groups = 8}},
      {10, {.gpus = 6, .nodes = 3, .extra = 2}},
      {4, {.gpus = 4, .nodes = 2, .extra = 12}},
      {128, {.gpus = 32, .nodes = 4, .extra = 32}},
  };
  for (const auto& [experts, shape] : shapes) {
    check_place(experts, shape);
    for (const auto& policy : place_policies().entries()) {
      for (int run = 0; run < 5; ++run) {
        INFO(policy.name << ", " << experts << " experts, " << shape.gpus << " GPUs");
        PlaceLoads loads = loads_by_lot(experts, rng);
        if (run == 4)
          loads.load.assign(std::size_t(experts), 0);
        const PlacePlan plan = policy.make(loads, shape);
        check_plan(plan, experts, shape);
        CHECK(policy.make(loads, shape).expert == plan.expert);
        CHECK((policy.name != "greedy" || !has_twins(plan)));
      }
    }
  }
}

TEST_CASE("the policy eplb is the published code") {
  const std::vector<double> w{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
  const PlaceShape shape{.gpus = 8, .nodes = 2, .extra = 4, .groups = 4};
  const PlacePlan plan = place_policies().at("eplb").make({w, {}}, shape);
  CHECK(plan.expert == std::vector<int>{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1});
  CHECK(place_balancedness(plan, w, 8) == Approx(0.8277).margin(5e-5));
}

TEST_CASE("greedy balances at least as well as experts in order") {
  Rng rng(12);
  const PlaceShape shape{.gpus = 8, .extra = 8};
  for (int run = 0; run < 20; ++run) {
    const PlaceLoads loads = loads_by_lot(64, rng);
    const PlacePlan plan = place_policies().at("greedy").make(loads, shape);
    CHECK(place_balancedness(plan, loads.load, 8) >=
          place_balancedness(place_in_order(64, 8), loads.load, 8));
  }
}

TEST_CASE("local puts blocks of experts on one node each") {
  const MemoryTrace trace = scattered_blocks();
  const auto local = measure(trace, {"place:gpus=4,nodes=4,policy=local"});
  // all experts of a token stand on one node, and three of four nodes are not that one
  CHECK(figure_of(local, "place_remote_nodes") == Approx(0.75));
  CHECK(figure_of(local, "place_remote_copies") == Approx(1.5));
  // in order, a token's experts never share a node: 4 b .. 4 b + 3 are of different blocks
  CHECK(figure_of(local, "place_remote_nodes_in_order") == Approx(1.5));
  CHECK(figure_of(local, "place_balancedness") > 0.9);
  const auto eplb = measure(trace, {"place:gpus=4,nodes=4,policy=eplb"});
  CHECK(figure_of(eplb, "place_remote_nodes") > 1);
}

TEST_CASE("a plan is judged on sequences that it was not made from") {
  // even sequences take the first half of the experts, odd ones expert 7 and another
  const MemoryTrace trace = trace_of(8, 1, 64, [](int t, int q) {
    return std::vector<int>{q % 2 == 0 ? t % 4 : t % 2 == 0 ? 7 : 4 + t % 4};
  });
  const auto all = measure(trace, {"place:gpus=4,extra=4"});
  // of the odd ones: 4 6 never, 5 a quarter, 7 three quarters; in order, 6 and 7 share a GPU
  CHECK(figure_of(all, "place_balancedness_in_order") == Approx(0.25 / 0.75));
  // the first four experts got the copies
  CHECK(figure_of(all, "place_balancedness") < 0.5);
  const auto seen = measure(trace, {"placement:gpus=4,extra=4"});
  CHECK(figure_of(seen, "eplb_balancedness") > 0.9);
}

TEST_CASE("traffic between nodes, by hand") {
  // two nodes, four experts in order: 0 1 | 2 3
  const MemoryTrace trace = trace_of(4, 2, 32, [](int, int q) {
    return q % 4 == 1 ? std::vector<int>{0, 1} : std::vector<int>{1, 2};
  });
  const auto all = measure(trace, {"place:gpus=2,nodes=2"});
  // judged: sequences 1, 3, ...: half with {0, 1} (away from node 1 only), half with {1, 2}
  CHECK(figure_of(all, "place_remote_nodes_in_order") == Approx(0.5 * 0.5 + 0.5 * 1));
  CHECK(figure_of(all, "place_remote_copies_in_order") == Approx(1));
}

TEST_CASE("a token's node is that of the rank that recorded it") {
  const MemoryTrace plain = trace_of(4, 1, 32, [](int, int) { return std::vector<int>{0}; });
  TraceRows rows = plain.read(0, plain.tokens(), no_fields);
  const auto remote = [&](std::uint16_t rank) {
    rows.rank.assign(rows.tokens(), rank);
    const MemoryTrace trace(plain.header(), plain.sequences(), plain.steps(), rows);
    return figure_of(measure(trace, {"place:gpus=4,nodes=2"}), "place_remote_nodes_in_order");
  };
  // expert 0 lies on GPU 0, which is of node 0 as GPU 1 is
  CHECK(remote(0) == 0);
  CHECK(remote(1) == 0);
  CHECK(remote(2) == 1);
  CHECK(remote(7) == 1);  // GPU 3 of 4
  CHECK(figure_of(measure(plain, {"place:gpus=4,nodes=2"}), "place_remote_nodes_in_order") ==
        Approx(0.5));
}

TEST_CASE("copies are taken where they are near") {
  const PlacePlan plan{{0, 1, 0, 2, 0, 3, 1, 3}, {0, 0, 1, 1, 2, 2, 3, 3}, {3, 2, 1, 2}};
  const PlaceShape shape{.gpus = 4, .nodes = 4, .extra = 4};
  const Matrix<int> to = place_targets(plan, shape);
  CHECK(to(0, 0) == 0);
  CHECK(to(1, 0) == 1);
  CHECK(to(3, 0) == 0);  // copies on nodes 0, 1 and 2: number 3 mod 3
  CHECK(to(2, 1) == 0);  // copies on nodes 0 and 3
  CHECK(to(1, 1) == 3);
  CHECK(to(0, 2) == 1);
}

TEST_CASE("random routing gains what the chance columns say") {
  std::map<std::string, double> measured, chance, spread;
  constexpr int runs = 24;
  for (int run = 0; run < runs; ++run) {
    Rng rng(100, std::uint64_t(run));
    const MemoryTrace trace =
        trace_of(16, 2, 60, [&](int, int) { return draw({.experts = 16, .k = 2}, rng); });
    const Report r = analyze(trace, {"place:gpus=4,nodes=2,extra=8"});
    REQUIRE(r.tables.size() == 1);
    for (const Column& c : r.tables[0].columns) {
      if (c.metric.empty())
        continue;
      measured[c.metric] += std::get<std::vector<double>>(c.cells).at(0) / runs;
      chance[c.metric] += c.chance.at(0) / runs;
    }
  }
  CHECK(measured.size() == 7);
  for (const auto& [id, value] : measured) {
    INFO(id);
    CHECK(value == Approx(chance[id]).epsilon(0.01));
  }
}

TEST_CASE("a placement that is not worth it is called so") {
  Rng rng(9);
  const MemoryTrace even =
      trace_of(16, 2, 200, [&](int, int) { return draw({.experts = 16, .k = 2}, rng); });
  AnalyzeOptions o;
  o.bootstrap = 100;
  const auto finding = [&](const MemoryTrace& trace, const char* spec) {
    const Report r = analyze(trace, {spec}, o);
    REQUIRE(r.findings.size() == 1);
    return r.findings[0].text;
  };
  CHECK_THAT(finding(even, "place:gpus=4,nodes=2,extra=8"), Catch::Contains("It is not worth it"));
  const MemoryTrace uneven =
      trace_of(16, 1, 200, [&](int t, int) { return std::vector<int>{t % 2 == 0 ? 0 : t % 16}; });
  CHECK_THAT(finding(uneven, "place:gpus=4,extra=8"), !Catch::Contains("not worth it"));
  CHECK_THAT(finding(scattered_blocks(), "place:gpus=4,nodes=4,policy=local"),
             !Catch::Contains("not worth it"));
  CHECK_THAT(finding(trace_of(4, 1, 4, [](int t, int) { return std::vector<int>{t % 4}; }),
                     "place:gpus=2"),
             Catch::Contains("Fewer than 16 sequences"));
}

TEST_CASE("numbers that do not divide are refused in a sentence") {
  const auto refusal = [](int experts, const PlaceShape& s) -> std::string {
    try {
      check_place(experts, s);
    } catch (const Error& e) {
      CHECK(e.code() == Exit::usage);
      return e.what();
    }
    return "";
  };
  CHECK(refusal(64, {.gpus = 8, .extra = 9}) ==
        "64 experts and 9 extra slots make 73, which do not divide among 8 GPUs");
  CHECK(refusal(64, {.gpus = 8, .nodes = 3}) == "8 GPUs do not divide among 3 nodes");
  CHECK(refusal(64, {.gpus = 8, .groups = 5}) == "64 experts do not divide among 5 groups");
  CHECK_THAT(refusal(4, {.gpus = 2, .extra = 6}), Catch::Contains("more than 2 GPUs can use"));
  CHECK_THAT(refusal(128, {.gpus = 128, .nodes = 128}), Catch::Contains("more than the 64"));
  CHECK(refusal(64, {.gpus = 8, .nodes = 2, .extra = 8, .groups = 8}).empty());
  CHECK_THROWS_AS(measure(make_trace({}), {"place:gpus=3"}), Error);
  CHECK_THROWS_AS(measure(make_trace({}), {"place:policy=best"}), Error);
}

TEST_CASE("counts of steps are planned and judged as the tokens behind them") {
  // steps of one sequence each: even and odd steps are even and odd sequences
  const MemoryTrace tokens = trace_of(8, 1, 32, [](int t, int q) {
    return std::vector<int>{q % 2 == 0 ? t % 4 : t % 2 == 0 ? 7 : 4 + t % 4};
  });
  TraceHeader h = tokens.header();
  h.counts = Matrix<std::uint32_t>(32, 8);
  std::vector<TraceStep> steps;
  const TraceRows rows = tokens.read(0, tokens.tokens(), no_fields);
  for (Index t = 0; t < Index(rows.tokens()); ++t)
    ++h.counts(t / 16, rows.layer[0].expert(t, 0));
  for (int s = 0; s < 32; ++s)
    steps.push_back({s, 0, 0, Phase::eval});
  TraceRows none;
  none.layer.resize(1);
  const MemoryTrace counted(h, {}, steps, none);
  for (const char* spec : {"place:gpus=4,extra=4", "place:gpus=4,nodes=2,policy=greedy"}) {
    const auto of_tokens = measure(tokens, {spec});
    const auto of_counts = measure(counted, {spec});
    for (const char* id : {"place_balancedness_in_order", "place_balancedness", "place_gain"})
      CHECK(figure_of(of_counts, id) == figure_of(of_tokens, id));
    const Report r = analyze(counted, {spec});
    REQUIRE(r.tables.size() == 1);
    CHECK(r.tables[0].columns.size() == 4);  // nothing of nodes
    CHECK_THAT(r.findings.at(0).text, Catch::Contains("The trace only counts"));
  }
  CHECK_THROWS_WITH(measure(counted, {"place:gpus=4,policy=local"}),
                    "policy=local looks at which experts tokens choose together, and the trace "
                    "only counts");
}
