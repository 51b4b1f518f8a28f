// Columns hold the figures that they name: those of list options each its own entry, and those
// without a definition what their meaning says.
#include <catch2/catch.hpp>
#include <cmath>

#include "analysis/metric/layout.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

const Table& table(const Report& r, const std::string& id) {
  for (const Table& t : r.tables) {
    if (t.id == id)
      return t;
  }
  throw std::runtime_error("no table " + id);
}
const Column& column(const Table& t, const std::string& name) {
  for (const Column& c : t.columns) {
    if (c.name == name)
      return c;
  }
  throw std::runtime_error("no column " + name);
}
const std::vector<double>& cells(const Column& c) {
  return std::get<std::vector<double>>(c.cells);
}
const std::vector<double>& values(const std::vector<MetricValue>& all, const std::string& id) {
  for (const MetricValue& v : all) {
    if (v.id == id)
      return v.values;
  }
  throw std::runtime_error("no " + id);
}

struct ListOption {
  const char *spec, *table, *id;
  std::vector<std::string> columns;  // one an entry, in the order of the option
};

}  // namespace

TEST_CASE("a column of a list option holds the values of its entry") {
  // layers that differ: the routing of layer 0 is collapsed to the first two experts
  MemoryTrace even = make_trace({.tokens = 1024});
  TraceRows rows = even.read(0, even.tokens(), even.fields());
  for (Index t = 0; t < rows.layer[0].expert.rows(); ++t) {
    rows.layer[0].expert(t, 0) = int(t % 2);
    rows.layer[0].expert(t, 1) = int((t + 1) % 2);
  }
  const MemoryTrace trace(even.header(), even.sequences(), even.steps(), std::move(rows));
  const std::size_t layers = trace.header().layers.size();
  for (const ListOption& o :
       {ListOption{"load:topn={1,3}",
                   "load_more",
                   "load_topn_coverage",
                   {"share of top 1", "share of top 3"}},
        ListOption{"load:topn={1,3}",
                   "load_more",
                   "load_topn_concentration",
                   {"concentration of top 1", "concentration of top 3"}},
        ListOption{"load:tile_sizes={4,64}",
                   "load_more",
                   "tile_padding_waste",
                   {"padding at tile 4", "padding at tile 64"}},
        ListOption{"drops:capacity_factors={1,1.5}",
                   "dropped",
                   "capacity_drop_rate",
                   {"at factor 1", "at factor 1.5"}},
        ListOption{"repeats:lags={1,4}", "lags", "lag_overlap", {"lag 1", "lag 4"}},
        ListOption{"repeats:batch_sizes={2,16}",
                   "distinct",
                   "distinct_experts",
                   {"2 tokens", "16 tokens"}},
        ListOption{"prefetch:prefetch_sizes={1,2}",
                   "prefetch",
                   "prefetch_recall",
                   {"recall at 1", "recall at 2"}}}) {
    const Report r = analyze(trace, {o.spec});
    const auto measured = measure(trace, {o.spec});
    const std::vector<double>& all = values(measured, o.id);
    REQUIRE(all.size() == layers * o.columns.size());
    for (std::size_t i = 0; i < o.columns.size(); ++i) {
      INFO(o.columns[i]);
      const Column& c = column(table(r, o.table), o.columns[i]);
      CHECK(c.metric == o.id);
      for (std::size_t l = 0; l < layers; ++l)
        CHECK(cells(c).at(l) == all[l * o.columns.size() + i]);
    }
    // else one entry or layer read for another would go unseen
    CHECK(all[o.columns.size()] != all[o.columns.size() + 1]);
    CHECK(all[0] != all[o.columns.size()]);
  }
}

TEST_CASE("columns without a definition hold what their meaning says") {
  const MemoryTrace trace = make_trace({.tokens = 512, .layers = 2, .experts = 4, .k = 1});
  const TraceRows rows = trace.read(0, trace.tokens(), trace.fields());
  const auto count = [&](int first, int second) {  // -1: any expert
    double n = 0;
    for (Index t = 0; t < Index(trace.tokens()); ++t) {
      n += (first < 0 || rows.layer[0].expert(t, 0) == first) &&
           (second < 0 || rows.layer[1].expert(t, 0) == second);
    }
    return n;
  };
  const Report r = analyze(trace, {"paths:top=3", "crosslayer:top=2"});
  const Table& paths = table(r, "paths");
  const auto& names = std::get<std::vector<std::string>>(paths.columns.at(0).cells);
  REQUIRE(names.size() == 3);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const int a = names[i].front() - '0';
    const int b = names[i].back() - '0';
    INFO(names[i]);
    CHECK(std::get<std::vector<std::int64_t>>(column(paths, "tokens").cells).at(i) ==
          std::int64_t(count(a, b)));
    CHECK(cells(column(paths, "if independent")).at(i) ==
          Approx(count(a, -1) * count(-1, b) / double(trace.tokens())));
  }
  const Table& steps = table(r, "transitions");
  const auto& from = std::get<std::vector<std::int64_t>>(column(steps, "from").cells);
  const auto& to = std::get<std::vector<std::int64_t>>(column(steps, "to").cells);
  for (std::size_t i = 0; i < from.size(); ++i) {
    const int a = int(from[i]);
    const int b = int(to[i]);
    CHECK(cells(column(steps, "share")).at(i) == Approx(count(a, b) / count(a, -1)));
    CHECK(cells(column(steps, "lift")).at(i) ==
          Approx(count(a, b) * double(trace.tokens()) / (count(a, -1) * count(-1, b))));
  }
}

namespace {

// Of a report's flow: share of the tokens between two names.
double share_between(const Table& flow, const std::string& step, const std::string& from,
                     const std::string& to) {
  const auto words = [&](std::size_t c, std::size_t r) {
    return std::get<std::vector<std::string>>(flow.columns.at(c).cells).at(r);
  };
  for (std::size_t r = 0; r < cells(column(flow, "share")).size(); ++r) {
    if (words(0, r) == step && words(1, r) == from && words(2, r) == to)
      return cells(column(flow, "share"))[r];
  }
  return -1;
}

}  // namespace

TEST_CASE("the flow from layer to layer is the shares of first choices, the quiet ones together") {
  const MemoryTrace trace = make_trace({.tokens = 4096, .layers = 3, .experts = 20, .k = 1});
  const TraceRows rows = trace.read(0, trace.tokens(), trace.fields());
  std::vector<std::int64_t> load(20, 0);
  for (Index t = 0; t < Index(trace.tokens()); ++t)
    ++load[std::size_t(rows.layer[0].expert(t, 0))];
  const Report r = analyze(trace, {"crosslayer"});
  const Table& flow = table(r, "flow");
  CHECK(flow.chart == Chart::flow);
  CHECK(flow.warnings.empty());
  CHECK(flow.columns.at(0).cells.index() == 2);
  double all = 0;
  for (const double share : cells(column(flow, "share")))
    all += share;
  CHECK(all == Approx(2));  // of each of two steps
  const auto busiest = std::ranges::max_element(load) - load.begin();
  double from_busiest = 0;
  std::vector<std::string> names{"others"};
  for (int e = 0; e < 20; ++e)
    names.push_back(std::to_string(e));
  for (const std::string& to : names)
    from_busiest += std::max(0.0, share_between(flow, "1→3", std::to_string(busiest), to));
  CHECK(from_busiest == Approx(double(load[std::size_t(busiest)]) / 4096));
  CHECK(share_between(flow, "1→3", "others", "others") > 0.05);  // 8 of 20 on either side
}

TEST_CASE("of many layers those neighbours flow that tell most of each other") {
  const Report r =
      analyze(make_trace({.tokens = 256, .layers = 14, .experts = 4, .k = 1}), {"crosslayer"});
  const Table& flow = table(r, "flow");
  REQUIRE(flow.warnings.size() == 1);
  CHECK(flow.warnings[0] ==
        "drawn are the 12 neighbouring layers that tell most of each other, of 14");
  CHECK(cells(column(flow, "share")).size() == 11 * 16);
}
