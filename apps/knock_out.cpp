#include "apps/knock_out.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analysis/compare/worth.h"
#include "analysis/metric/reach.h"
#include "apps/worth_file.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double deviations_of_95 = 1.96;
constexpr const char* section = "what is an expert worth?";

// Of the mean of domains, which is the last row.
double change_of(const LossChanges& c) {
  return c.change.back();
}
double deviation_of(double low, double high) {
  return (high - low) / (2 * deviations_of_95);
}
double deviation_of(const LossChanges& c) {
  return deviation_of(c.low.back(), c.high.back());
}

std::string name_of(const ExpertName& e) {
  return concat("expert ", e.expert, " of layer ", e.layer);
}

// A number of a sentence and where it stands.
Quote at(const char* table, const char* column, const char* metric, std::size_t row) {
  return {.table = table, .column = column, .metric = metric, .row = row};
}

void tell_worth(Report& r, const std::vector<ExpertWorth>& all) {
  const double rare = chance::rare_deviations(double(all.size()));
  std::size_t clear = 0;
  std::size_t most = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (change_of(all[i].changes) > change_of(all[most].changes))
      most = i;
    clear += std::abs(change_of(all[i].changes)) > rare * deviation_of(all[i].changes);
  }
  const LossChanges& c = all[most].changes;
  if (!std::isfinite(deviation_of(c))) {
    r.findings.push_back(
        {"Too little text to judge what single experts are worth: intervals need "
         "more sequences (--tokens).",
         {at("expert_worth", "change", "loss_without_expert", most)},
         Priority::too_few});
    r.findings.back().cells[0].use = Quote::Use::basis;
    return;
  }
  r.findings.push_back(
      {fmt::format(
           "{} of {} experts are worth something alone: without one of them the loss changes "
           "by more than the largest of as many changes would by chance. Most is lost "
           "without {}: {:+.4f} nats [{:.4f}, {:.4f}].",
           clear, all.size(), name_of(all[most].expert), change_of(c), c.low.back(), c.high.back()),
       {at("expert_worth", "change", "loss_without_expert", most)},
       clear > 0 ? Priority::told : Priority::chance});
}

MeasuredWorth measured(const std::vector<ExpertWorth>& all) {
  MeasuredWorth out;
  for (const ExpertWorth& w : all) {
    out.layer.push_back(w.expert.layer);
    out.expert.push_back(w.expert.expert);
    out.change.push_back(change_of(w.changes));
    out.low.push_back(w.changes.low.back());
    out.high.push_back(w.changes.high.back());
    out.first_half.push_back(w.half[0]);
    out.second_half.push_back(w.half[1]);
  }
  return out;
}

std::vector<double> column_of(const std::vector<ExpertWorth>& all, double ExpertWorth::*of) {
  std::vector<double> out;
  for (const ExpertWorth& w : all)
    out.push_back(w.*of);
  return out;
}

void add_domains(Table& t, const std::vector<ExpertWorth>& all) {
  const std::size_t domains = all[0].changes.name.size() - 1;
  for (std::size_t d = 0; d < domains; ++d) {
    std::vector<double> change;
    for (const ExpertWorth& w : all)
      change.push_back(w.changes.change[d]);
    t.columns.push_back({.name = all[0].changes.name[d],
                         .unit = "nats",
                         .meaning = concat("the change on ", all[0].changes.name[d]),
                         .cells = change,
                         .metric = "loss_without_expert",
                         .digits = 4});
  }
}

Table worth_table(const MeasuredWorth& m, const std::vector<ExpertWorth>& all) {
  Table t{.id = "expert_worth",
          .title = "What every expert is worth",
          .reading =
              "The change of the loss where one expert is missing and its choices are "
              "dropped, with 95 % intervals by sequences on the same text.",
          .chart = Chart::heatmap,
          .section = section};
  t.columns = {{.name = "layer", .cells = m.layer},
               {.name = "expert", .cells = m.expert},
               {.name = "change",
                .unit = "nats",
                .meaning = "loss without the expert less the loss with it, mean of domains",
                .cells = m.change,
                .metric = "loss_without_expert",
                .digits = 4,
                .low = m.low,
                .high = m.high},
               {.name = "load share",
                .meaning = "of the layer's choices, with every expert there",
                .cells = column_of(all, &ExpertWorth::load),
                .metric = "load_fraction",
                .digits = 4},
               {.name = "REAP score",
                .meaning = "mean over its tokens of weight times norm of its output",
                .cells = column_of(all, &ExpertWorth::reap),
                .metric = "expert_reap",
                .digits = 4},
               {.name = first_half_column,
                .unit = "nats",
                .meaning = "the change on every second sequence, from the first on",
                .cells = m.first_half,
                .metric = "loss_without_expert",
                .digits = 4},
               {.name = second_half_column,
                .unit = "nats",
                .meaning = "the change on the sequences between those: how far the two agree says "
                           "how sure the ranking is",
                .cells = m.second_half,
                .metric = "loss_without_expert",
                .digits = 4}};
  add_domains(t, all);
  return t;
}

struct PairColumns {
  std::vector<std::int64_t> layer, one, other;
  std::vector<double> together, change, low, high, beyond, beyond_low, beyond_high;
};
PairColumns columns_of(const std::vector<PairWorth>& all) {
  PairColumns out;
  for (const PairWorth& p : all) {
    out.layer.push_back(p.one.layer);
    out.one.push_back(p.one.expert);
    out.other.push_back(p.other.expert);
    out.together.push_back(p.together);
    out.change.push_back(change_of(p.changes));
    out.low.push_back(p.changes.low.back());
    out.high.push_back(p.changes.high.back());
    out.beyond.push_back(p.beyond);
    out.beyond_low.push_back(p.beyond_low);
    out.beyond_high.push_back(p.beyond_high);
  }
  return out;
}

// Of layers, experts and pairs, those chosen together most often first.
Table pair_table(const WorthOfExperts& w) {
  PairColumns c = columns_of(w.pairs);
  Table t{.id = "expert_pairs",
          .title = "What pairs of experts are worth",
          .reading =
              "The change of the loss where two experts of a layer are missing together, and how "
              "much of it is beyond the changes of each alone: above 0, each stands in for the "
              "other, below, one of them is worth little without the other.",
          .section = section};
  if (w.pairs_left_out > 0) {
    t.warnings.push_back(fmt::format(
        "{} of {} pairs were measured, in each layer those that most tokens choose together; the "
        "other {} were left out (--pairs 0 measures all)",
        w.pairs.size(), w.pairs.size() + w.pairs_left_out, w.pairs_left_out));
  }
  t.columns = {{.name = "layer", .cells = c.layer},
               {.name = "expert", .cells = c.one},
               {.name = "and", .meaning = "the other expert", .cells = c.other},
               {.name = "beyond",
                .unit = "nats",
                .meaning = "the change less the sum of what each alone changes",
                .cells = c.beyond,
                .metric = "loss_beyond_alone",
                .digits = 4,
                .low = c.beyond_low,
                .high = c.beyond_high},
               {.name = "change",
                .unit = "nats",
                .meaning = "loss without the two less the loss with them, mean of domains",
                .cells = c.change,
                .metric = "loss_without_pair",
                .digits = 4,
                .low = c.low,
                .high = c.high},
               {.name = "together",
                .unit = "share",
                .meaning = "of the layer's tokens, those that choose both",
                .cells = c.together,
                .metric = "pair_share",
                .digits = 4}};
  t.columns[3].chance.assign(w.pairs.size(), 0);
  if (w.pairs_left_out == 0)
    t.chart = Chart::heatmap;
  return t;
}

void tell_pairs(Report& r, const WorthOfExperts& w) {
  const double rare = chance::rare_deviations(double(w.pairs.size()));
  std::size_t clear = 0;
  std::size_t most = 0;
  const auto far = [&](const PairWorth& p) {
    const double deviation = deviation_of(p.beyond_low, p.beyond_high);
    return std::isfinite(deviation) && deviation > 0 ? std::abs(p.beyond) / deviation : 0;
  };
  for (std::size_t i = 0; i < w.pairs.size(); ++i) {
    clear += far(w.pairs[i]) > rare;
    if (std::abs(w.pairs[i].beyond) > std::abs(w.pairs[most].beyond))
      most = i;
  }
  const PairWorth& p = w.pairs[most];
  const bool known = std::isfinite(p.beyond_low);
  r.findings.push_back(
      {fmt::format("{} of {} pairs are worth more or less together than their experts alone, by "
                   "more than the largest of as many differences would by chance. The largest: "
                   "experts {} and {} of layer {}, {:+.4f} nats{}{}.",
                   clear, w.pairs.size(), p.one.expert, p.other.expert, p.one.layer, p.beyond,
                   known ? fmt::format(" [{:.4f}, {:.4f}]", p.beyond_low, p.beyond_high)
                         : ", of too few sequences for an interval",
                   w.pairs_left_out > 0
                       ? fmt::format("; {} pairs were left out (--pairs)", w.pairs_left_out)
                       : ""),
       {at("expert_pairs", "beyond", "loss_beyond_alone", most)},
       !known      ? Priority::too_few
       : clear > 0 ? Priority::told
                   : Priority::chance});
}

}  // namespace

void add_worth(Report& r, const WorthOfExperts& w) {
  if (w.each.empty())
    return;
  const MeasuredWorth m = measured(w.each);
  r.tables.push_back(worth_table(m, w.each));
  tell_worth(r, w.each);
  add_foretold(r, m,
               {{"load share", "load_fraction", column_of(w.each, &ExpertWorth::load)},
                {"REAP score", "expert_reap", column_of(w.each, &ExpertWorth::reap)}},
               section);
  if (w.pairs.empty())
    return;
  r.tables.push_back(pair_table(w));
  tell_pairs(r, w);
}

}  // namespace moe
