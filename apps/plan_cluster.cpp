// Clusters in tables and sentences.
#include "apps/plan_cluster.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/plan_columns.h"
#include "apps/terminal.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

using plan::Candidate;
using plan::Term;
using plan::Terms;

constexpr double gib = 1024.0 * 1024 * 1024;
constexpr const char* of_cluster = "on a cluster";
constexpr const char* of_published = "held to what is published";
constexpr std::size_t shown_layouts = 12;

std::string band_text() {
  const plan::Calibration& c = plan::calibration();
  return fmt::format(
      "Of {} published runs, each predicted by a fit without any run of its model on its device, "
      "half are within {:.0f} %, 80 % within {:.0f} %, the worst {:.0f} % off.",
      c.rows, 100 * c.strange.half, 100 * c.strange.most, 100 * c.strange.worst);
}

double largest(const plan::StepParts& p, const Terms& factors, Term& which) {
  double most = -1;
  for (std::size_t i = 0; i < plan::term_count; ++i) {
    if (const double s = p.seconds[i] * factors[i]; s > most) {
      most = s;
      which = Term(i);
    }
  }
  return most;
}

std::vector<Table> step_tables(const Candidate& c, const Terms& factors) {
  std::vector<std::string> term, meaning;
  std::vector<double> seconds, share, factor;
  const double all = step_seconds(c.parts, factors);
  for (std::size_t i = 0; i < plan::term_count; ++i) {
    if (c.parts.seconds[i] == 0)
      continue;
    term.emplace_back(name_of(Term(i)));
    meaning.emplace_back(about(Term(i)));
    seconds.push_back(c.parts.seconds[i] * factors[i]);
    share.push_back(100 * seconds.back() / all);
    factor.push_back(factors[i]);
  }
  Table t{.id = "step",
          .title = fmt::format("A step of {:.2f} s in its terms", all),
          .reading = fmt::format(
              "Of the slowest rank, pipeline bubble ({:.1f} % of the time of micro-batches) and "
              "longest stage ({:.2f} of the mean) in each. factor: how much longer than the data "
              "sheet, fitted to published runs; terms follow each other, nothing overlaps but what "
              "overlap= says.",
              100 * c.parts.bubble, c.parts.slowest),
          .chart = Chart::bars,
          .section = of_cluster};
  t.columns = {text_column("term", term), number_column("time", "s", "of a step", seconds, 3)};
  Table details{.id = "terms", .title = "The terms", .section = of_cluster};
  details.columns = {
      text_column("term", term), number_column("share", "%", "of the step", share, 1),
      number_column("factor", "x", "over the full rate, or seconds a layer", factor, 4),
      text_column("what", meaning)};
  return {std::move(t), std::move(details)};
}

Table memory_table(const Candidate& c, const plan::Cluster& cluster) {
  const plan::TrainingMemory& m = c.memory;
  Table t{.id = "memory_rank",
          .title = fmt::format("Memory of a rank: {:.1f} GiB of {:.1f}", m.all() / gib,
                               cluster.device.memory / gib),
          .reading =
              "bf16 weights, f32 gradients, f32 master weights and both moments, cut as the layout "
              "says; activations of the micro-batches that a first stage has under way, kept "
              "between products in the bits of these (recompute=1: one row a layer), and logits.",
          .chart = Chart::bars,
          .section = of_cluster};
  t.columns = {
      text_column("part", {"weights", "gradients", "optimiser", "activations"}),
      number_column("size", "GiB", "on the rank",
                    {m.weights / gib, m.gradients / gib, m.optimizer / gib, m.activations / gib},
                    2)};
  return t;
}

Table sensitivity_table(const Candidate& c, const Terms& factors) {
  std::vector<std::string> what;
  std::vector<double> gain;
  for (const plan::Gain& g : sensitivity(c, factors)) {
    what.push_back("+10 % " + g.what);
    gain.push_back(g.percent);
  }
  Table t{.id = "sensitivity",
          .title = "What a tenth more would bring",
          .reading = "More tokens a second, everything else as it is.",
          .chart = Chart::bars,
          .section = of_cluster};
  t.columns = {text_column("of the cluster", what),
               number_column("gain", "%", "tokens a second", gain, 2)};
  return t;
}

// Device-hours in thousands for 10^12 tokens, at so many a second and device.
double kilo_hours(double tokens) {
  return 1e12 / tokens / 3600 / 1e3;
}

struct LayoutColumns {
  std::vector<std::string> layout, limit;
  std::vector<double> tokens, cost, memory, bubble, imbalance;

  void add(const Candidate& c, const Terms& factors) {
    Term most = Term::narrow;
    largest(c.parts, factors, most);
    layout.push_back(text_of(c.layout));
    tokens.push_back(c.tokens);
    cost.push_back(kilo_hours(c.tokens));
    memory.push_back(c.memory.all() / gib);
    bubble.push_back(100 * c.parts.bubble);
    imbalance.push_back(c.parts.imbalance);
    limit.emplace_back(name_of(most));
  }
};

Table layouts_table(const std::vector<Candidate>& all, const plan::Cluster& cluster,
                    const Terms& factors) {
  LayoutColumns v;
  for (const Candidate& c : all)
    v.add(c, factors);
  Table t{.id = "layouts",
          .title = "Layouts side by side",
          .reading = fmt::format("On {} x {}. Cost: thousands of device-hours for 10^12 tokens. "
                                 "Differences below the band say little.",
                                 cluster.devices(), cluster.device.name),
          .section = of_cluster};
  t.columns = {text_column("layout", v.layout),
               number_column("tokens", "tok/s", "a device", v.tokens, 0),
               number_column("cost", "kh", "device-hours for 10^12 tokens", v.cost, 1),
               number_column("memory", "GiB", "of a rank", v.memory, 1),
               number_column("bubble", "%", "of micro-batch time", v.bubble, 1),
               number_column("imbalance", "x", "busiest expert rank over the mean", v.imbalance, 2),
               text_column("largest term", v.limit)};
  return t;
}

// "EP8 PP16 TP1 VP2 x4 re": what tells layouts of a search apart, short enough for a chart.
std::string short_text(const plan::Layout& l) {
  return fmt::format("EP{} PP{} TP{} VP{} x{}{}{}", l.ep, l.pp, l.tp, l.vp, l.mbs,
                     l.limit_nodes > 0 ? fmt::format(" N{}", l.limit_nodes) : "",
                     l.recompute ? " re" : "");
}

Table cost_chart(const std::vector<Candidate>& all) {
  Table t{.id = "layout_cost",
          .title = "Cost against layout",
          .reading =
              "Thousands of device-hours for 10^12 tokens. x: sequences of a micro-batch; N: "
              "nodes of a token; re: activations computed again.",
          .chart = Chart::bars,
          .section = of_cluster};
  std::vector<std::string> layout;
  std::vector<double> cost;
  for (const Candidate& c : all) {
    layout.push_back(short_text(c.layout));
    cost.push_back(kilo_hours(c.tokens));
  }
  t.columns = {text_column("layout", layout),
               number_column("cost", "kh", "device-hours for 10^12 tokens", cost, 1)};
  return t;
}

struct ExchangeColumns {
  std::vector<std::int64_t> ranks;
  std::vector<double> flat, device, node, limited;
};

// 4,096 tokens a device in bf16, over 2, 4, 8, ... ranks.
ExchangeColumns exchange_columns(const ClusterRequest& q, const plan::ExchangeFactors& f) {
  const FeedShape& moe = *q.model.moe();
  const plan::ExchangeRates rates{q.cluster.device.link / f.link, q.cluster.device.net / f.net};
  const double row = 2.0 * double(q.model.hidden);
  ExchangeColumns out;
  for (Count r = 2; r <= std::min(moe.experts, q.cluster.devices()); r *= 2) {
    if (moe.experts % r != 0)
      continue;
    const plan::ExchangeShape s{moe.experts, moe.k, r, std::min(r, q.cluster.gpus), 0};
    plan::ExchangeShape cut = s;
    cut.limit_nodes = 4;
    const auto ms = [&](const plan::ExchangeShape& shape, plan::Dispatch d) {
      return 1e3 * exchange_seconds(shape, d, rates, 4096, row);
    };
    out.ranks.push_back(r);
    out.flat.push_back(ms(s, plan::Dispatch::flat));
    out.device.push_back(ms(s, plan::Dispatch::device));
    out.node.push_back(ms(s, plan::Dispatch::node));
    out.limited.push_back(ms(cut, plan::Dispatch::node));
  }
  return out;
}

Table exchange_table(const ClusterRequest& q) {
  const plan::ExchangeFactors f = plan::exchange_factors();
  const ExchangeColumns v = exchange_columns(q, f);
  Table t{
      .id = "exchange",
      .title = "One exchange of a MoE layer, 4,096 tokens a device, bf16",
      .reading = fmt::format(
          "Links and network at the rates that published exchanges reach (1/{:.2f} and 1/{:.2f} "
          "of the data sheet), the slower decides; even routing. A step has four a layer.",
          f.link, f.net),
      .chart = Chart::lines,
      .section = of_cluster};
  t.columns = {
      Column{.name = "ranks", .cells = v.ranks},
      number_column("flat", "ms", "a copy for every choice", v.flat, 3),
      number_column("by device", "ms", "a copy for every device", v.device, 3),
      number_column("by node", "ms", "a copy for every node, then links", v.node, 3),
      number_column("4 nodes", "ms", "by node, experts of at most 4 nodes a token", v.limited, 3)};
  return t;
}

Terms factors_of(const ClusterRequest& q) {
  Terms f = plan::calibration().factors;
  if (q.own_efficiency) {
    f[std::size_t(Term::narrow)] = 1;
    f[std::size_t(Term::wide)] = 1;
  }
  return f;
}

std::vector<Candidate> candidates(const ClusterRequest& q, const Terms& factors, Report& r) {
  if (q.search) {
    const plan::SearchResult found = search_layouts(q.model, q.cluster, q.layouts.front(),
                                                    q.options, factors, q.usable, shown_layouts);
    r.facts.emplace_back("layouts tried", fmt::format("{}, {} of them fit {:.0f} % of the memory",
                                                      found.tried, found.fitting, 100 * q.usable));
    if (found.best.empty()) {
      throw Error(Exit::usage,
                  fmt::format("none of {} layouts of {} fits {} x {}", found.tried, q.model.name,
                              q.cluster.devices(), q.cluster.device.name))
          .hint("more nodes, or a shorter sequence= in --layout");
    }
    return found.best;
  }
  std::vector<Candidate> out;
  for (const plan::Layout& l : q.layouts) {
    out.push_back(
        candidate_of(q.model, q.cluster, resolved(l, q.cluster, q.model), q.options, factors));
  }
  return out;
}

// Of each layout that does not fit.
void warn_of_memory(Report& r, const ClusterRequest& q, const Candidate& c) {
  if (q.cluster.device.memory <= 0 || c.memory.all() <= q.usable * q.cluster.device.memory)
    return;
  r.warnings.push_back(fmt::format(
      "{}: a rank would hold {:.1f} GiB, more than {:.0f} % of its {:.1f}: this layout does not "
      "fit.",
      text_of(c.layout), c.memory.all() / gib, 100 * q.usable, q.cluster.device.memory / gib));
}

void tell(Report& r, const ClusterRequest& q, const Candidate& c, const Terms& factors) {
  Term most = Term::narrow;
  const double seconds = largest(c.parts, factors, most);
  const double band = plan::calibration().strange.most;
  r.findings.push_back(
      {fmt::format("{}: {:.0f} tokens a second and device ({:.0f} to {:.0f} in the band of 80 %), "
                   "{} on the cluster; {} take the most, {:.0f} % of a step.",
                   text_of(c.layout), c.tokens, c.tokens / (1 + band), c.tokens / (1 - band),
                   count_text(c.tokens * double(q.cluster.devices())), name_of(most),
                   100 * seconds / step_seconds(c.parts, factors)),
       {}});
  r.findings.push_back({band_text(), {}});
}

Table runs_table() {
  const std::vector<plan::FitRow> rows = plan::fit_rows();
  const std::vector<plan::Judged> judged = leave_one_out(rows);
  std::vector<std::string> model, device, layout, source;
  std::vector<double> tokens, alone, strange;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    model.emplace_back(rows[i].run->model);
    device.push_back(rows[i].device);
    layout.emplace_back(rows[i].run->layout);
    source.emplace_back(rows[i].run->source);
    tokens.push_back(rows[i].run->tokens);
    alone.push_back(100 * (judged[i].alone - 1));
    strange.push_back(100 * (judged[i].strange - 1));
  }
  Table t{.id = "runs",
          .title = "Published throughputs and what a fit without them predicts",
          .reading =
              "without it: fitted to all other rows; as new: fitted without any row of the "
              "model on this device.",
          .section = of_published};
  t.columns = {text_column("model", model),
               text_column("device", device),
               text_column("layout", layout),
               number_column("published", "tok/s", "a device", tokens, 0),
               number_column("without it", "%", "predicted over published, less one", alone, 1),
               number_column("as new", "%", "predicted over published, less one", strange, 1),
               text_column("source", source)};
  return t;
}

Table refused_table() {
  std::vector<std::string> model, source, why;
  for (const plan::PublishedRun& run : plan::published_runs()) {
    if (run.refused.empty())
      continue;
    model.emplace_back(run.model);
    source.emplace_back(run.source);
    why.emplace_back(run.refused);
  }
  Table t{.id = "refused", .title = "Published runs that are left out", .section = of_published};
  t.columns = {text_column("model", model), text_column("source", source), text_column("why", why)};
  return t;
}

Table exchanges_table() {
  std::vector<std::int64_t> ranks;
  std::vector<double> row, published, error;
  for (const plan::PublishedExchange& e : plan::published_exchanges()) {
    ranks.push_back(e.shape.ranks);
    row.push_back(e.row);
    published.push_back(1e3 * e.seconds());
    // links are known from this size alone
    const bool known = e.shape.ranks > e.shape.gpus;
    error.push_back(
        known ? 100 * (predicted_seconds(e, plan::exchange_factors(&e)) / e.seconds() - 1) : NAN);
  }
  Table t{.id = "exchanges",
          .title = "Published exchanges (DeepEP on H800) and what the other sizes predict",
          .section = of_published};
  t.columns = {
      Column{.name = "ranks", .cells = ranks}, number_column("row", "B", "of a token", row, 0),
      number_column("published", "ms", "for 4,096 tokens a device", published, 2),
      number_column("without it", "%", "predicted over published time, less one", error, 1)};
  return t;
}

Table factors_table() {
  std::vector<std::string> term, meaning;
  std::vector<double> factor;
  const Terms& f = plan::calibration().factors;
  for (std::size_t i = 0; i < plan::term_count; ++i) {
    term.emplace_back(name_of(Term(i)));
    factor.push_back(f[i]);
    meaning.emplace_back(about(Term(i)));
  }
  Table t{.id = "factors",
          .title = "Factors of the terms of a step, fitted to all rows",
          .section = of_published};
  t.columns = {text_column("term", term), number_column("factor", "", "", factor, 4),
               text_column("what", meaning)};
  return t;
}

}  // namespace

Report cluster_report(const ClusterRequest& q) {
  Report r{.title = fmt::format("Training {} on {} x {}", q.model.name, q.cluster.devices(),
                                q.cluster.device.name)};
  const plan::Device& d = q.cluster.device;
  r.facts = {
      {"cluster", fmt::format("{} nodes of {}, links {}/s, network {}/s a device", q.cluster.nodes,
                              q.cluster.gpus, bytes_text(d.link), bytes_text(d.net))},
      {"device", d.source}};
  if (q.model.moe())
    r.facts.emplace_back("routing", q.routing);
  const Terms factors = factors_of(q);
  const std::vector<Candidate> all = candidates(q, factors, r);
  tell(r, q, all.front(), factors);
  for (const Candidate& c : all)
    warn_of_memory(r, q, c);
  if (all.size() > 1) {
    r.tables.push_back(layouts_table(all, q.cluster, factors));
    r.tables.push_back(cost_chart(all));
  }
  for (Table& t : step_tables(all.front(), factors))
    r.tables.push_back(std::move(t));
  r.tables.push_back(memory_table(all.front(), q.cluster));
  r.tables.push_back(sensitivity_table(all.front(), factors));
  if (q.model.moe() && q.cluster.devices() > 1)
    r.tables.push_back(exchange_table(q));
  return r;
}

Report published_runs_report() {
  Report r{.title = "Predictions of clusters, held to what is published"};
  const plan::Calibration& c = plan::calibration();
  r.findings.push_back(
      {fmt::format("Predicted by a fit to all other rows, half of {} runs are "
                   "within {:.0f} %, 80 % within {:.0f} %, the worst {:.0f} % off.",
                   c.rows, 100 * c.alone.half, 100 * c.alone.most, 100 * c.alone.worst),
       {}});
  r.findings.push_back({band_text(), {}});
  r.tables = {runs_table(), refused_table(), exchanges_table(), factors_table()};
  return r;
}

}  // namespace moe
