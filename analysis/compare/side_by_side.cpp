#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/compare/compare.h"
#include "analysis/compare/sequence_losses.h"
#include "analysis/compare/side_charts.h"
#include "analysis/metric/bootstrap.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/verdict.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr const char* title = "side by side";
const std::vector<std::string> metrics_needed = {"load",    "drops",      "router",  "loss",
                                                 "domains", "vocabulary", "repeats", "crosslayer",
                                                 "ranks",   "cache"};
constexpr std::string_view loss_figure = "loss_mean";

struct Figure {  // of one trace: the mean over layers
  // spread: of the mean of as many layers under random routing
  double value = no_value, chance = no_value, spread = no_value;
  std::vector<double> layer, replicas;  // (L); (R+1), [0] the trace itself
  double least = 0, most = 0;
};

double mean_of(std::span<const double> v) {
  double sum = 0;
  double n = 0;
  for (const double x : v) {
    if (std::isfinite(x)) {
      sum += x;
      n += 1;
    }
  }
  return n > 0 ? sum / n : no_value;
}

// they are independent at random; one that is not known: not known
double spread_of_mean(const std::vector<double>& v, std::size_t layers) {
  if (v.size() == 1)
    return v[0] / std::sqrt(double(layers));
  double sum = 0;
  for (const double x : v)
    sum += x * x;
  return v.empty() ? no_value : std::sqrt(sum) / double(v.size());
}

// in a table by layer; caches stand in one by size
const Column* find(const Report& r, const Headline& h) {
  const bool by_size = h.id == "cache_hit_rate_lru";
  for (const bool detail : {false, true}) {
    for (const Table& t : r.tables) {
      for (const Column& c : t.columns) {
        if (t.detail == detail && t.columns[0].name.starts_with("layer") != by_size &&
            c.metric == h.id && c.name.ends_with(h.column) &&
            std::holds_alternative<std::vector<double>>(c.cells)) {
          return &c;
        }
      }
    }
  }
  return nullptr;
}

Figure figure_of(const Report& r, const std::vector<Replicated>& all, const Headline& h) {
  Figure f;
  const Column* c = find(r, h);
  if (!c)
    return f;
  const auto& cells = std::get<std::vector<double>>(c->cells);
  if (h.id == "cache_hit_rate_lru") {  // a row a size, over all layers
    const std::size_t middle = cells.size() / 2;
    f.value = cells.empty() ? no_value : cells[middle];
    f.chance = middle < c->chance.size() ? c->chance[middle] : no_value;
    f.spread = middle < c->chance_spread.size() ? c->chance_spread[middle] : no_value;
    return f;
  }
  f.layer = cells;
  f.value = mean_of(cells);
  f.chance = mean_of(c->chance);
  f.spread = spread_of_mean(c->chance_spread, cells.size());
  double layers = 0;
  for (const Replicated& one : all) {
    if (one.id != h.id || (!h.column.empty() && concat(" ", one.parameter) != h.column))
      continue;
    f.replicas.resize(one.values.size(), 0);
    layers += 1;
    f.least = one.least;
    f.most = one.most;
    for (std::size_t i = 0; i < one.values.size(); ++i)
      f.replicas[i] += one.values[i];
  }
  for (double& v : f.replicas)
    v /= layers;
  // not the same figure
  if (!f.replicas.empty() && !(std::abs(f.replicas[0] - f.value) <= 1e-6))
    f.replicas.clear();
  return f;
}

struct Bounds {
  std::vector<double> low, high;
  void add(const Interval& i) {
    low.push_back(i.low);
    high.push_back(i.high);
  }
};

struct All {
  std::vector<NamedTrace> trace;
  std::vector<std::size_t> stream;          // traces over the same text share one
  std::vector<std::vector<Figure>> figure;  // (trace)(headline)
  std::vector<std::size_t> shown;           // headlines that at least one trace has
  SideFigures drawn;
};

// Of the traces whose tokenizer is known.
bool of_one_tokenizer(const std::vector<NamedTrace>& traces) {
  std::string known;
  for (const NamedTrace& t : traces) {
    const TraceHeader& h = t.trace->header();
    const std::string mine = h.tokenizer_sha256.empty() ? h.tokenizer_id : h.tokenizer_sha256;
    if (!known.empty() && !mine.empty() && mine != known)
      return false;
    known = mine.empty() ? known : mine;
  }
  return true;
}

// Over all tokens. Losses a token say nothing about each other where tokens are other pieces.
Figure loss_of(const NamedTrace& trace, const AnalyzeOptions& o) {
  const SequenceLosses losses = sequence_losses(*trace.trace, o);
  Figure f;
  f.value = losses.mean();
  f.replicas = losses.replicas(o.bootstrap_stream, o.bootstrap);
  f.most = std::numeric_limits<double>::infinity();
  return f;
}

// The first of the traces that is over the same text.
std::size_t stream_of(const std::vector<NamedTrace>& traces, std::size_t i) {
  for (std::size_t j = 0; j < i; ++j) {
    if (!traces[i].corpus.empty() && traces[i].corpus == traces[j].corpus &&
        traces[i].trace->sequences().size() == traces[j].trace->sequences().size()) {
      return j;
    }
  }
  return i;
}

void add_figures(All& a, const NamedTrace& trace, const Report& r,
                 const std::vector<Replicated>& replicas, const AnalyzeOptions& o) {
  a.drawn.name.push_back(trace.name);
  a.drawn.loss.push_back(side_losses(r));
  a.drawn.figure.emplace_back();
  a.figure.emplace_back();
  for (const Headline& h : headlines()) {
    const bool loss = h.id == loss_figure;
    a.figure.back().push_back(!loss                   ? figure_of(r, replicas, h)
                              : a.drawn.one_tokenizer ? loss_of(trace, o)
                                                      : Figure{});
    a.drawn.figure.back().push_back(side_column(r, h));
  }
}

All collect(const std::vector<NamedTrace>& traces, const AnalyzeOptions& o) {
  All a{traces, {}, {}, {}, {}};
  a.drawn.one_tokenizer = of_one_tokenizer(traces);
  const auto known = std::make_shared<KnownChance>();  // the traces are often of one shape
  for (std::size_t i = 0; i < traces.size(); ++i) {
    const std::size_t stream = stream_of(traces, i);
    std::vector<Replicated> replicas;
    AnalyzeOptions mine = o;
    mine.sample_tokens = 0;
    mine.bootstrap_stream = stream;
    mine.replicas = &replicas;
    mine.known_chance = known;
    const Report r = analyze(*traces[i].trace, metrics_needed, mine);
    a.stream.push_back(stream);
    add_figures(a, traces[i], r, replicas, mine);
  }
  for (std::size_t h = 0; h < headlines().size(); ++h) {
    if (std::ranges::any_of(a.figure, [h](const auto& f) { return std::isfinite(f[h].value); }))
      a.shown.push_back(h);
  }
  return a;
}

std::vector<std::string> names_of(const All& a, bool ids) {
  std::vector<std::string> out;
  for (const std::size_t h : a.shown)
    out.emplace_back(ids ? headlines()[h].id : headlines()[h].name);
  return out;
}

Table values(const All& a) {
  TableBuilder t("side_by_side", "Headline figures", title);
  t.reading(
      "Means over layers, with 95 % intervals by resampling sequences where the trace has "
      "enough of them. The chance value is that of random routing on a trace of the same size.");
  t.key("figure", "", names_of(a, false));
  for (std::size_t i = 0; i < a.trace.size(); ++i) {
    Values::Rows rows;
    Bounds bounds;
    for (const std::size_t h : a.shown) {
      const Figure& f = a.figure[i][h];
      rows.add(f.value, {f.chance, f.spread});
      bounds.add(interval_of(f.replicas, f.value, f.least, f.most));
    }
    t.column(a.trace[i].name).digits(4).rows(rows).interval(bounds.low, bounds.high);
  }
  t.key("id", "definition", names_of(a, true));
  return t.take();
}

Table differences(const All& a) {
  constexpr double endless = std::numeric_limits<double>::infinity();
  TableBuilder t("differences", concat("Differences from ", a.trace[0].name), title);
  t.reading(
      "Of the means over layers. An interval that holds 0 is no difference that this much text "
      "can show. Traces over the same text are resampled together; others on their own.");
  t.key("figure", "", names_of(a, false));
  for (std::size_t i = 1; i < a.trace.size(); ++i) {
    std::vector<double> cells;
    Bounds bounds;
    for (const std::size_t h : a.shown) {
      const Figure& x = a.figure[i][h];
      const Figure& y = a.figure[0][h];
      std::vector<double> less;
      for (std::size_t r = 0; r < std::min(x.replicas.size(), y.replicas.size()); ++r)
        less.push_back(x.replicas[r] - y.replicas[r]);
      cells.push_back(x.value - y.value);
      bounds.add(interval_of(less, cells.back(), -endless, endless));
    }
    t.column(a.trace[i].name)
        .unit("difference")
        .meaning(a.stream[i] == a.stream[0] ? "less the first trace; over the same text"
                                            : "less the first trace; over other text")
        .digits(4)
        .values(cells)
        .interval(bounds.low, bounds.high);
  }
  return t.take();
}

Table layers(const All& a) {
  std::vector<std::string> what;
  std::vector<std::int64_t> layer;
  std::vector<std::vector<double>> cells(a.trace.size());
  for (const std::size_t h : a.shown) {
    std::size_t most = 0;
    for (const auto& f : a.figure)
      most = std::max(most, f[h].layer.size());
    for (std::size_t l = 0; l < most; ++l) {
      what.emplace_back(headlines()[h].id);
      layer.push_back(std::int64_t(l));
      for (std::size_t i = 0; i < a.trace.size(); ++i)
        cells[i].push_back(l < a.figure[i][h].layer.size() ? a.figure[i][h].layer[l] : no_value);
    }
  }
  TableBuilder t("side_by_side_layers", "Headline figures, layer by layer", title);
  t.reading("Layers in order; traces with fewer have none behind their last.").detail();
  t.key("id", "definition", what).key("MoE layer", "counted from 0", layer);
  for (std::size_t i = 0; i < a.trace.size(); ++i)
    t.column(a.trace[i].name).digits(4).values(cells[i]);
  return t.take();
}

void without_intervals(Report& r, const Quote& all, const std::string& name,
                       const std::string& first, bool counted) {
  if (counted) {
    return tell(r, derived("Where ", {all}), name, " differs from ", first,
                " by more than other text would change cannot be said: intervals resample "
                "sequences, and counts have none.");
  }
  tell(r, derived("Too little text to judge where ", {all}), name, " differs from ", first,
       ": intervals need at least ", Bootstrap::least_sequences, " sequences and --bootstrap.");
}

// Of a trace, whose column it is, against the first. One of many figures often leaves its interval:
// told are differences that the largest of as many would rarely show.
constexpr double interval_deviations = 2 * 1.96;  // how wide 95 % are
// `counted`: of one of the two only counts are known.
void finding(Report& r, const std::string& first, std::size_t place, bool counted) {
  const QuotedTable t(r, "differences");
  const Column& c = t.table().columns[place];
  if (std::ranges::none_of(c.low, [](double v) { return std::isfinite(v); })) {
    return without_intervals(r, t.basis(c, 0, t.rows()), c.name, first, counted);
  }
  const auto& values = std::get<std::vector<double>>(c.cells);
  Finding clear;
  for (std::size_t row = 0; row < t.rows(); ++row) {
    const double deviation = (c.high[row] - c.low[row]) / interval_deviations;
    if (!(std::abs(values[row]) > chance::rare_deviations(double(t.rows())) * deviation))
      continue;
    const QuotedCell by = t.cell(c, row);
    extend(clear, clear.text.empty() ? "" : ", ", t.cell(t.table().columns[0], row), " (",
           by.number() > 0 ? "+" : "", by.figure(3), ")");
  }
  if (clear.text.empty()) {
    return tell(r, derived("No headline figure of ", {t.basis(c, 0, t.rows())}), c.name,
                " differs from that of ", first,
                " by more than other text of the same kind would change it.");
  }
  tell(r, c.name, " differs from ", first,
       " by more than other text of the same kind would change, in ", clear, ".");
}

}  // namespace

std::span<const Headline> headlines() {
  static constexpr Headline all[] = {
#define HEADLINE(id, name, column) {#id, name, column},
#include "analysis/compare/headlines.def"
#undef HEADLINE
  };
  return all;
}

void add_side_by_side(Report& r, const std::vector<NamedTrace>& traces, const AnalyzeOptions& o) {
  const All a = collect(traces, o);
  if (a.shown.empty())
    return r.warnings.push_back("none of the traces has choices: there is nothing to compare");
  r.tables.push_back(values(a));
  r.tables.push_back(differences(a));
  std::ranges::move(side_charts(a.drawn, title), std::back_inserter(r.tables));
  r.tables.push_back(layers(a));
  for (std::size_t i = 1; i < traces.size(); ++i)
    finding(r, traces[0].name, i, counts_only(*traces[0].trace) || counts_only(*traces[i].trace));
}

namespace {

std::string size_of(const TraceSource& trace) {
  if (counts_only(trace))
    return concat("counts of ", trace.count_steps(), trace.count_steps() == 1 ? " step" : " steps");
  return concat(trace.tokens(), " tokens, ", trace.sequences().size(), " sequences");
}

}  // namespace

Report side_by_side(const std::vector<NamedTrace>& traces, const AnalyzeOptions& o) {
  Report r;
  for (const NamedTrace& t : traces) {
    r.title += (r.title.empty() ? "" : ", ") + t.name;
    const TraceHeader& h = t.trace->header();
    r.facts.emplace_back(
        t.name, concat(h.model_id.empty() ? "" : h.model_id + ", ", size_of(*t.trace), ", ",
                       h.layers.size(), " MoE layers",
                       h.checkpoint_step >= 0 ? concat(", step ", h.checkpoint_step) : ""));
    if (counts_only(*t.trace)) {
      r.warnings.push_back(concat(t.name,
                                  ": holds no tokens, only how many of them each expert took in "
                                  "each step: other figures have no value, none an interval"));
    }
  }
  add_side_by_side(r, traces, o);
  return r;
}

}  // namespace moe
