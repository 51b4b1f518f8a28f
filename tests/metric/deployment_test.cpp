// What serving would cost: caches against plain simulations, placement against the published
// example, ranks by hand.
#include <catch2/catch.hpp>
#include <map>

#include "analysis/metric/chance.h"
#include "analysis/metric/layout.h"
#include "lib/core/error.h"
#include "lib/serving/cache_policies.h"
#include "lib/serving/eplb.h"
#include "tests/metric/rows.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

// half of the requests go to a quarter of the experts
std::vector<int> stream_of(int experts, int requests, Rng& rng) {
  std::vector<int> out;
  for (int i = 0; i < requests; ++i)
    out.push_back(int(rng.below(rng.uniform() < 0.5 ? std::max(1, experts / 4) : experts)));
  return out;
}

// Each policy as it reads: who is resident, and on a miss whom to put out.
template <class Victim>
std::int64_t plain(const std::vector<int>& stream, int size, Victim victim) {
  std::vector<int> held;
  std::int64_t hits = 0;
  for (std::size_t i = 0; i < stream.size(); ++i) {
    if (std::find(held.begin(), held.end(), stream[i]) != held.end()) {
      ++hits;
      continue;
    }
    if (int(held.size()) == size) {
      held.erase(std::max_element(held.begin(), held.end(),
                                  [&](int a, int b) { return victim(i, a) < victim(i, b); }));
    }
    held.push_back(stream[i]);
  }
  return hits;
}

const std::vector<double>& of(const std::vector<MetricValue>& all, const std::string& id) {
  for (const MetricValue& v : all) {
    if (v.id == id)
      return v.values;
  }
  throw std::runtime_error("no " + id);
}

}  // namespace

TEST_CASE("caches agree with simulations that look at every resident") {
  Rng rng(3);
  for (const int experts : {1, 2, 5, 16}) {
    for (int run = 0; run < 6; ++run) {
      const std::vector<int> sizes = {1, 2, 3, 7, 16};
      const auto stream = stream_of(experts, 300, rng);
      RecencyStack stack(experts, sizes);
      std::vector<LfuCache> lfu;
      for (const int c : sizes)
        lfu.emplace_back(experts, c);
      for (const int e : stream) {
        stack.request(e);
        for (LfuCache& c : lfu)
          c.request(e);
      }
      const auto last = [&](std::size_t i, int e) {
        while (i-- > 0) {
          if (stream[i] == e)
            return double(i);
        }
        return -1.0;
      };
      const auto next = [&](std::size_t i, int e) {
        for (; i < stream.size(); ++i) {
          if (stream[i] == e)
            return double(i);
        }
        return 1e9 + e;
      };
      const auto count = [&](std::size_t i, int e) {
        return double(std::count(stream.begin(), stream.begin() + std::ptrdiff_t(i), e));
      };
      CHECK(stack.requests() == 300);
      for (std::size_t s = 0; s < sizes.size(); ++s) {
        INFO(experts << " experts, " << sizes[s] << " held");
        CHECK(stack.lru_hits(sizes[s]) ==
              plain(stream, sizes[s], [&](std::size_t i, int e) { return -last(i, e); }));
        CHECK(stack.belady_hits(s) == plain(stream, sizes[s], next));
        CHECK(lfu[s].hits() == plain(stream, sizes[s], [&](std::size_t i, int e) {
                return -1e6 * count(i, e) - last(i, e);
              }));
      }
    }
  }
}

TEST_CASE("caches of many experts are searched and hit as often") {
  Rng rng(4);
  const std::vector<int> sizes = {1, 2, 3, 7, 16, 30};
  for (const int experts : {1, 3, 16, 33}) {
    RecencyStack rows(experts, sizes, experts + 1);
    RecencyStack tree(experts, sizes, 1);
    std::vector<LfuCache> listed;
    std::vector<LfuCache> searched;
    for (const int size : sizes) {
      listed.emplace_back(experts, size, experts + 1);
      searched.emplace_back(experts, size, 1);
    }
    for (const int e : stream_of(experts, 3000, rng)) {
      rows.request(e);
      tree.request(e);
      for (std::size_t s = 0; s < sizes.size(); ++s) {
        listed[s].request(e);
        searched[s].request(e);
      }
    }
    INFO(experts << " experts");
    CHECK(tree.counts() == rows.counts());
    for (std::size_t s = 0; s < sizes.size(); ++s) {
      CHECK(tree.lru_hits(sizes[s]) == rows.lru_hits(sizes[s]));
      CHECK(tree.belady_hits(s) == rows.belady_hits(s));
      CHECK(searched[s].hits() == listed[s].hits());
    }
  }
}

TEST_CASE("the hit rate of LRU under random routing is the closed form") {
  const MemoryTrace trace =
      make_trace({.tokens = 8000, .layers = 1, .experts = 16, .k = 4, .extras = false});
  const auto rate = of(measure(trace, {"cache:cache_sizes={4,8,16}"}), "cache_hit_rate_lru");
  for (const int i : {0, 1, 2})
    CHECK(rate[std::size_t(i)] == Approx(chance::lru_hit_rate(16, 4, 4 << i)).margin(0.01));
  CHECK(of(measure(trace, {"cache:tokens=10"}), "cache_accesses")[0] == 40);
  CHECK(of(measure(trace, {"cache:tokens=0"}), "cache_accesses")[0] == 32000);
}

TEST_CASE("domains that have no name are reported, and write nowhere else") {
  const MemoryTrace trace = trace_of(
      8, 2, 24,
      [](int token, int sequence) {
        return std::vector{token % 4, 4 + sequence % 4};
      },
      3);
  const Report r = analyze(trace);
  CHECK(r.tables.size() > 10);
}

TEST_CASE("the published example of the placement is met slot by slot") {
  const std::vector<double> a{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
  const std::vector<double> b{20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27};
  const EplbShape shape{.replicas = 16, .groups = 4, .nodes = 2, .gpus = 8};
  CHECK(eplb_plan(a, shape).expert ==
        std::vector<int>{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1});
  CHECK(eplb_plan(b, shape).expert ==
        std::vector<int>{7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1});
  CHECK(eplb_plan(a, shape).balancedness == Approx(0.8277).margin(5e-5));
  CHECK(eplb_plan(b, shape).balancedness == Approx(0.8050).margin(5e-5));
  const EplbShape global{.replicas = 16, .gpus = 8};
  CHECK(eplb_plan(a, global).balancedness == Approx(0.9323).margin(5e-5));
  CHECK(eplb_plan(b, global).balancedness == Approx(0.8401).margin(5e-5));
  CHECK(eplb_plan(a, {.replicas = 16, .groups = 3, .nodes = 2, .gpus = 8}).expert ==
        eplb_plan(a, global).expert);
  CHECK_THROWS_WITH(eplb_plan(a, {.replicas = 16, .groups = 5, .gpus = 8}),
                    "12 experts do not divide among 5 groups");
  CHECK_THROWS_WITH(eplb_plan(a, {.replicas = 8, .gpus = 8}),
                    "8 slots are fewer than the 12 experts");
  CHECK_THROWS_WITH(eplb_plan(a, {.replicas = 17, .gpus = 8}),
                    "17 slots do not divide among 8 GPUs");
}

TEST_CASE("a placement is judged on loads it has not seen") {
  Make m{.tokens = 4096, .layers = 1, .experts = 8, .k = 1, .domains = 1, .extras = false};
  m.routing = Make::collapsed;  // everything to expert 0: copies of it spread the load
  const auto all = measure(make_trace(m), {"placement:gpus=4,extra=4", "ranks:ep_size=4"});
  CHECK(of(all, "ep_balancedness")[0] == 0.25);
  CHECK(of(all, "eplb_balancedness")[0] > 0.6);
  CHECK(of(all, "eplb_balancedness_held_out")[0] == of(all, "eplb_balancedness")[0]);
  CHECK_THROWS_AS(measure(make_trace(m), {"placement:gpus=4,nodes=3"}), Error);
  CHECK_THROWS_WITH(measure(make_trace(m), {"ranks:ep_size=4,num_nodes=3"}),
                    "ranks: ep_size=4 does not divide into num_nodes=3");
}

TEST_CASE("a placement for unseen text does not depend on the order of a trace's domains") {
  Make m{.tokens = 4096,
         .layers = 1,
         .k = 1,
         .domains = 2,
         .routing = Make::by_domain,
         .extras = false};
  const auto mixed = measure(make_trace(m), {"placement:gpus=4,extra=4"});
  m.domain_order = true;
  const auto ordered = measure(make_trace(m), {"placement:gpus=4,extra=4"});
  const auto figure = [](const auto& all, const char* id) {
    return of(all, id)[0];
  };
  const double planned = figure(ordered, "eplb_balancedness");
  // halves by rows are other domains, whose experts the plan does not know
  CHECK(figure(ordered, "eplb_balancedness_held_out") < planned - 0.2);
  for (const auto* all : {&mixed, &ordered}) {
    CHECK(figure(*all, "eplb_balancedness_unseen") == Approx(planned).margin(0.02));
    CHECK(figure(*all, "eplb_balancedness_other_domains") < planned - 0.2);
  }
  m.domains = 1;
  CHECK(std::isnan(figure(measure(make_trace(m), {"placement:gpus=4,extra=4"}),
                          "eplb_balancedness_other_domains")));
}

TEST_CASE("one rank, a rank an expert, more ranks than experts") {
  const MemoryTrace trace = make_trace({.tokens = 512, .layers = 1, .extras = false});
  const auto at = [&](const std::string& spec, const char* id) {
    return of(measure(trace, {spec}), id)[0];
  };
  CHECK(at("ranks:ep_size=1,num_nodes=1", "a2a_distinct_ranks") == 1);
  CHECK(at("ranks:ep_size=1,num_nodes=1", "ep_balancedness") == 1);
  CHECK(at("ranks:ep_size=1,num_nodes=1", "a2a_dedup_factor") == 0.5);
  CHECK(at("ranks:ep_size=8", "a2a_dedup_factor") == 1);
  CHECK(at("ranks:ep_size=16", "a2a_distinct_ranks") == 2);
  CHECK(at("ranks:ep_size=16", "ep_balancedness") < 0.5);
}

TEST_CASE("training that settles shows: loads move less, ids keep their expert") {
  Make m{.tokens = 4096, .layers = 1, .experts = 8, .k = 1, .training = true, .extras = false};
  const MemoryTrace random = make_trace(m);
  TraceRows rows = random.read(0, random.tokens(), {});
  // from the middle on, the id decides
  for (Index t = 2048; t < 4096; ++t)
    rows.layer[0].expert(t, 0) = int(rows.token_id[std::size_t(t)] % 8);
  const auto settled = measure(
      MemoryTrace(random.header(), random.sequences(), random.steps(), rows), {"drift:blocks=4"});
  CHECK(of(settled, "token_saturation")[0] < 0.5);
  CHECK(of(settled, "token_saturation")[2] == 1);
  CHECK(of(settled, "token_saturation")[3] == 1);
  CHECK(of(settled, "load_drift_tv").size() == 3);
  const auto null = of(measure(random, {"drift:blocks=4"}), "load_drift_tv");
  for (const double tv : null)
    CHECK(tv == Approx(chance::total_variation(8, 1, 1024)).margin(0.03));
  m.training = false;
  CHECK(measure(make_trace(m), {"drift"}).empty());
}

TEST_CASE("drops that come late in a sequence show by position") {
  Make m{.tokens = 1024, .layers = 1};
  const MemoryTrace plain_trace = make_trace(m);
  TraceRows rows = plain_trace.read(0, 1024, {.dropped = true});
  for (Index t = 0; t < 1024; ++t)
    rows.layer[0].dropped(t, 0) = rows.position[std::size_t(t)] >= 24;
  const auto all =
      measure(MemoryTrace(plain_trace.header(), plain_trace.sequences(), plain_trace.steps(), rows),
              {"drops:position_bucket=8"});
  CHECK(of(all, "observed_drop_rate_by_position") == std::vector<double>{0, 0, 0, 0.5});
  CHECK(of(all, "observed_drop_rate")[0] == 0.125);
}

TEST_CASE("the finding speaks of the number of ranks that was asked for") {
  const MemoryTrace trace = make_trace({.experts = 16, .k = 4});
  const auto told = [&](const std::string& spec) {
    return analyze(trace, {spec}).findings.at(0).text;
  };
  CHECK_THAT(told("ranks"), Catch::StartsWith("On 8 expert-parallel ranks a token goes to "));
  CHECK_THAT(told("ranks:ep_size=4"), Catch::StartsWith("On 4 expert-parallel ranks"));
  // no power of two, so that the sweep over sizes does not have it; by hand, from the values
  CHECK_THAT(told("ranks:ep_size=3"), Catch::StartsWith("On 3 expert-parallel ranks"));
  const auto all = measure(trace, {"ranks:ep_size=3"});
  double ranks = 0;
  for (const double v : of(all, "a2a_distinct_ranks"))
    ranks += v / 3;
  double balanced = 0;
  for (const double v : of(all, "ep_balancedness"))
    balanced += v / 3;
  CHECK_THAT(told("ranks:ep_size=3"),
             Catch::Contains("goes to " + figure(ranks) + " of them (random routing: " +
                             figure(chance::distinct_ranks(16, 4, 3)) + ")"));
  CHECK_THAT(told("ranks:ep_size=3"), Catch::Contains("balancedness of " + figure(balanced)));
  // of so few experts that one rank is usual, two are told
  const MemoryTrace few = make_trace({.experts = 2, .k = 1});
  CHECK_THAT(analyze(few, {"ranks"}).findings.at(0).text,
             Catch::StartsWith("On 2 expert-parallel"));
}

namespace {

const Table* table_named(const Report& r, const std::string& id) {
  const auto at = std::ranges::find(r.tables, id, &Table::id);
  return at == r.tables.end() ? nullptr : &*at;
}

Report of_ranks(int experts, const std::string& spec) {
  return analyze(make_trace({.tokens = 512, .experts = experts}), {spec});
}

}  // namespace

TEST_CASE("ranks that do not hold as many experts each are shown as they are cut") {
  const Report uneven = of_ranks(8, "ranks:ep_size=3");
  REQUIRE(table_named(uneven, "ranks"));
  CHECK(table_named(uneven, "ranks")->warnings ==
        std::vector<std::string>{"8 experts do not divide into 3 ranks: 2 hold 3 and 1 holds 2, so "
                                 "that even routing leaves them uneven"});
  CHECK(table_named(of_ranks(8, "ranks:ep_size=4"), "ranks")->warnings.empty());
  CHECK(table_named(of_ranks(8, "ranks:ep_size=48"), "ranks")->warnings ==
        std::vector<std::string>{"8 experts do not divide into 48 ranks: 8 hold 1 and 40 hold "
                                 "none, so that even routing leaves them uneven"});
}

TEST_CASE("the sweep over ranks has sizes that divide the experts, and the finding is of one") {
  const Report twelve = of_ranks(12, "ranks");
  const auto& sizes =
      std::get<std::vector<std::int64_t>>(table_named(twelve, "all_to_all")->columns[0].cells);
  CHECK(sizes == std::vector<std::int64_t>{2, 4});
  REQUIRE(twelve.findings.size() == 1);
  CHECK(twelve.findings[0].text.find("On 4 expert-parallel ranks") == 0);
  const Report fifteen = of_ranks(15, "ranks");
  CHECK_FALSE(table_named(fifteen, "all_to_all"));
  CHECK(fifteen.findings.empty());
}

namespace {

// Four experts, two choices; sequence q of four is of rank q. It takes experts 0 and 1, or with odd
// q in every other token 0 and 3.
MemoryTrace of_four_ranks(std::uint32_t expert_ranks, bool drops = false, bool moves = false) {
  const MemoryTrace plain = trace_of(4, 2, 4, [](int t, int q) {
    return std::vector<int>{0, q % 2 == 1 && t % 2 == 1 ? 3 : 1};
  });
  TraceRows rows = plain.read(0, plain.tokens(), no_fields);
  LayerRows& layer = rows.layer[0];
  if (drops)
    layer.dropped = Matrix<std::uint8_t>(Index(rows.tokens()), 2);
  if (moves)
    layer.kept = layer.expert;
  for (std::size_t t = 0; t < rows.tokens(); ++t) {
    rows.rank.push_back(std::uint16_t(t / 16));
    if (drops && t < 8)
      layer.dropped(Index(t), 0) = 1;
    if (moves && t < 8)
      layer.kept(Index(t), 0) = 2;
  }
  TraceHeader header = plain.header();
  header.expert_ranks = expert_ranks;
  return {header, plain.sequences(), plain.steps(), rows};
}

std::vector<std::int64_t> recorded_rows(const MemoryTrace& trace) {
  const Report r = analyze(trace, {"ranks"});
  const Table* t = table_named(r, "ranks_recorded");
  return t ? std::get<std::vector<std::int64_t>>(t->columns.at(2).cells)
           : std::vector<std::int64_t>{};
}

}  // namespace

TEST_CASE("the load of the ranks that recorded a trace, by hand") {
  using Rows = std::vector<std::int64_t>;
  CHECK(recorded_rows(of_four_ranks(1)) == Rows{32, 32, 32, 32});  // each its own
  // two groups of two: experts 0 and 1 on the first of each, 2 and 3 on the second
  CHECK(recorded_rows(of_four_ranks(2)) == Rows{56, 8, 56, 8});
  CHECK(recorded_rows(of_four_ranks(4)) == Rows{64, 48, 0, 16});
  CHECK(recorded_rows(of_four_ranks(2, true)) == Rows{48, 8, 56, 8});
  CHECK(recorded_rows(of_four_ranks(4, false, true)) == Rows{56, 48, 8, 16});
  // not said, or more than can be
  CHECK(recorded_rows(of_four_ranks(0)).empty());
  CHECK(recorded_rows(of_four_ranks(5)).empty());
}

TEST_CASE("a report on a trace of ranks speaks of as many, and of each group as one") {
  const Report r = analyze(of_four_ranks(2), {"ranks"});
  REQUIRE(table_named(r, "ranks"));
  CHECK_THAT(table_named(r, "ranks")->title, Catch::Contains("on 2 ranks"));
  CHECK(table_named(r, "ranks")->warnings.empty());  // no token is of a rank beyond
  CHECK_THAT(table_named(r, "a2a_matrix")->reading, Catch::Contains("groups of 2 ranks"));
  CHECK_THAT(table_named(r, "ranks_recorded")->reading, Catch::Contains("less 1, that was 0.75"));
  const auto& sent = std::get<std::vector<double>>(table_named(r, "a2a_matrix")->columns[2].cells);
  CHECK(sent == std::vector<double>{32, 0, 32, 16});
}
