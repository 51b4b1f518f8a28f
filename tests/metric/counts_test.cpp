// Traces of engines that only count: what counts can tell is what the full trace of the same
// routing tells, figure by figure and chance value by chance value; what they cannot is said, and
// counts that no router gives are named.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "analysis/compare/compare.h"
#include "analysis/compare/lights.h"
#include "tests/metric/counted.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

// Steps of 1, 2, 3, ... times 16 tokens.
MemoryTrace with_uneven_steps(const MemoryTrace& trace) {
  TraceRows rows = trace.read(0, trace.tokens(), trace.fields());
  std::vector<TraceStep> steps;
  std::uint64_t left = 0;
  for (std::size_t t = 0; t < rows.tokens(); ++t) {
    if (left == 0) {
      left = 16 * (steps.size() + 1);
      steps.push_back({std::int64_t(10 * steps.size()), t, 0, trace.steps()[0].phase});
    }
    --left;
    ++steps.back().num_tokens;
    rows.step[t] = std::uint32_t(steps.size() - 1);
  }
  return {trace.header(), trace.sequences(), std::move(steps), std::move(rows)};
}

bool same(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

bool same(const std::vector<double>& a, const std::vector<double>& b) {
  return std::ranges::equal(a, b, [](double x, double y) { return same(x, y); });
}

const Column* find(const Report& r, const std::string& table, const Column& like) {
  for (const Table& t : r.tables) {
    for (const Column& c : t.columns) {
      if (t.id == table && c.metric == like.metric && c.name == like.name)
        return &c;
    }
  }
  return nullptr;
}

bool warned(const Report& r, const std::string& part) {
  return std::any_of(r.warnings.begin(), r.warnings.end(),
                     [&](const std::string& w) { return w.find(part) != w.npos; });
}

std::string findings(const Report& r) {
  std::string out;
  for (const Finding& f : r.findings)
    out += f.text + "\n";
  return out;
}

std::map<std::string, std::vector<double>> by_id(const std::vector<MetricValue>& all) {
  std::map<std::string, std::vector<double>> out;
  for (const MetricValue& v : all)
    out[v.id] = v.values;
  return out;
}

const std::vector<std::string> every = {
    "load",    "drops",        "drift",      "router",  "domains",
    "planted", "context",      "vocabulary", "repeats", "crosslayer",
    "paths",   "coactivation", "redundancy", "pruning", "logit_similarity",
    "ranks",   "placement",    "cache",      "prefetch"};

}  // namespace

TEST_CASE("what counts can tell is what the full trace of the same routing tells") {
  for (const Make::Routing routing : {Make::random, Make::sticky, Make::collapsed}) {
    for (const int k : {1, 2, 5}) {
      Make m{.tokens = 2048, .layers = 3, .experts = 12, .k = k, .routing = routing};
      m.training = true;
      const MemoryTrace full = with_uneven_steps(make_trace(m));
      const MemoryTrace twin = twin_of(full);
      const auto of_rows = by_id(measure(full));
      AnalyzeOptions narrow;
      narrow.window = 3;  // steps at a time
      const auto of_counts = by_id(measure(twin, {}, narrow));
      for (const auto& [id, values] : of_counts) {
        INFO(id << ", k = " << k << ", routing " << int(routing));
        if (id == "eplb_balancedness_unseen_steps")
          continue;  // of counts alone
        REQUIRE(of_rows.contains(id));
        CHECK(same(values, of_rows.at(id)));
      }
      for (const char* id :
           {"load_counts", "load_cv", "load_cv_batch", "load_maxvio_global", "load_maxvio_batch",
            "load_dead_fraction", "load_entropy", "load_topn_coverage", "tile_padding_waste",
            "capacity_drop_rate", "load_drift_cv", "load_drift_tv", "ep_rank_imbalance",
            "ep_balancedness", "ep_balancedness_sum_ratio", "eplb_balancedness",
            "eplb_balancedness_unseen_steps", "expert_weight_cosine"}) {
        INFO(id);
        CHECK(of_counts.contains(id));
      }
      CHECK_FALSE(of_counts.contains("a2a_distinct_ranks"));
      CHECK_FALSE(of_counts.contains("token_saturation"));
    }
  }
}

TEST_CASE("the report of counts has the cells, chance values and lights of the full trace") {
  for (const int tokens : {24, 2048}) {
    Make m{.tokens = tokens, .layers = 2, .experts = 16, .k = 2};
    m.training = true;
    const MemoryTrace full = with_uneven_steps(make_trace(m));
    AnalyzeOptions o;
    o.bootstrap = 0;
    Report of_rows = analyze(full, {}, o);
    Report of_counts = analyze(twin_of(full), {}, o);
    int compared = 0;
    for (const Table& t : of_counts.tables) {
      for (const Column& c : t.columns) {
        const Column* other = find(of_rows, t.id, c);
        if (c.metric.empty() || c.metric == "eplb_balancedness_unseen_steps" || !other)
          continue;
        INFO(t.id << " / " << c.name << " of " << tokens << " tokens");
        if (const auto* cells = std::get_if<std::vector<double>>(&c.cells)) {
          // EPLB's chance value halves the tokens by steps, not by sequences
          CHECK(same(*cells, std::get<std::vector<double>>(other->cells)));
          if (t.id != "placement")
            CHECK(same(c.chance, other->chance));
          if (t.id != "placement")
            CHECK(same(c.chance_spread, other->chance_spread));
        }
        CHECK(same(c.evidence.reach, other->evidence.reach));
        CHECK(same(c.evidence.tokens, other->evidence.tokens));
        CHECK(same(c.evidence.needed, other->evidence.needed));
        ++compared;
      }
    }
    CHECK(compared > 30);
    CHECK(add_lights(of_rows, thresholds({})) == add_lights(of_counts, thresholds({})));
    CHECK(findings(of_counts).find("nan") == std::string::npos);
  }
}

TEST_CASE("of counts, one remark names every metric that needs tokens") {
  const MemoryTrace twin = twin_of(make_trace({.tokens = 512}));
  const Report r = analyze(twin);
  CHECK(std::ranges::count(r.facts, std::pair<std::string, std::string>(
                                        "counts",
                                        "8 steps, 1024 assignments in a MoE layer (512 "
                                        "tokens)")) == 1);
  CHECK(std::ranges::count_if(r.warnings, [](const std::string& w) {
          return w.find("need tokens and are left out") != w.npos;
        }) == 1);
  CHECK(warned(r,
               "router, loss, domains, planted, context, vocabulary, repeats, crosslayer, paths, "
               "coactivation, pruning, logit_similarity, cache, prefetch need tokens"));
  CHECK_FALSE(warned(r, "the trace holds no tokens,\n"));
  for (const std::string& name : every) {
    INFO(name);
    const Report one = analyze(twin, {name});
    const bool answers = name == "load" || name == "drops" || name == "drift" || name == "ranks" ||
                         name == "placement" || name == "redundancy";
    CHECK(one.tables.empty() != answers);
    CHECK(warned(one, name + " needs tokens and is left out") != answers);
  }
}

TEST_CASE("where the tokens are not known nothing is said that needs them") {
  const MemoryTrace full = make_trace({.tokens = 4096, .experts = 16, .k = 2});
  TraceHeader h = counted_header(full);
  for (TraceLayer& l : h.layers)
    l.top_k = 0;
  Report r = analyze(counted(h, full.steps()));
  CHECK(warned(r, "how many experts a token chose (top_k) is not recorded. So"));
  CHECK(warned(r, "the number of tokens is not known"));
  CHECK(findings(r).find("random routing: at most 0.0") != std::string::npos);
  CHECK(findings(r).find("nan") == std::string::npos);
  const auto known = by_id(measure(twin_of(full)));
  for (const auto& [id, values] : by_id(measure(counted(h, full.steps())))) {
    INFO(id);
    CHECK(same(values, known.at(id)));
  }
  for (const Table& t : r.tables) {
    for (const Column& c : t.columns) {
      INFO(t.id << " / " << c.name);
      if (c.metric == "load_cv" || c.metric == "ep_balancedness" ||
          c.metric == "capacity_drop_rate" || c.metric == "eplb_balancedness") {
        CHECK(c.chance.empty());
      }
    }
  }
  CHECK(*add_lights(r, thresholds({})) == Light::green);
}

TEST_CASE("few assignments are called few, in assignments") {
  const MemoryTrace full = make_trace({.tokens = 24, .experts = 16, .k = 2});
  TraceHeader h = counted_header(full);
  for (TraceLayer& l : h.layers)
    l.top_k = 0;
  Report r = analyze(counted(h, full.steps()));
  CHECK(*add_lights(r, thresholds({})) == Light::grey);
  CHECK(r.findings[0].text.find("The 48 assignments of this trace are too few") !=
        std::string::npos);
  CHECK(findings(r).find("48 assignments are too few to judge whether routing is balanced") !=
        std::string::npos);
  CHECK(findings(r).find("tokens are too few") == std::string::npos);
}

TEST_CASE("the placement alone judges the balance as the ranks do") {
  for (const int tokens : {16, 4096}) {
    const MemoryTrace full = make_trace({.tokens = tokens, .experts = 16, .k = 2});
    TraceHeader h = counted_header(full);
    for (TraceLayer& l : h.layers)
      l.top_k = 0;
    const MemoryTrace unknown = counted(h, full.steps());
    const MemoryTrace twin = twin_of(full);
    const Light light = tokens < 100 ? Light::grey : Light::green;
    for (const TraceSource* trace :
         {(const TraceSource*)&full, (const TraceSource*)&twin, (const TraceSource*)&unknown}) {
      Report placed = analyze(*trace, {"placement"});
      Report ranked = analyze(*trace, {"ranks"});
      CHECK(*add_lights(placed, thresholds({})) == light);
      CHECK(*add_lights(ranked, thresholds({})) == light);
    }
  }
}

TEST_CASE("a bound for unknown tokens never lights what known ones leave grey") {
  for (const int tokens : {8, 24, 80, 300}) {
    for (const int k : {2, 4, 8}) {
      const MemoryTrace full =
          make_trace({.tokens = tokens, .layers = 2, .experts = 16, .k = k, .domains = 1});
      TraceHeader h = counted_header(full);
      Report known = analyze(counted(h, full.steps()), {"load", "ranks"});
      for (TraceLayer& l : h.layers)
        l.top_k = 0;
      Report unknown = analyze(counted(h, full.steps()), {"load", "ranks"});
      for (const Table& t : unknown.tables) {
        for (const Column& c : t.columns) {
          const Column* other = find(known, t.id, c);
          for (std::size_t i = 0; i < c.evidence.reach.size(); ++i) {
            INFO(c.name << ", " << tokens << " tokens, k = " << k);
            if (c.metric == "ep_balancedness")
              CHECK(c.evidence.reach[i] <= other->evidence.reach[i] + 1e-12);
            else
              CHECK(c.evidence.reach[i] >= other->evidence.reach[i] - 1e-12);
          }
        }
      }
    }
  }
}

TEST_CASE("counts that no router gives are named and left out") {
  const MemoryTrace full = make_trace({.tokens = 512, .layers = 2, .experts = 8, .k = 2});
  const TraceHeader good = counted_header(full);
  const auto counts_of = [&](const TraceHeader& h) {
    return by_id(measure(counted(h, full.steps()), {"load"})).at("load_counts");
  };
  TraceHeader zeros = good;  // routing that was not recorded: expert 0 in both slots
  for (Index e = 0; e < 8; ++e)
    zeros.counts(3, 8 + e) = e == 0 ? 128 : 0;
  TraceHeader gone = good;
  for (Index e = 0; e < 8; ++e)
    gone.counts(3, 8 + e) = 0;
  CHECK(counts_of(zeros) == counts_of(gone));
  CHECK(warned(analyze(counted(zeros, full.steps())),
               "1 of 16 counts of a step in a layer have more assignments to an expert, or in all, "
               "than the step's tokens can give (first: step 3, MoE layer 3): left out"));
  TraceHeader minus = good;
  minus.counts(3, 8 + 5) = 0xFFFFFFFFu;
  CHECK(counts_of(minus) == counts_of(gone));
  CHECK(warned(analyze(counted(minus, full.steps())), "which is -1 (first: step 3, MoE layer 3)"));
  CHECK_FALSE(warned(analyze(counted(good, full.steps())), "left out of every figure"));
}

TEST_CASE("counts of nothing but what cannot be are refused") {
  const MemoryTrace full = make_trace({.tokens = 512, .layers = 2, .experts = 8, .k = 2});
  TraceHeader h = counted_header(full);
  for (Index s = 0; s < h.counts.rows(); ++s) {
    for (Index c = 0; c < h.counts.cols(); ++c)
      h.counts(s, c) = c % 8 == 0 ? 128 : 0;
  }
  CHECK_THROWS_WITH(analyze(counted(h, full.steps())),
                    Catch::Contains("nothing in the trace can be routing: 16 of 16 counts"));
  std::ranges::fill(h.counts.flat(), 0);
  CHECK_THROWS_WITH(analyze(counted(h, full.steps())),
                    Catch::Contains("every count of its 8 steps is 0"));
}

TEST_CASE("a top-k that does not divide the counts is not believed") {
  const MemoryTrace full = make_trace({.tokens = 512, .layers = 2, .experts = 8, .k = 2});
  TraceHeader h = counted_header(full);
  ++h.counts(2, 3);
  const Report r = analyze(counted(h, full.steps()));
  CHECK(warned(r, "top_k does not divide the assignments of MoE layer 1 (1 time)"));
  CHECK_FALSE(warned(r, "left out of every figure"));
  h.capture_point = "post_capacity";
  CHECK(warned(analyze(counted(h, full.steps())), "capacity took some choices"));
  CHECK(warned(analyze(counted(h, full.steps())), "loads look more even than the router"));
}

TEST_CASE("steps that name their tokens are believed where there are no rows") {
  const MemoryTrace full = make_trace({.tokens = 512, .layers = 2, .experts = 8, .k = 2});
  TraceHeader h = counted_header(full);
  for (TraceLayer& l : h.layers)
    l.top_k = 0;
  TraceRows none;
  none.layer.resize(2);
  const Report r = analyze(MemoryTrace(h, {}, full.steps(), none));
  CHECK_FALSE(warned(r, "not known"));
  const Report of_rows = analyze(full);
  for (const Table& t : r.tables) {
    for (const Column& c : t.columns) {
      INFO(t.id << " / " << c.name);
      if (const Column* other = find(of_rows, t.id, c); other && t.id != "placement")
        CHECK(same(c.chance, other->chance));
    }
  }
  std::vector<TraceStep> some = full.steps();  // one that does not say so
  some[3].num_tokens = 0;
  CHECK(warned(analyze(MemoryTrace(h, {}, some, none)), "the number of tokens is not known"));
  std::vector<TraceStep> fewer = full.steps();
  fewer[1].num_tokens = 5;
  CHECK(warned(analyze(MemoryTrace(h, {}, fewer, none)),
               "the step's tokens can give (first: step 1"));
}

TEST_CASE("a layer without counts takes nothing from the others") {
  const MemoryTrace full = make_trace({.tokens = 512, .layers = 3, .experts = 8, .k = 2});
  TraceHeader h = counted_header(full);
  for (Index s = 0; s < h.counts.rows(); ++s) {
    for (Index e = 0; e < 8; ++e)
      h.counts(s, e) = 0;
  }
  const Report r = analyze(counted(h, full.steps()));
  CHECK(warned(r, "no token has a choice in layer 1"));
  for (const Table& t : r.tables) {
    if (t.id != "drift" && t.id != "placement" && t.id != "dropped")
      continue;
    for (const Column& c : t.columns) {
      const auto* cells = std::get_if<std::vector<double>>(&c.cells);
      if (cells && t.id == "drift" && c.name == "load CV")
        CHECK(std::ranges::none_of(*cells, [](double v) { return std::isnan(v); }));
    }
  }
  CHECK(std::ranges::any_of(r.tables, [](const Table& t) { return t.id == "dropped"; }));
}

TEST_CASE("traces of counts stand side by side, and against nothing") {
  const MemoryTrace full = make_trace({.tokens = 512, .layers = 2, .experts = 8, .k = 2});
  const MemoryTrace twin = twin_of(full);
  const Report r = side_by_side({{"rows", &full, ""}, {"counts", &twin, ""}}, {});
  CHECK(warned(r, "counts: holds no tokens"));
  CHECK(r.facts.at(1).second.starts_with("counts of 8 steps"));
  for (const Table& t : r.tables) {
    if (t.id != "side_by_side")
      continue;
    const auto& figure = std::get<std::vector<std::string>>(t.columns[0].cells);
    for (std::size_t i = 0; i < figure.size(); ++i) {
      if (figure[i] == "load CV" || figure[i] == "balancedness of expert-parallel ranks")
        CHECK(std::get<std::vector<double>>(t.columns[1].cells)[i] ==
              std::get<std::vector<double>>(t.columns[2].cells)[i]);
    }
  }
  CHECK_THROWS_WITH(compare_against({"counts", &twin, ""}, {"rows", &full, ""}, {}),
                    Catch::Contains("the trace holds only how many tokens each expert took"));
  CHECK_THROWS_WITH(compare_against({"counts", &twin, ""}, {"more", &twin, ""}, {}),
                    Catch::Contains("both hold only how many tokens"));
}
