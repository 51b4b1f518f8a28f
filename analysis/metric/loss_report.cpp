// What loss.h sums up, as tables and findings.
#include <algorithm>
#include <cmath>

#include "analysis/metric/finding.h"
#include "analysis/metric/loss.h"
#include "analysis/metric/verdict.h"
#include "analysis/statistics/rank_correlation.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double interval_deviations = 2 * 1.96;  // how wide 95 % are
constexpr const char* of_tokens = "entropy and loss";
constexpr const char* of_position = "position held";
constexpr const char* of_sequences = "of sequences";

double deviation_of(const Column& c, std::size_t row) {
  return row < c.low.size() ? (c.high[row] - c.low[row]) / interval_deviations : no_value;
}

bool any_interval(const Column& c) {
  return std::ranges::any_of(c.low, [](double v) { return std::isfinite(v); });
}

// The first of the smallest that are numbers; the size where none is.
std::size_t smallest(std::span<const double> v) {
  std::size_t at = v.size();
  for (std::size_t i = 0; i < v.size(); ++i) {
    if (std::isfinite(v[i]) && (at == v.size() || v[i] < v[at]))
      at = i;
  }
  return at;
}

// The one farthest from 0; the first where none is a number.
std::size_t farthest(std::span<const double> v) {
  std::size_t most = 0;
  for (std::size_t i = 1; i < v.size(); ++i) {
    if (std::isnan(v[most]) || std::abs(v[i]) > std::abs(v[most]))
      most = i;
  }
  return most;
}

std::size_t numbers_in(std::span<const double> v) {
  return std::size_t(std::ranges::count_if(v, [](double x) { return std::isfinite(x); }));
}

}  // namespace

struct LossMetric::Rows {
  Values::Rows rows;
  std::vector<double> low, high;
  void add(double value, const chance::Value& by_chance, const Interval& i) {
    rows.add(value, by_chance);
    low.push_back(i.low);
    high.push_back(i.high);
  }
  void into(ColumnBuilder c, const char* id) {
    c.of(id).rows(rows).interval(low, high);
  }
};

chance::Value LossMetric::of_any(double tokens) const {
  const double all = all_.under();
  const double mean = all_.mean();
  const double variance = std::max(0.0, squares_ / all - mean * mean);
  if (!(tokens > 0) || tokens >= all)
    return {};
  return {mean, std::sqrt(variance * (1 / tokens - 1 / all))};
}

// A loss is no less than 0.
Interval LossMetric::sure(const SequenceMean& m) const {
  const Interval i = m.interval();
  return {std::isnan(i.low) ? i.low : std::max(0.0, i.low), i.high};
}

void LossMetric::domains(Report& r) const {
  std::vector<std::string> name;
  Rows rows;
  for (std::size_t d = 0; d < domain_.size(); ++d) {
    const SequenceMean& m = domain_[d];
    const bool labelled = d < domain_name_.size();
    if (!(m.under() > 0))
      continue;
    name.push_back(labelled ? domain_name_[d] : domain_name_.empty() ? "text" : "without a domain");
    rows.add(m.mean(), of_any(m.under()), sure(m));
  }
  TableBuilder t("loss_domains", "Loss by domain", section::loss);
  t.reading(
       "Mean loss of the next token in nats, with 95 % intervals by sequences. The chance value "
       "is the mean over all tokens: what a domain that says nothing about the loss would have.")
      .chart(Chart::bars);
  t.key("domain", "label of the text", name);
  rows.into(t.column("loss").unit("nats").meaning("mean negative log-probability"),
            "loss_by_domain");
  t.into(r);
}

void LossMetric::confidence(Report& r) const {
  static const char* names[fifths] = {"surest fifth", "second", "middle", "fourth",
                                      "least sure fifth"};
  if (std::ranges::none_of(layer_, [](const Layer& s) { return s.fifth[0].under() > 0; }))
    return;
  TableBuilder t("loss_confidence", "Loss by the router's confidence", section::loss);
  t.reading(
       "The tokens of each sequence in fifths by the entropy of the layer's router, so that no "
       "domain and no sequence counts more in one fifth than in another. The chance value is the "
       "mean over all tokens: what a confidence that says nothing about the loss would give.")
      .chart(Chart::lines);
  t.layers(shape_.number);
  for (std::size_t f = 0; f < fifths; ++f) {
    Rows rows;
    for (const Layer& s : layer_)
      rows.add(s.fifth[f].mean(), of_any(s.fifth[f].under()), sure(s.fifth[f]));
    rows.into(t.column(names[f]).unit("nats").meaning(
                  "mean loss of the tokens whose entropy is in this fifth of their sequence"),
              "loss_by_confidence");
  }
  t.into(r);
}

void LossMetric::correlations(Report& r) const {
  if (std::ranges::none_of(layer_, [](const Layer& s) { return s.weight > 0; }))
    return;
  Rows within, beyond, between;
  for (const Layer& s : layer_) {
    const chance::Value none{0, std::sqrt(s.spread) / s.weight};
    within.add(s.within.mean(), none, s.within.interval());
    beyond.add(s.beyond_position.mean(), none, s.beyond_position.interval());
    const Between& b = s.between;
    const auto c = statistics::rank_correlation_within(b.entropy, b.loss, b.domain);
    const bool enough = c.pairs >= double(Bootstrap::least_sequences);
    between.add(c.value, {0, 1 / std::sqrt(std::max(1.0, c.pairs - 1))},
                {enough ? c.low : no_value, enough ? c.high : no_value});
  }
  TableBuilder t("loss_entropy", "Does the loss go with the router's entropy?", section::loss);
  t.reading(
       "Rank correlations, from -1 to 1; 0 by chance. The first is taken inside each sequence and "
       "averaged over sequences, which are what is independent in a text: neither domains nor "
       "sequences of hard text can make it. The second holds the position fixed as well, for early "
       "tokens have less to go by. The third is of the means of sequences, within each domain. "
       "None of them says which of the two is the cause.")
      .chart(Chart::lines);
  t.layers(shape_.number);
  within.into(
      t.column(of_tokens).meaning("rank correlation over the tokens of a sequence, its mean"),
      "loss_entropy_correlation");
  beyond.into(
      t.column(of_position).meaning("the same, of what position in the sequence does not explain"),
      "loss_entropy_correlation_position");
  between.into(t.column(of_sequences)
                   .meaning("rank correlation of a sequence's mean entropy and mean loss, over the "
                            "sequences of a domain"),
               "loss_entropy_correlation_sequences");
  if (const std::string why = coarse(); !why.empty())
    t.warn(why);
  t.into(r);
}

void LossMetric::experts(Report& r) const {
  std::vector<std::int64_t> layer, expert;
  Rows rows;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    for (std::size_t e = 0; e < layer_[l].expert.size(); ++e) {
      const SequenceMean& m = layer_[l].expert[e];
      layer.push_back(shape_.number[l]);
      expert.push_back(std::int64_t(e));
      rows.add(m.mean(), of_any(m.under()), sure(m));
    }
  }
  TableBuilder t("loss_experts", "Loss of the tokens of every expert", section::loss);
  t.reading(
       "Mean loss of the tokens that chose the expert: which text it is given, not how well it "
       "does its work (moe eval --without-expert says what it is worth). The chance value is the "
       "mean over all tokens, which is what tokens that choose at random bring to any expert.")
      .chart(Chart::heatmap)
      .detail();
  t.layers(layer).key("expert", "expert id", expert);
  rows.into(t.column("loss").unit("nats").meaning("mean over its tokens").around_chance(),
            "loss_by_expert");
  t.into(r);
}

void LossMetric::drops(Report& r) const {
  if (std::ranges::none_of(layer_, [](const Layer& s) { return s.dropped.under() > 0; }))
    return;
  Rows kept, dropped;
  for (const Layer& s : layer_) {
    kept.add(s.kept.mean(), of_any(s.kept.under()), sure(s.kept));
    dropped.add(s.dropped.mean(), of_any(s.dropped.under()), sure(s.dropped));
  }
  TableBuilder t("loss_drops", "Loss of tokens that lost a choice", section::loss);
  t.reading(
       "Tokens that capacity left all their experts, and tokens with one or more choices dropped. "
       "A difference may come from which tokens are dropped: those of busy experts.")
      .chart(Chart::lines);
  t.layers(shape_.number);
  kept.into(t.column("nothing dropped").unit("nats").meaning("mean loss of these tokens"),
            "loss_by_drop");
  dropped.into(t.column("something dropped").unit("nats").meaning("mean loss of these tokens"),
               "loss_by_drop");
  t.into(r);
}

void LossMetric::path_table(Report& r) const {
  const std::vector<std::size_t> top = paths();
  if (top.empty())
    return;
  std::vector<std::string> name;
  std::vector<std::int64_t> tokens;
  Rows rows;
  for (const std::size_t i : top) {
    std::string text;
    for (const std::uint16_t e : path_.path(i))
      text += concat(text.empty() ? "" : "→", e);
    name.push_back(text);
    tokens.push_back(rounded(path_loss_[i].under()));
    rows.add(path_loss_[i].mean(), of_any(path_loss_[i].under()), sure(path_loss_[i]));
  }
  TableBuilder t("loss_paths", "Loss of the most travelled paths", section::loss);
  t.reading(
       "A path is a token's first choice in every layer. The chance value is the mean over all "
       "tokens.")
      .detail();
  t.key("path", "experts from the first to the last MoE layer", name);
  t.key("tokens", "that took it", tokens);
  rows.into(t.column("loss").unit("nats").meaning("mean over its tokens"), "loss_by_path");
  if (thinned_) {
    t.warn(
        "more distinct paths than memory allows: of some paths only the later tokens are "
        "counted");
  }
  t.into(r);
}

void LossMetric::report(Report& r) const {
  if (!(all_.under() > 0))
    return;
  domains(r);
  confidence(r);
  correlations(r);
  experts(r);
  drops(r);
  path_table(r);
  tell_entropy(r);
  tell_domains(r);
  tell_experts(r);
  tell_drops(r);
}

void LossMetric::tell_domains(Report& r) const {
  const QuotedTable t(r, "loss_domains");
  const Column& loss = t.column("loss");
  const std::span<const double> v = t.numbers("loss");
  if (numbers_in(v) < 2)
    return;
  const std::size_t most = largest(v);
  const std::size_t least = smallest(v);
  const Finding ends =
      told("highest on ", t.cell("domain", most), " (", t.cell(loss, most).figure(3),
           " nats) and lowest on ", t.cell("domain", least), " (", t.cell(loss, least).figure(3),
           "); over all tokens it is ", t.chance("loss", most).figure(3), ".");
  if (!std::isfinite(loss.low[most]) || !std::isfinite(loss.low[least])) {
    return tell(r, Priority::too_few,
                "Too few sequences to judge whether the loss differs between domains (",
                Bootstrap::least_sequences, " of each are needed): it is ", ends);
  }
  if (loss.low[most] > loss.high[least])
    return tell(r, "The loss is ", ends);
  tell(r, Priority::chance, "The intervals of all domains overlap: the loss is ", ends);
}

// Of the layer where the loss goes most with the entropy, up or down.
void LossMetric::tell_entropy(Report& r) const {
  if (std::ranges::none_of(r.tables, [](const Table& t) { return t.id == "loss_entropy"; }))
    return;
  const QuotedTable t(r, "loss_entropy");
  const Column& rho = t.column(of_tokens);
  const Column& beyond = t.column(of_position);
  const std::span<const double> v = t.numbers(of_tokens);
  const std::size_t most = farthest(v);
  if (std::isnan(v[most]))
    return;
  const Finding said = told(t.cell(rho, most).figure(), " in layer ", t.cell("layer", most));
  if (!any_interval(rho)) {
    return tell(r, Priority::too_few,
                "Too few sequences to judge whether the loss goes with the router's entropy (",
                Bootstrap::least_sequences, " are needed): the rank correlation is at most ", said,
                ".");
  }
  const double rare = chance::rare_deviations(double(numbers_in(v)));
  const auto clear = [&](const Column& c) {
    const double of = std::get<std::vector<double>>(c.cells)[most];
    return std::abs(of) > rare * deviation_of(c, most);
  };
  if (!clear(rho)) {
    return tell(r, Priority::chance,
                "Within sequences the loss does not go with the router's entropy: the rank "
                "correlation is at most ",
                said, ", no more than as many layers show by chance.");
  }
  tell(r, "Where the router is less sure, tokens are predicted ", v[most] > 0 ? "worse" : "better",
       ": within sequences the rank correlation of entropy and loss is ", said,
       " (0 by chance), and ", t.cell(beyond, most).figure(), " with the position held fixed",
       clear(beyond) ? "." : ", which chance may give: it is the position that tells.");
}

// How many experts are given tokens of another loss than all tokens have.
void LossMetric::tell_experts(Report& r) const {
  const QuotedTable t(r, "loss_experts");
  const Column& loss = t.column("loss");
  const std::span<const double> v = t.numbers("loss");
  const double rare = chance::rare_deviations(double(v.size()));
  std::size_t clear = 0;
  std::size_t judged = 0;
  std::size_t most = v.size();
  for (std::size_t i = 0; i < v.size(); ++i) {
    if (!std::isfinite(v[i]) || !std::isfinite(deviation_of(loss, i)))
      continue;
    ++judged;
    const double off = std::abs(v[i] - all_.mean());
    if (!(off > rare * deviation_of(loss, i)))
      continue;
    ++clear;
    if (most == v.size() || off > std::abs(v[most] - all_.mean()))
      most = i;
  }
  if (judged == 0)
    return;
  const Finding counted = derived(
      concat(clear, " of ", judged, judged == 1 ? " expert" : " experts"), {t.basis("loss")});
  if (clear == 0) {
    return tell(r, Priority::chance, counted,
                " take tokens whose loss differs from that of all tokens by more than the largest "
                "of as many differences would by chance.");
  }
  tell(r, counted, " take tokens that are harder or easier than all tokens: most of all expert ",
       t.cell("expert", most), " of layer ", t.cell("layer", most), ", with ",
       t.cell(loss, most).figure(), " nats a token.");
}

// Of the layer where the two lie furthest apart.
void LossMetric::tell_drops(Report& r) const {
  if (std::ranges::none_of(r.tables, [](const Table& t) { return t.id == "loss_drops"; }))
    return;
  const QuotedTable t(r, "loss_drops");
  const Column& kept = t.column("nothing dropped");
  const Column& dropped = t.column("something dropped");
  const std::span<const double> a = t.numbers(kept.name);
  const std::span<const double> b = t.numbers(dropped.name);
  std::vector<double> apart;
  for (std::size_t i = 0; i < a.size(); ++i)
    apart.push_back(std::abs(b[i] - a[i]));
  const std::size_t most = largest(apart);
  if (!std::isfinite(apart[most]))
    return;
  const bool known = std::isfinite(kept.low[most]) && std::isfinite(dropped.low[most]);
  const bool differ =
      known && (dropped.low[most] > kept.high[most] || dropped.high[most] < kept.low[most]);
  const Finding said =
      told("in layer ", t.cell("layer", most), " tokens that lost a choice have ",
           t.cell(dropped, most).figure(3), " nats, the others ", t.cell(kept, most).figure(3));
  if (!known)
    return tell(r, Priority::too_few, "Too few sequences to judge what drops go with: ", said, ".");
  if (!differ)
    return tell(r, Priority::chance, "Drops do not go with the loss: ", said,
                ", and the intervals overlap.");
  tell(r, "Drops go with the loss, which does not say that they cause it: ", said, ".");
}

}  // namespace moe
