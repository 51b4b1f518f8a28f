// A trace on a cluster over time, and models of more and more experts.
#include "apps/plan_simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/plan_columns.h"
#include "apps/terminal.h"
#include "lib/plan/growth.h"
#include "lib/trace/reader.h"

namespace moe {
namespace {

using plan::SimulatedStep;

constexpr std::size_t shown_parts = 48;  // of the run, in charts
constexpr double gib = 1024.0 * 1024 * 1024;

double quantile(std::vector<double> v, double q) {
  std::ranges::sort(v);
  return v[std::min(v.size() - 1, std::size_t(q * double(v.size())))];
}

struct Totals {
  double tokens = 0, seconds = 0, ideal = 0, exchange = 0, moved = 0;
  std::vector<double> latency, imbalance;
};
Totals totals_of(const std::vector<SimulatedStep>& steps) {
  Totals t;
  for (const SimulatedStep& s : steps) {
    t.tokens += s.tokens;
    t.seconds += s.seconds;
    t.ideal += s.ideal_s;
    t.exchange += s.exchange_s;
    t.moved += s.moved_s;
    t.latency.push_back(1e3 * s.seconds);
    t.imbalance.push_back(s.imbalance);
  }
  return t;
}

Table totals_table(const Totals& t) {
  std::vector<std::string> what, unit;
  std::vector<double> value;
  const auto row = [&](const char* name, const char* of, double v) {
    what.emplace_back(name);
    unit.emplace_back(of);
    value.push_back(v);
  };
  row("throughput", "tok/s", t.tokens / t.seconds);
  row("throughput if all ranks had the mean load", "tok/s", t.tokens / t.ideal);
  row("a step, half are faster", "ms", quantile(t.latency, 0.5));
  row("a step, 99 of 100 are faster", "ms", quantile(t.latency, 0.99));
  row("imbalance, half of all steps are below", "x", quantile(t.imbalance, 0.5));
  row("imbalance, 99 of 100 are below", "x", quantile(t.imbalance, 0.99));
  row("waiting for exchange", "% of time", 100 * t.exchange / t.seconds);
  row("moving experts", "% of time", 100 * t.moved / t.seconds);
  Table out{
      .id = "simulation",
      .title = "The trace on this cluster",
      .reading = "imbalance: rows of the busiest rank over the mean rank's, mean over layers.",
      .section = "simulation"};
  out.columns = {{.name = "what", .cells = what},
                 number_column("value", "", "", value, 2),
                 {.name = "unit", .cells = unit}};
  return out;
}

Table over_time(const std::vector<SimulatedStep>& steps) {
  std::vector<std::int64_t> from;
  std::vector<double> imbalance, latency;
  const std::size_t part = (steps.size() + shown_parts - 1) / shown_parts;
  for (std::size_t i = 0; i < steps.size(); i += part) {
    double load = 0;
    double ms = 0;
    const std::size_t end = std::min(steps.size(), i + part);
    for (std::size_t s = i; s < end; ++s) {
      load += steps[s].imbalance / double(end - i);
      ms += 1e3 * steps[s].seconds / double(end - i);
    }
    from.push_back(std::int64_t(i));
    imbalance.push_back(load);
    latency.push_back(ms);
  }
  Table t{.id = "over_time",
          .title = "Over the run",
          .reading = fmt::format("Means over {} steps each.", part),
          .chart = Chart::lines,
          .section = "simulation"};
  t.columns = {Column{.name = "step", .cells = from},
               number_column("imbalance", "x", "busiest rank over the mean", imbalance, 2),
               number_column("time", "ms", "of a step", latency, 3)};
  return t;
}

struct Grown {
  std::vector<std::int64_t> experts;
  std::vector<double> x, parameters, memory, router, share, router_gib, counts, rows, touched;
};
Grown grown(const std::vector<plan::GrowthPoint>& points) {
  Grown g;
  for (const plan::GrowthPoint& p : points) {
    g.experts.push_back(p.experts);
    g.x.push_back(double(p.experts));
    g.parameters.push_back(p.parameters / 1e9);
    g.memory.push_back(p.bytes / gib);
    g.router.push_back(p.router_flops / 1e6);
    g.share.push_back(100 * p.router_share);
    g.router_gib.push_back(p.router_bytes / gib);
    g.counts.push_back(p.count_bytes / 1048576);
    g.rows.push_back(p.rows);
    g.touched.push_back(100 * p.touched);
  }
  return g;
}

Table growth_table(const Grown& g) {
  Table t{.id = "growth",
          .title = "As many choices of more and more experts of the same width",
          .reading =
              "rows: of one expert where each device has 4,096 tokens and 4 experts; it does "
              "not change, since devices grow with experts. touched: by 4,096 tokens, even "
              "routing. counts: tokens per expert of all layers, what balancers and "
              "exchanges pass around each step.",
          .section = "growth"};
  t.columns = {Column{.name = "experts", .cells = g.experts},
               number_column("parameters", "1e9", "", g.parameters, 1),
               number_column("memory", "GiB", "of all weights", g.memory, 1),
               number_column("router", "MFLOP", "of a token, all layers", g.router, 1),
               number_column("router share", "%", "of a token's products", g.share, 2),
               number_column("routers", "GiB", "weights, all layers", g.router_gib, 3),
               number_column("counts", "MiB", "4 bytes an expert, all layers", g.counts, 3),
               number_column("rows", "", "of one expert", g.rows, 0),
               number_column("touched", "%", "of experts", g.touched, 1)};
  return t;
}
Table growth_chart(const Grown& g) {
  Table t{.id = "router_share",
          .title = "Share of a token's products that its routers take",
          .reading = "Experts cost the same at every size; the router's product grows with them.",
          .chart = Chart::lines,
          .section = "growth"};
  t.columns = {Column{.name = "experts", .cells = g.experts},
               number_column("router share", "%", "of a token's products", g.share, 2)};
  return t;
}

}  // namespace

Report simulation_report(const std::filesystem::path& trace, const plan::Simulation& s) {
  Report r{.title = fmt::format("{} of {} on {} x {}", trace.filename().string(), s.model.name,
                                s.cluster.devices(), s.cluster.device.name)};
  Progress progress("tokens", double(TraceReader(trace).tokens()), "tok");
  const std::vector<SimulatedStep> steps =
      simulate(trace, s, [&](std::uint64_t rows) { progress.update(double(rows)); });
  const Totals t = totals_of(steps);
  r.facts = {
      {"steps", std::to_string(steps.size())},
      {"tokens", fmt::format("{:.0f}", t.tokens)},
      {"experts", s.rebalance > 0
                      ? fmt::format("placed by EPLB every {} steps, {} slots more than experts",
                                    s.rebalance, s.extra)
                      : "in order"},
      {"weights", s.weights.name}};
  r.findings.push_back(
      {fmt::format("{} tokens a second; with all ranks at the mean load {:.0f} % more. Half of "
                   "all steps take {:.2f} ms, one of a hundred {:.2f} ms or more.",
                   count_text(t.tokens / t.seconds), 100 * (t.seconds / t.ideal - 1),
                   quantile(t.latency, 0.5), quantile(t.latency, 0.99)),
       {{.table = "simulation", .column = "value", .rows = 4}}});
  r.findings.push_back(
      {"Ratios between runs of this simulation say more than its seconds: rates are data sheets "
       "with factors of published training.",
       {}});
  r.tables = {totals_table(t), over_time(steps)};
  return r;
}

Report growth_report(const Architecture& a, const plan::Storage& s, Count most) {
  Report r{.title = fmt::format("{} with up to {} experts", a.name, most)};
  const std::vector<plan::GrowthPoint> points = plan::growth(a, s, most);
  const Grown g = grown(points);
  r.facts = {{"weights", s.name}};
  const plan::GrowthPoint& last = points.back();
  r.findings.push_back(
      {fmt::format("With {} experts routers take {:.0f} % of a token's products, {:.1f} GiB of "
                   "weights; all weights {:.0f} GiB.",
                   last.experts, 100 * last.router_share, last.router_bytes / gib,
                   last.bytes / gib),
       {}});
  if (points.size() > 2) {
    r.findings.push_back(
        {fmt::format("Fitted over all sizes, parameters grow as E^{:.2f}, a router's work as "
                     "E^{:.2f}; a token's choices, {:.0f} bytes of ids and weights, do not grow.",
                     plan::exponent(g.x, g.parameters), plan::exponent(g.x, g.router),
                     last.table_bytes),
         {}});
  }
  r.tables = {growth_table(g), growth_chart(g)};
  return r;
}

}  // namespace moe
