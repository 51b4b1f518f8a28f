// What agreement.h counts, as tables and a finding.
#include <cmath>

#include "analysis/metric/agreement.h"
#include "analysis/metric/bootstrap.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/layout.h"
#include "lib/core/text.h"

namespace moe {
namespace {

double choices(const LayerAgreement& l) {  // of a token
  return double(l.choices) / double(l.tokens);
}

struct Sums {  // over layers: choices of the reference, and those that the other did not make
  std::int64_t choices = 0, lost = 0;
};
Sums sums(const std::vector<LayerAgreement>& layers) {
  Sums out;
  for (const LayerAgreement& l : layers) {
    out.choices += l.choices;
    out.lost += l.choices - l.common;
  }
  return out;
}

// The share of choices that two random routings would not have in common.
double lost_by_chance(const std::vector<LayerAgreement>& layers) {
  const double all = double(sums(layers).choices);
  double out = 0;
  for (const LayerAgreement& l : layers) {
    if (l.tokens)
      out += double(l.choices) / all * (1 - choices(l) / l.experts);
  }
  return out;
}

struct Bounds {
  std::vector<double> low, high;
  void add(const LayerAgreement& l, const std::vector<double>& replica) {
    std::vector<double> share;
    for (std::size_t r = 0; r < replica.size(); ++r)
      share.push_back(replica[r] / l.replica_tokens[r]);
    const Interval i = interval_of(share, share.empty() ? no_value : share[0], 0, 1);
    low.push_back(i.low);
    high.push_back(i.high);
  }
};

}  // namespace

std::string margin_bin(const std::vector<double>& margins, std::size_t i) {
  return i == 0                ? concat("below ", margins[0])
         : i == margins.size() ? concat("from ", margins.back())
                               : concat(margins[i - 1], " to ", margins[i]);
}

void Agreement::by_layer(Report& r) const {
  std::vector<std::int64_t> number;
  Values values;
  Bounds same, same_first;
  for (const LayerAgreement& l : layer) {
    if (l.tokens == 0)
      continue;
    number.push_back(l.number);
    values["router_saturation"].add(l.overlap / double(l.tokens), choices(l) / l.experts);
    values["router_saturation_top1"].add(double(l.first) / double(l.tokens), 1.0 / l.experts);
    if (l.replica_tokens.empty())
      continue;
    same.add(l, l.replica_overlap);
    same_first.add(l, l.replica_first);
  }
  TableBuilder t("agreement", "Do the two choose the same experts?", section::specialisation);
  t.reading(
       "Share of the reference's experts that the other trace chose too, token by token, and of "
       "tokens with the same first choice. Random routing: K/E and 1/E.")
      .chart(Chart::lines);
  t.layers(number);
  t.column("same experts")
      .unit("share")
      .meaning("of the reference's experts, chosen in both")
      .of("router_saturation", values)
      .interval(same.low, same.high);
  t.column("same first choice")
      .unit("share")
      .meaning("tokens with the same first choice")
      .of("router_saturation_top1", values)
      .interval(same_first.low, same_first.high);
  t.into(r);
}

void Agreement::by_margin(Report& r) const {
  std::vector<std::string> bin;
  Values values;
  for (std::size_t m = 0; m <= margins.size(); ++m) {
    std::int64_t n = 0;
    std::int64_t lost = 0;
    for (const LayerAgreement& l : layer) {
      n += l.bin_choices[m];
      lost += l.bin_lost[m];
    }
    bin.push_back(margin_bin(margins, m));
    values["flip_rate_by_margin"].add(double(lost) / double(n), lost_by_chance(layer));
  }
  TableBuilder t("flips_by_margin", "Where the two differ: how sure the router was",
                 section::specialisation);
  t.reading(
      "Share of the reference's experts that the other did not choose, by the router's margin "
      "(last chosen over first not chosen, in probability). Numerical noise flips small margins "
      "only; learning flips all.");
  t.column("margin")
      .unit("probability")
      .meaning("of the reference where it is recorded")
      .values(bin);
  t.column("lost")
      .unit("share")
      .meaning("of the reference's choices, not made by the other")
      .of("flip_rate_by_margin", values)
      .digits(4);
  t.into(r);
}

// All layers together: what the finding speaks of.
void Agreement::whole(Report& r) const {
  const Values all(values());
  double untouched = 1;  // by chance, a token has the same sets in all layers
  double flipped = 0;    // by chance, layers in which it has another
  for (const LayerAgreement& l : layer) {
    if (l.tokens == 0)
      continue;
    const double same = chance::same_set(l.experts, choices(l));
    untouched *= same;
    flipped += 1 - same;
  }
  const std::vector<std::string> ids{"flip_token_rate", "flip_layers_mean", "flip_rate"};
  Values::Rows rows;
  rows.add(all.at(ids[0]).value.front(), 1 - untouched);
  rows.add(all.at(ids[1]).value.front(), flipped);
  rows.add(all.at(ids[2]).value.front(), lost_by_chance(layer));
  TableBuilder t("flips", "How much differs in all", section::specialisation);
  t.reading("Over all layers. The chance values are those of two random routings.");
  t.key("what", "",
        std::vector<std::string>{"tokens with another set of experts in any layer",
                                 "layers with another set, a token",
                                 "choices of the reference not made"});
  t.column("value").meaning("0 where the two route alike").digits(4).rows(rows);
  t.key("id", "definition", ids);
  t.into(r);
}

namespace {

void finding(Report& r) {
  const QuotedTable t(r, "flips");
  constexpr std::size_t tokens = 0;  // rows
  constexpr std::size_t layers = 1;
  constexpr std::size_t choices = 2;
  tell(r, "The two traces differ in ", t.cell("value", choices).percent(),
       " of the choices (random routing: ", t.chance("value", choices).percent(), "); ",
       t.cell("value", tokens).percent(),
       " of the tokens take another set of experts in at least one layer (random routing: ",
       t.chance("value", tokens).percent(), "), in ", t.cell("value", layers).figure(),
       " layers on average.");
}

}  // namespace

void Agreement::report(Report& r) const {
  if (tokens == 0 || sums(layer).choices == 0) {
    return r.warnings.push_back(
        "the two traces have no tokens with choices in common: there is nothing to compare");
  }
  whole(r);
  by_layer(r);
  if (!margins.empty())
    by_margin(r);
  finding(r);
}

}  // namespace moe
