// Reports over small traces: every metric of the registry with each of its example specs on an
// empty, a one-token, a one-expert and a random trace; random routing lies near chance, forced
// structure shows.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

std::size_t height(const Column& c) {
  return std::visit([](const auto& cells) { return cells.size(); }, c.cells);
}

void check_table(const Table& t) {
  INFO("table " << t.id);
  CHECK_FALSE(t.id.empty());
  CHECK_FALSE(t.title.empty());
  CHECK(t.reading.size() > 40);
  CHECK_FALSE(t.section.empty());
  REQUIRE(t.columns.size() > 1);
  const std::map<std::string, std::size_t> several{
      {"domain_map", 4}, {"modality_map", 4}, {"crossmodal_map", 5}};  // a map of each layer, pair
  if (t.chart == Chart::heatmap)
    CHECK(t.columns.size() == (several.contains(t.id) ? several.at(t.id) : 3));
  for (const Column& c : t.columns) {
    INFO("column " << c.name);
    CHECK_FALSE(c.name.empty());
    CHECK_FALSE(c.meaning.empty());
    CHECK(height(c) == height(t.columns[0]));
    if (!c.chance.empty())
      CHECK(c.chance.size() == height(c));
  }
}

const Column& find(const Report& r, const std::string& table, const std::string& id) {
  for (const Table& t : r.tables) {
    if (t.id == table) {
      for (const Column& c : t.columns) {
        if (c.metric == id)
          return c;
      }
    }
  }
  throw std::runtime_error("no " + table + "/" + id);
}
const std::vector<double>& cells(const Column& c) {
  return std::get<std::vector<double>>(c.cells);
}

bool said(const Report& r, const std::string& part) {
  return std::any_of(r.findings.begin(), r.findings.end(),
                     [&](const Finding& f) { return f.text.find(part) != std::string::npos; });
}

AnalyzeOptions window(std::uint64_t rows) {
  AnalyzeOptions o;
  o.window = rows;
  for (int id = 0; id < 64; ++id)
    o.planted_labels.push_back(id % 4);
  return o;
}

}  // namespace

TEST_CASE("every metric, with every example, answers on traces of every odd shape") {
  Make empty, one, lone, bare, usual;
  empty.tokens = 0;
  one.tokens = 1;
  lone.experts = lone.k = 1;
  bare.extras = false;
  bare.domains = 0;
  usual.tokens = 200;
  lone.tokens = bare.tokens = 200;
  usual.logits = usual.training = usual.modalities = true;
  for (const auto& entry : metrics().entries()) {
    for (const std::string& spec : split(entry.examples, ' ')) {
      for (const Make& m : {empty, one, lone, bare, usual}) {
        if (entry.name == "place" && m.experts == 1)
          continue;  // one expert does not divide among GPUs, which is refused
        INFO(spec << " on " << m.tokens << " tokens, " << m.experts << " experts");
        const MemoryTrace trace = make_trace(m);
        const Report r = analyze(trace, {spec}, window(64));
        for (const Table& t : r.tables)
          check_table(t);
        for (const MetricValue& v : measure(trace, {spec}, window(64))) {
          Index size = 1;
          for (const Index d : v.dims)
            size *= d;
          CHECK(size == Index(v.values.size()));
        }
        const bool answers = entry.name != "modality" || m.modalities;
        if (m.tokens == 200 && m.domains && m.experts > 1 && answers)
          CHECK_FALSE(r.tables.empty());
      }
    }
  }
}

TEST_CASE("random routing lies near chance, in every column that says what chance is") {
  Make m;
  m.tokens = 8192;
  const Report r = analyze(make_trace(m), {}, window(8192));
  int checked = 0;
  for (const Table& t : r.tables) {
    // extremes, or not routing
    if (t.detail || t.id == "paths" || t.id == "redundant_pairs" || t.id == "redundancy" ||
        t.id == "router" || t.id == "coactivation" || t.id == "domain_experts") {
      continue;
    }
    for (const Column& c : t.columns) {
      const auto* v = std::get_if<std::vector<double>>(&c.cells);
      // a correlation over 8 experts is anything
      if (!v || c.metric == "predictor_count_spearman")
        continue;
      for (std::size_t i = 0; i < c.chance.size() && i < v->size(); ++i) {
        if (std::isnan((*v)[i]) || std::isnan(c.chance[i]))
          continue;
        INFO(t.id << " / " << c.name << " row " << i << ": " << (*v)[i] << ", chance "
                  << c.chance[i]);
        CHECK(std::abs((*v)[i] - c.chance[i]) <= 0.6 * std::abs(c.chance[i]) + 0.01);
        ++checked;
      }
    }
  }
  CHECK(checked > 60);
  CHECK(said(r, "as even as chance"));
  CHECK(said(r, "No expert is dead"));
  CHECK(said(r, "do not tell the domains apart"));
  CHECK_FALSE(said(r, "Who took"));
  CHECK(said(r, "no more than random routing"));
  for (const Table& t : r.tables) {
    if (t.id == "coactivation")
      CHECK(cells(t.columns[5])[0] == Approx(t.columns[5].chance[0]).epsilon(0.15));
  }
}

TEST_CASE("collapse shows: dead experts, infinite max/min, one path") {
  Make m;
  m.routing = Make::collapsed;
  m.tokens = 512;
  const Report r = analyze(make_trace(m));
  CHECK(cells(find(r, "load", "load_cv"))[0] == Approx(std::sqrt(3.0)));
  CHECK(cells(find(r, "load", "load_dead_fraction"))[0] == 0.75);
  CHECK(std::isinf(cells(find(r, "load", "load_max_over_min"))[0]));
  CHECK(cells(find(r, "paths", "path_frequency")) == std::vector<double>{1});
  CHECK(cells(find(r, "repeats", "repeat_first"))[0] == 1);
  CHECK(said(r, "18 of 24 experts are dead"));
  CHECK(said(r, "badly unbalanced"));
}

TEST_CASE("experts that take one domain each are named, with all the information there is") {
  Make m;
  m.routing = Make::by_domain;
  m.tokens = 1024;
  const Report r = analyze(make_trace(m));
  CHECK(cells(find(r, "domains", "domain_expert_mi_norm"))[0] == Approx(1));
  CHECK(cells(find(r, "domains", "domain_max_lift"))[0] == Approx(2));
  CHECK(said(
      r, "Who took domain1: expert 2 of layer 1 (100.0 % of its tokens, 2.0x its usual share)"));
  CHECK(r.samples.size() == 2);
  CHECK(r.samples[1].domain == "domain1");
  CHECK(r.samples[1].piece.size() == 512);
  CHECK(r.samples[1].expert.size() == 3);
  CHECK(r.samples[1].expert[0][0] == 2);
  CHECK(r.layers == std::vector<int>{1, 3, 5});
}

TEST_CASE("redundant pairs are listed above the threshold that was set") {
  const MemoryTrace trace = make_trace({});
  const auto rows = [&](const std::string& spec) {
    const Report r = analyze(trace, {spec});
    for (const Table& t : r.tables) {
      if (t.id == "redundant_pairs")
        return height(t.columns[0]);
    }
    return std::size_t(999);
  };
  CHECK(rows("redundancy") == 3);  // experts 0 and 1 of three layers
  CHECK(rows("redundancy:threshold=0.99") == 0);
  CHECK(said(analyze(trace, {"redundancy"}),
             "3 pairs of experts are redundant, with a cosine above 0.80, by weights."));
}

TEST_CASE("values do not depend on the window or the number of threads") {
  const MemoryTrace trace = make_trace({});
  const int before = threads();
  set_threads(1);
  const auto a = measure(trace, {}, window(100000));
  set_threads(3);
  const auto b = measure(trace, {}, window(37));
  set_threads(before);
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO(a[i].id);
    REQUIRE(a[i].values.size() == b[i].values.size());
    bool same = true;
    for (std::size_t j = 0; j < a[i].values.size(); ++j) {
      same &= a[i].values[j] == b[i].values[j] ||
              (std::isnan(a[i].values[j]) && std::isnan(b[i].values[j]));
    }
    CHECK(same);
  }
}

TEST_CASE("unknown metrics, unknown options and senseless rows are refused in one sentence") {
  const MemoryTrace trace = make_trace({});
  CHECK_THROWS_WITH(analyze(trace, {"laod"}), "no metric named 'laod'");
  CHECK_THROWS_WITH(analyze(trace, {"load:top=3"}), "load has no option 'top'");
  TraceHeader h = trace.header();
  h.layers[1].experts = 4;
  const MemoryTrace wrong(h, trace.sequences(), trace.steps(), trace.read(0, trace.tokens(), {}));
  CHECK_THROWS_AS(analyze(wrong), Error);
}

TEST_CASE("pairs of very many experts are left out in a sentence, and the rest is reported") {
  const MemoryTrace trace = make_trace({.tokens = 64, .layers = 1, .experts = 64, .extras = false});
  // of counts; of a row a pair
  const AnalyzeOptions small{.memory = 8 * 64 * 64 - 1};
  const AnalyzeOptions counts{.memory = 8 * 64 * 64};
  const AnalyzeOptions enough{.memory = 32 * 64 * 64};
  const Report r = analyze(trace, {"load", "coactivation:top=3"}, small);
  const Report listed = analyze(trace, {"coactivation:top=3"}, counts);
  REQUIRE(r.warnings.size() == 1);
  CHECK(r.warnings[0].find("which experts are chosen together is left out") != std::string::npos);
  CHECK_FALSE(r.tables.empty());
  REQUIRE(listed.warnings.size() == 1);
  CHECK(listed.warnings[0].find("maps of experts chosen together are left out") !=
        std::string::npos);
  CHECK(listed.tables.size() == 2);
  CHECK(analyze(trace, {"load", "coactivation:top=3"}, enough).warnings.empty());
  CHECK(measure(trace, {"coactivation"}, counts).empty());  // values have two matrices
  CHECK_FALSE(measure(trace, {"coactivation"}, enough).empty());
  CHECK_THROWS(analyze(trace, {"coactivation:tops=3"}, small));
}
