#include "apps/knock_out.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/metric/reach.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double deviations_of_95 = 1.96;
constexpr const char* load_column = "load share";

// Of the mean of domains, which is the last row.
std::size_t mean_row(const ExpertWorth& w) {
  return w.changes.change.size() - 1;
}
double change_of(const ExpertWorth& w) {
  return w.changes.change[mean_row(w)];
}
double deviation_of(const ExpertWorth& w) {
  const std::size_t r = mean_row(w);
  return (w.changes.high[r] - w.changes.low[r]) / (2 * deviations_of_95);
}

std::vector<double> ranks_of(const std::vector<double>& v) {
  std::vector<std::size_t> order(v.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](std::size_t i) { return v[i]; });
  std::vector<double> out(v.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t last = i;
    while (last + 1 < order.size() && v[order[last + 1]] == v[order[i]])
      ++last;
    for (std::size_t j = i; j <= last; ++j)
      out[order[j]] = double(i + last) / 2;  // ties share the middle rank
    i = last + 1;
  }
  return out;
}

// Spearman's rank correlation; NaN where one of the two is constant.
double rank_correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const std::vector<double> x = ranks_of(a);
  const std::vector<double> y = ranks_of(b);
  const double middle = double(x.size() - 1) / 2;
  double xy = 0;
  double xx = 0;
  double yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - middle) * (y[i] - middle);
    xx += (x[i] - middle) * (x[i] - middle);
    yy += (y[i] - middle) * (y[i] - middle);
  }
  return xy / std::sqrt(xx * yy);
}

// "layer 0, expert 3"
std::string name_of(const ExpertName& e) {
  return concat("expert ", e.expert, " of layer ", e.layer);
}

void tell_worth(Report& r, const std::vector<ExpertWorth>& all) {
  const double rare = chance::rare_deviations(double(all.size()));
  std::size_t clear = 0;
  const ExpertWorth* most = &all[0];
  for (const ExpertWorth& w : all) {
    if (change_of(w) > change_of(*most))
      most = &w;
    clear += std::abs(change_of(w)) > rare * deviation_of(w);
  }
  const bool known = std::isfinite(deviation_of(*most));
  if (!known) {
    r.findings.push_back(
        {"Too little text to judge what single experts are worth: intervals need "
         "more sequences (--tokens).",
         {},
         Priority::too_few});
    return;
  }
  r.findings.push_back(
      {fmt::format(
           "{} of {} experts are worth something alone: without one of them the loss changes "
           "by more than the largest of as many changes would by chance. Most is lost "
           "without {}: {:+.4f} nats [{:.4f}, {:.4f}].",
           clear, all.size(), name_of(most->expert), change_of(*most),
           most->changes.low[mean_row(*most)], most->changes.high[mean_row(*most)]),
       {},
       clear > 0 ? Priority::told : Priority::chance});
}

// Fisher's transformation, with Bonett and Wright's variance for ranks (2000).
void tell_correlation(Report& r, const std::vector<double>& load,
                      const std::vector<double>& change) {
  constexpr std::size_t enough = 8;
  const double rho = rank_correlation(load, change);
  if (load.size() < enough || !std::isfinite(rho))
    return;
  const double z = std::atanh(std::clamp(rho, -0.999999, 0.999999));
  const double reach =
      deviations_of_95 * std::sqrt((1 + rho * rho / 2) / (double(load.size()) - 3));
  const double low = std::tanh(z - reach);
  const double high = std::tanh(z + reach);
  const bool tells = low > 0 || high < 0;
  r.findings.push_back(
      {fmt::format(
           "The load {} what an expert is worth: rank correlation {:.2f} [{:.2f}, {:.2f}] over "
           "{} experts.",
           tells ? (rho > 0 ? "foretells" : "is no guide, but its opposite, to")
                 : "does not foretell",
           rho, low, high, load.size()),
       {},
       tells ? Priority::told : Priority::chance});
}

// A row an expert: the change on the mean of domains, and the load.
struct Rows {
  std::vector<std::int64_t> layer, expert;
  std::vector<double> load, change, low, high;
};
Rows rows_of(const std::vector<ExpertWorth>& all) {
  Rows out;
  for (const ExpertWorth& w : all) {
    out.layer.push_back(w.expert.layer);
    out.expert.push_back(w.expert.expert);
    out.load.push_back(w.load);
    out.change.push_back(change_of(w));
    out.low.push_back(w.changes.low[mean_row(w)]);
    out.high.push_back(w.changes.high[mean_row(w)]);
  }
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

}  // namespace

void add_worth(Report& r, const std::vector<ExpertWorth>& all) {
  if (all.empty())
    return;
  const Rows rows = rows_of(all);
  Table t{.id = "expert_worth",
          .title = "What every expert is worth",
          .reading =
              "The change of the loss where one expert is missing and its choices are "
              "dropped, with 95 % intervals by sequences on the same text.",
          .chart = Chart::heatmap};
  t.columns = {{.name = "layer", .cells = rows.layer},
               {.name = "expert", .cells = rows.expert},
               {.name = "change",
                .unit = "nats",
                .meaning = "loss without the expert less the loss with it, mean of domains",
                .cells = rows.change,
                .metric = "loss_without_expert",
                .digits = 4,
                .low = rows.low,
                .high = rows.high},
               {.name = load_column,
                .meaning = "of the layer's choices, with every expert there",
                .cells = rows.load,
                .metric = "load_fraction",
                .digits = 4}};
  add_domains(t, all);
  r.tables.push_back(std::move(t));
  tell_worth(r, all);
  tell_correlation(r, rows.load, rows.change);
}

}  // namespace moe
