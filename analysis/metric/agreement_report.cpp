// What agreement.h counts, as tables and a finding.
#include <cmath>

#include "analysis/metric/agreement.h"
#include "analysis/metric/bootstrap.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/verdict.h"
#include "lib/core/text.h"

namespace moe {
namespace {

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
      out += double(l.choices) / all * (1 - l.by_chance().common);
  }
  return out;
}

void add(Values::Rows& to, double measured, const chance::Value& by_chance) {
  if (std::isnan(by_chance.spread))
    to.add(measured, by_chance.mean);
  else
    to.add(measured, by_chance);
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
    const ChanceAgreement random = l.by_chance();
    add(values["router_saturation"], l.overlap / double(l.tokens), random.overlap);
    add(values["router_saturation_top1"], double(l.first) / double(l.tokens), random.first);
    if (l.replica_tokens.empty())
      continue;
    same.add(l, l.replica_overlap);
    same_first.add(l, l.replica_first);
  }
  TableBuilder t("agreement", "Do the two choose the same experts?", section::specialisation);
  t.reading(
       "Share of the reference's experts that the other trace chose too, token by token, and of "
       "tokens with the same first choice. Random routing: K/E and 1/E; the more where the experts "
       "of "
       "two trainings were matched to each other first.")
      .chart(Chart::lines);
  t.layers(number);
  t.column("same experts")
      .unit("share")
      .meaning("of the reference's experts, chosen in both")
      .of(id("router_saturation"))
      .rows(values.at("router_saturation"))
      .interval(same.low, same.high);
  if (first_choices_known()) {
    t.column("same first choice")
        .unit("share")
        .meaning("tokens with the same first choice")
        .of(id("router_saturation_top1"))
        .rows(values.at("router_saturation_top1"))
        .interval(same_first.low, same_first.high);
  }
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
      .of(id("flip_rate_by_margin"))
      .rows(values.at("flip_rate_by_margin"))
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
    const double same = l.by_chance().same_set;
    untouched *= same;
    flipped += 1 - same;
  }
  const std::vector<std::string> ids{id("flip_token_rate"), id("flip_layers_mean"),
                                     id("flip_rate")};
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

// all: choices of the reference in `tokens` tokens
void finding(Report& r, double tokens, double all, bool matched) {
  const QuotedTable t(r, "flips");
  constexpr std::size_t any_layer = 0;  // rows
  constexpr std::size_t layers = 1;
  constexpr std::size_t choices = 2;
  const double alike = 1 - t.cell("value", choices).number();
  const double by_chance = 1 - t.chance("value", choices).number();
  const Standing s = standing(alike, {by_chance, std::sqrt(by_chance * (1 - by_chance) / all)},
                              {.tokens = tokens});
  const Finding first =
      s.shown == Shown::too_few ? told(too_few(tokens, "how alike the two route", s.needed), " ")
      : s.shown == Shown::no_more
          ? told("The two traces route alike no more than two random routings would. ")
          : Finding{};
  tell(r, first, matched ? "With experts matched, the" : "The", " two traces differ in ",
       t.cell("value", choices).percent(),
       " of the choices (random routing: ", t.chance("value", choices).percent(), "); ",
       t.cell("value", any_layer).percent(),
       " of the tokens take another set of experts in at least one layer (random routing: ",
       t.chance("value", any_layer).percent(), "), in ", t.cell("value", layers).figure(),
       " layers on average.");
}

}  // namespace

void Agreement::report(Report& r) const {
  if (impossible > 0) {
    r.warnings.insert(
        r.warnings.begin(),
        concat(impossible,
               " tokens have one expert in several slots of a layer in one of the traces, which no "
               "top-k gives: they are left out of every figure"));
  }
  if (tokens == 0 || sums(layer).choices == 0) {
    return r.warnings.push_back(
        "the two traces have no tokens with choices in common: there is nothing to compare");
  }
  if (const std::string remark = remark_on(order); !remark.empty())
    r.warnings.push_back(remark);
  whole(r);
  by_layer(r);
  if (!margins.empty())
    by_margin(r);
  finding(r, double(tokens), double(sums(layer).choices), matched);
}

}  // namespace moe
