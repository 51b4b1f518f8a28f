#include "analysis/compare/worth.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "analysis/metric/finding.h"
#include "analysis/metric/layout.h"
#include "analysis/statistics/rank_correlation.h"
#include "lib/core/error.h"

namespace moe {
namespace {

constexpr double enough_experts = 8;
constexpr double certain_enough = 0.5;  // of the halves
constexpr const char* other_half = "the other half of the text";

struct Row {
  std::string name;
  statistics::Correlated within, over_all;
};

std::vector<int> layers_of(const MeasuredWorth& w) {
  return {w.layer.begin(), w.layer.end()};
}

Row row_of(const std::string& name, const std::vector<double>& figure,
           const std::vector<double>& worth, const MeasuredWorth& w) {
  const std::vector<int> layer = layers_of(w);
  const std::vector<int> one(layer.size(), 0);
  return {name, statistics::rank_correlation_within(figure, worth, layer),
          statistics::rank_correlation_within(figure, worth, one)};
}

void put(TableBuilder& t, const char* name, const char* meaning, const std::vector<Row>& rows,
         statistics::Correlated Row::*of) {
  std::vector<double> value, low, high;
  for (const Row& r : rows) {
    value.push_back((r.*of).value);
    low.push_back((r.*of).low);
    high.push_back((r.*of).high);
  }
  t.column(name)
      .meaning(meaning)
      .of("worth_correlation")
      .values(value)
      .chance(0)
      .interval(low, high)
      .digits(2);
}

Table table_of(const std::vector<Row>& rows, const char* section) {
  std::vector<std::string> name;
  for (const Row& r : rows)
    name.push_back(r.name);
  TableBuilder t("worth_foretold", "Does a cheap figure foretell what an expert is worth?",
                 section);
  t.reading(
      "Rank correlations, from -1 to 1, of a figure and the change of the loss without the expert; "
      "0 is no guide. Within layers: whether it tells the experts of one layer apart. Over all "
      "experts it may tell no more than that some layers matter more. The worth of one half of "
      "the text against that of the other says how sure the ranking is: where it is r, even a "
      "figure that knew the truth would reach only about the root of 2r / (1 + r).");
  t.key("figure", "", name);
  put(t, "within layers", "ranks taken within each layer", rows, &Row::within);
  put(t, "over all experts", "ranks over the experts of all layers", rows, &Row::over_all);
  return t.take();
}

void tell_half(Report& r, const QuotedTable& t, std::size_t row) {
  const double v = t.numbers("within layers")[row];
  if (!std::isfinite(v) || v >= certain_enough)
    return;
  // Spearman and Brown: of the whole text from its halves, and of the truth with it
  const double most = std::sqrt(std::max(0.0, 2 * v / (1 + v)));
  tell(r, Priority::too_few,
       "Too little text to rank the experts of a layer by their worth: measured on two halves it "
       "agrees with itself only at a rank correlation of ",
       t.cell("within layers", row).figure(),
       ", so that even a figure that knew the truth would "
       "reach about ",
       derived(figure(most), {t.basis(t.column("within layers"), row, 1)}), " (--tokens).");
}

void tell_figure(Report& r, const QuotedTable& t, std::size_t row, double pairs) {
  const Column& c = t.column("within layers");
  const double v = t.numbers(c.name)[row];
  if (pairs < enough_experts || !std::isfinite(v) || !std::isfinite(c.low[row]))
    return;
  const bool tells = c.low[row] > 0 || c.high[row] < 0;
  const std::string name = t.words("figure")[row];
  tell(r, tells ? Priority::told : Priority::chance, "The ", name, " ",
       tells ? (v > 0 ? "foretells" : "is no guide, but its opposite, to") : "does not foretell",
       " what an expert is worth: rank correlation within layers ", t.cell(c, row).figure(), " [",
       figure(c.low[row]), ", ", figure(c.high[row]), "].");
}

}  // namespace

void add_foretold(Report& r, const MeasuredWorth& w, const std::vector<CheapFigure>& cheap,
                  const char* section) {
  std::vector<Row> rows;
  for (const CheapFigure& c : cheap) {
    if (std::ranges::any_of(c.value, [](double v) { return std::isfinite(v); }))
      rows.push_back(row_of(c.name, c.value, w.change, w));
  }
  const std::size_t figures = rows.size();
  if (!w.first_half.empty())
    rows.push_back(row_of(other_half, w.first_half, w.second_half, w));
  if (rows.empty())
    return;
  r.tables.push_back(table_of(rows, section));
  const QuotedTable t(r, "worth_foretold");
  if (rows.size() > figures)
    tell_half(r, t, figures);
  for (std::size_t i = 0; i < figures; ++i)
    tell_figure(r, t, i, rows[i].within.pairs);
}

namespace {

using ByExpert = std::map<std::pair<std::int64_t, std::int64_t>, double>;  // layer and expert

// A figure of the report that has a row an expert: of tables with layer and expert the longest, for
// others list some of them.
ByExpert of_report(const Report& r, std::string_view metric) {
  ByExpert out;
  for (const Table& t : r.tables) {
    if (t.columns.size() < 3 || t.columns[0].name != "layer" || t.columns[1].name != "expert")
      continue;
    for (const Column& c : t.columns) {
      const auto* cells = std::get_if<std::vector<double>>(&c.cells);
      if (c.metric != metric || !cells)
        continue;
      const auto& layer = std::get<std::vector<std::int64_t>>(t.columns[0].cells);
      const auto& expert = std::get<std::vector<std::int64_t>>(t.columns[1].cells);
      ByExpert found;
      for (std::size_t i = 0; i < cells->size(); ++i)
        found[{layer[i], expert[i]}] = (*cells)[i];
      if (found.size() > out.size())
        out = std::move(found);
    }
  }
  return out;
}

// The largest cosine of each expert with another of its layer.
ByExpert closest(const TraceHeader& h, std::string_view name) {
  ByExpert out;
  const auto found = std::ranges::find(h.pairs, name, &PairMatrix::name);
  if (found == h.pairs.end())
    return out;
  for (std::size_t l = 0; l < found->layer.size(); ++l) {
    const Matrix<float>& m = found->layer[l];
    for (Index i = 0; i < m.rows(); ++i) {
      double most = no_value;
      for (Index j = 0; j < m.cols(); ++j) {
        if (i != j && std::isfinite(m(i, j)) && !(most >= double(m(i, j))))
          most = m(i, j);
      }
      out[{h.layers[l].index, i}] = most;
    }
  }
  return out;
}

struct Known {
  std::string name, meaning;
  CheapFigure figure;
};

void add_known(std::vector<Known>& to, const char* column, const char* name, const char* meaning,
               const char* metric, const ByExpert& values, const MeasuredWorth& w) {
  if (values.empty())
    return;
  Known out{column, meaning, {name, metric, {}}};
  for (std::size_t i = 0; i < w.layer.size(); ++i) {
    const auto at = values.find({w.layer[i], w.expert[i]});
    out.figure.value.push_back(at == values.end() ? no_value : at->second);
  }
  to.push_back(std::move(out));
}

std::vector<Known> known_of(const Report& r, const TraceSource& trace, const MeasuredWorth& w) {
  std::vector<Known> out;
  add_known(out, "load", "load", "share of the layer's assignments", "load_fraction",
            of_report(r, "load_fraction"), w);
  add_known(out, "adds", "REAP score", "mean of weight times output norm over its tokens",
            "prune_reap", of_report(r, "prune_reap"), w);
  add_known(out, "loss", "loss of its tokens", "mean loss of the tokens that chose it",
            "loss_by_expert", of_report(r, "loss_by_expert"), w);
  for (const char* id : {"expert_output_cosine", "expert_weight_cosine"}) {
    const ByExpert alike = closest(trace.header(), id);
    if (alike.empty())
      continue;
    add_known(out, "closest", "likeness to another expert",
              "largest cosine with another expert of the layer", id, alike, w);
    break;
  }
  return out;
}

Table known_table(const MeasuredWorth& w, const std::vector<Known>& known) {
  TableBuilder t("expert_worth", "What every expert is worth, beside what is cheap to know",
                 section::redundancy);
  t.reading(
       "The change of the loss where one expert is missing and its choices are dropped, with 95 % "
       "intervals, as moe eval --without-expert measured it; beside it what this trace says of the "
       "expert.")
      .chart(Chart::heatmap);
  t.layers(w.layer).key("expert", "expert id", w.expert);
  t.column("change")
      .unit("nats")
      .meaning("loss without the expert less the loss with it, mean of domains")
      .of("loss_without_expert")
      .values(w.change)
      .interval(w.low, w.high)
      .digits(4);
  for (const Known& k : known) {
    t.column(k.name).meaning(k.meaning).of(k.figure.metric).values(k.figure.value).digits(4);
  }
  return t.take();
}

void check_experts(const TraceSource& trace, const MeasuredWorth& w) {
  for (std::size_t i = 0; i < w.layer.size(); ++i) {
    const auto& layers = trace.header().layers;
    const auto at = std::ranges::find(layers, int(w.layer[i]), &TraceLayer::index);
    if (at != layers.end() && w.expert[i] >= 0 && w.expert[i] < at->experts)
      continue;
    throw Error(Exit::input, concat("what experts are worth was measured for expert ", w.expert[i],
                                    " of layer ", w.layer[i], ", which the trace does not have"))
        .hint("a trace of the same model: moe trace RUN --data SPEC");
  }
}

}  // namespace

void add_measured_worth(Report& r, const TraceSource& trace, const MeasuredWorth& w) {
  check_experts(trace, w);
  const std::vector<Known> known = known_of(r, trace, w);
  const auto first = std::ranges::find(r.tables, std::string(section::redundancy), &Table::section);
  r.tables.insert(first, known_table(w, known));
  std::vector<CheapFigure> cheap;
  for (const Known& k : known)
    cheap.push_back(k.figure);
  add_foretold(r, w, cheap, section::redundancy);
}

}  // namespace moe
