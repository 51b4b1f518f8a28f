// Traces of two trainings: which expert is which, what is left of likeness then, and what the two
// say of where they come from.
#include "analysis/compare/matching.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "analysis/compare/compare.h"
#include "analysis/compare/origin.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

TraceRows rows_of(const MemoryTrace& t) {
  return t.read(0, t.tokens(), t.fields());
}

// Every layer's experts under other names: expert e of layer l is (e * 3 + l) mod 8.
MemoryTrace renamed(const MemoryTrace& t, TraceHeader header) {
  TraceRows rows = rows_of(t);
  for (std::size_t l = 0; l < rows.layer.size(); ++l) {
    for (int& e : rows.layer[l].expert.flat())
      e = (e * 3 + int(l)) % 8;
  }
  return {std::move(header), t.sequences(), t.steps(), std::move(rows)};
}

// Other routing of the same tokens, as uneven as asked: experts below `hot` three times in four.
MemoryTrace rerouted(const MemoryTrace& t, std::uint64_t seed, int hot) {
  TraceRows rows = rows_of(t);
  Rng rng(seed);
  for (LayerRows& l : rows.layer) {
    for (Index i = 0; i < l.expert.rows(); ++i) {
      const int one = int(rng.uniform() < 0.75 ? rng.below(hot) : rng.below(8));
      l.expert(i, 0) = one;
      l.expert(i, 1) = (one + 1 + int(rng.below(7))) % 8;
    }
  }
  return {t.header(), t.sequences(), t.steps(), std::move(rows)};
}

TraceHeader from(TraceHeader h, const std::string& weights, const std::string& run,
                 const std::string& lineage = "") {
  h.weights_xxh3 = weights;
  h.run_id = run;
  h.lineage = lineage;
  return h;
}

Report against(const MemoryTrace& a, const MemoryTrace& b,
               Experts experts = Experts::matched_where_foreign) {
  AnalyzeOptions o;
  o.bootstrap = 0;
  return compare_against({"a", &a, "c"}, {"b", &b, "c"}, o, experts);
}

const Column& column(const Report& r, const std::string& metric) {
  for (const Table& t : r.tables) {
    for (const Column& c : t.columns) {
      if (c.metric == metric)
        return c;
    }
  }
  throw std::runtime_error("no column of " + metric);
}

double first(const Report& r, const std::string& metric) {
  return std::get<std::vector<double>>(column(r, metric).cells).at(0);
}

bool has(const Report& r, const std::string& metric) {
  return std::ranges::any_of(r.tables, [&](const Table& t) {
    return std::ranges::find(t.columns, metric, &Column::metric) != t.columns.end();
  });
}

bool says(const Report& r, const std::string& part) {
  return std::ranges::any_of(
      r.findings, [&](const Finding& f) { return f.text.find(part) != std::string::npos; });
}

std::int64_t gain(const Counts& j, const std::vector<int>& to) {
  std::int64_t out = 0;
  for (std::size_t r = 0; r < to.size(); ++r)
    out += j(Index(r), to[r]);
  return out;
}

std::int64_t best_of_all(const Counts& j) {
  std::vector<int> to(std::size_t(j.rows()));
  std::iota(to.begin(), to.end(), 0);
  std::int64_t best = 0;
  do {
    best = std::max(best, gain(j, to));
  } while (std::next_permutation(to.begin(), to.end()));
  return best;
}

}  // namespace

TEST_CASE("the best matching is the best of all permutations, and keeps ids where it may") {
  Rng rng(5);
  for (int run = 0; run < 60; ++run) {
    const Index n = 1 + run % 6;
    Counts j(n, n);
    for (std::int64_t& c : j.flat())
      c = run % 3 ? rng.below(20) : rng.below(2);
    std::vector<int> to = best_matching(j);
    CHECK(gain(j, to) == best_of_all(j));
    std::ranges::sort(to);
    for (Index e = 0; e < n; ++e)
      CHECK(to[std::size_t(e)] == int(e));
  }
  CHECK(best_matching(Counts(4, 4, 7)) == std::vector<int>{0, 1, 2, 3});
  CHECK(best_matching(Counts(0, 0)).empty());
}

TEST_CASE("the adjusted Rand index is 1 for one partition, 0 where nothing is to adjust") {
  const auto counts = [](std::vector<std::int64_t> cells) {
    Counts j(2, 2);
    std::ranges::copy(cells, j.data());
    return j;
  };
  CHECK(adjusted_rand(counts({2, 0, 0, 2})) == Approx(1));
  CHECK(adjusted_rand(counts({0, 3, 4, 0})) == Approx(1));
  CHECK(adjusted_rand(counts({1, 1, 1, 1})) == Approx(-0.5));
  // 8 tokens: 6 + 3 pairs together, 13 in rows, 12 in columns, 13*12/28 expected
  CHECK(adjusted_rand(counts({4, 1, 0, 3})) ==
        Approx((9 - 13. * 12 / 28) / (12.5 - 13. * 12 / 28)));
  CHECK(adjusted_rand(counts({5, 0, 0, 0})) == 0);
  CHECK(adjusted_rand(counts({1, 0, 0, 0})) == 0);
  CHECK(adjusted_rand(Counts()) == 0);
}

TEST_CASE("traces are kin where they share weights, a run or an ancestor") {
  const TraceHeader none, a = from({}, "w1", "r1"), later = from({}, "w2", "r1");
  const TraceHeader child = from({}, "w3", "w1", "r1"), other = from({}, "w9", "r9");
  CHECK(kinship(a, a) == Kinship::same_weights);
  CHECK(kinship(a, later) == Kinship::related);
  CHECK(kinship(later, child) == Kinship::related);
  CHECK(kinship(a, from({}, "w8", "r8", "r0 r1")) == Kinship::related);
  CHECK(kinship(from({}, "r1", ""), a) == Kinship::related);  // the initial weights themselves
  CHECK(kinship(a, other) == Kinship::strangers);
  CHECK(kinship(a, none) == Kinship::unknown);
  CHECK(kinship(none, none) == Kinship::unknown);
  CHECK(kinship_text(a, other) == "different trainings: run r1 and run r9");
}

TEST_CASE("experts of two trainings are matched first, and the report begins with that") {
  const MemoryTrace plain = make_trace({.tokens = 4096, .routing = Make::by_domain});
  const MemoryTrace base = rerouted(plain, 3, 8);
  const MemoryTrace a{from(base.header(), "w1", "r1"), base.sequences(), base.steps(),
                      rows_of(base)};
  const MemoryTrace b = renamed(base, from(base.header(), "w2", "r2"));
  const Report r = against(b, a);
  CHECK(r.findings.at(0).text.find("different trainings") != std::string::npos);
  CHECK(first(r, "router_saturation_matched") == 1);
  CHECK(first(r, "router_saturation_top1_matched") == 1);
  CHECK(first(r, "expert_partition_ami") == Approx(1));
  CHECK(first(r, "expert_partition_ari") == Approx(1));
  CHECK_FALSE(has(r, "router_saturation"));
  const Column& same = column(r, "router_saturation_matched");
  CHECK(same.chance.at(0) > 0.25);  // noise is matched too
  CHECK(same.chance.at(0) < 0.4);
  const Report by_id = against(b, a, Experts::by_id);
  CHECK(first(by_id, "router_saturation") < 0.6);
  CHECK(by_id.findings.at(0).text.find("as asked") != std::string::npos);
  CHECK_FALSE(has(by_id, "router_saturation_matched"));
}

TEST_CASE("kin are compared by their ids, and an unknown origin is matched") {
  const MemoryTrace base = rerouted(make_trace({.tokens = 1024}), 3, 8);
  const MemoryTrace a{from(base.header(), "w1", "r1"), base.sequences(), base.steps(),
                      rows_of(base)};
  const MemoryTrace kin = renamed(base, from(base.header(), "w2", "r1"));
  CHECK(first(against(kin, a), "router_saturation") < 0.6);
  const MemoryTrace unknown = renamed(base, base.header());
  const Report r = against(unknown, a);
  CHECK(first(r, "router_saturation_matched") == 1);
  CHECK(r.findings.at(0).text.find("not recorded") != std::string::npos);
}

TEST_CASE("two routings that know nothing of each other stay within chance, however uneven") {
  for (const int tokens : {12, 300, 4096}) {
    for (const int hot : {8, 2}) {
      INFO(tokens << " tokens, " << hot << " busy experts");
      const MemoryTrace base = make_trace({.tokens = tokens});
      const Report r = against(rerouted(base, 3, hot), rerouted(base, 4, hot));
      const Column& same = column(r, "router_saturation_matched");
      for (std::size_t l = 0; l < 3; ++l) {
        const double far = std::get<std::vector<double>>(same.cells)[l] - same.chance[l];
        CHECK(std::abs(far) < 5 * same.chance_spread[l] + 0.02);
      }
      CHECK(says(r, tokens == 12 ? "too few to judge whether the two cut the tokens alike"
                                 : "cut") == (tokens == 12));
      CHECK_FALSE(says(r, "Whatever the experts are called"));
    }
  }
}

TEST_CASE("experts are matched in as many passes as the memory takes, with the same result") {
  const MemoryTrace base = rerouted(make_trace({.tokens = 1024}), 3, 8);
  const MemoryTrace b = renamed(base, base.header());
  MatchOptions little;
  little.memory = 1;
  little.window = 100;
  const auto one = match_experts(b, base);
  const auto several = match_experts(b, base, little);
  REQUIRE(one.size() == 3);
  for (std::size_t l = 0; l < 3; ++l) {
    CHECK(one[l].to == several[l].to);
    for (int e = 0; e < 8; ++e)
      CHECK(one[l].to[std::size_t((e * 3 + int(l)) % 8)] == e);
  }
}

TEST_CASE("rows that no router can have made are left out of comparisons") {
  const MemoryTrace base = rerouted(make_trace({.tokens = 256}), 3, 8);
  TraceRows zeros = rows_of(base);
  for (LayerRows& l : zeros.layer) {
    for (Index t = 0; t < 64; ++t)
      std::ranges::fill(l.expert.row(t), 0);
  }
  const MemoryTrace a{base.header(), base.sequences(), base.steps(), zeros};
  const Report r = against(a, rerouted(a, 9, 8));
  CHECK(r.warnings.at(0).find("64 tokens have one expert in several slots") != std::string::npos);
}
