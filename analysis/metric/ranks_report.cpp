// What ranks.h counts, as tables and a finding.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/metric/finding.h"
#include "analysis/metric/ranks.h"
#include "lib/core/text.h"

namespace moe {

// Appends a row of means over layers at a size of the sweep.
void RanksMetric::add_size(Values& to, Memo& memo, std::size_t size) const {
  const int ranks = sizes_[size];
  double sent = 0;
  double dedup = 0;
  double balanced = 0;
  double layers = 0;
  std::vector<chance::Value> random_sent, random_dedup, random_balanced;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const State& s = layer_[l];
    if (s.assignments == 0)
      continue;
    layers += 1;
    balanced += balancedness(s.counts, ranks);
    random_balanced.push_back(chance_balancedness(memo, l, ranks, s.tokens, false));
    if (counted_)
      continue;
    const double by_chance = chance::distinct_ranks(shape_.experts[l], choices(s), ranks);
    sent += double(s.at_size[size]) / double(s.tokens);
    random_sent.push_back({by_chance});
    dedup += double(s.at_size[size]) / double(s.assignments);
    random_dedup.push_back({by_chance / choices(s)});
  }
  to["a2a_distinct_ranks"].add(sent / layers, chance::mean_of_independent(random_sent));
  to["a2a_dedup_factor"].add(dedup / layers, chance::mean_of_independent(random_dedup));
  to["ep_balancedness"].add(balanced / layers, chance::mean_of_independent(random_balanced));
}

void RanksMetric::by_size(Report& r, Memo& memo) const {
  Values values;
  for (std::size_t i = 0; i < sizes_.size(); ++i)
    add_size(values, memo, i);
  TableBuilder t("all_to_all", "Experts over ranks: what it would cost", section::deployment);
  t.reading(concat(
      "Mean over layers, experts placed on the ranks in order. ",
      counted_
          ? "What all-to-all sends depends on which experts share a token, which counts do not "
            "tell."
          : "A token is sent once to every rank "
            "that holds one of its experts; the dedup factor is what that saves "
            "against one copy an expert (1 = nothing).",
      " Balancedness is mean over largest load of a rank, 1 = even. Chance values: tokens that "
      "choose their experts at random."));
  t.key("ranks", "expert-parallel size", std::vector<std::int64_t>(sizes_.begin(), sizes_.end()));
  if (!counted_) {
    t.column("ranks a token")
        .unit("ranks")
        .meaning("distinct ranks that hold a token's experts")
        .of("a2a_distinct_ranks", values)
        .digits(2);
    t.column("dedup factor").meaning("distinct ranks over choices").of("a2a_dedup_factor", values);
  }
  t.column("balancedness")
      .meaning("mean over largest load of the ranks, whole trace")
      .of("ep_balancedness", values);
  t.into(r);
}

namespace {

struct Told {  // what the finding says of a size; sent: nothing where only counts are known
  Finding ranks, sent, balanced;
};

// "1.9 of them (random routing: 1.86)"
Finding beside(const Finding& value, const char* unit, double by_chance, const Finding& chance) {
  return std::isnan(by_chance) ? told(value, unit)
                               : told(value, unit, " (random routing: ", chance, ")");
}

Told of_sweep(const Report& r, std::size_t row, bool counted) {
  const QuotedTable t(r, "all_to_all");
  const auto told_of = [&](const char* column, const char* unit) {
    const QuotedCell by_chance = t.chance(column, row);
    return beside(t.cell(column, row).figure(), unit, by_chance.number(), by_chance.figure());
  };
  return {t.cell("ranks", row).written(),
          counted ? Finding{} : told_of("ranks a token", " of them"), told_of("balancedness", "")};
}

// Means over the layers that have choices, as the sweep has them. The size is an option and stands
// in the title of the table.
Told of_layers(const Report& r, int ranks, bool counted) {
  const QuotedTable t(r, "ranks");
  const std::span<const double> balanced = t.numbers("balancedness");
  const auto none = std::ranges::count_if(balanced, [](double b) { return std::isnan(b); });
  const double layers = double(balanced.size()) - double(none);
  const auto mean = [&](std::span<const double> cells) {
    double sum = 0;
    for (std::size_t l = 0; l < cells.size(); ++l)
      sum += std::isnan(balanced[l]) ? 0 : cells[l];
    return sum / layers;
  };
  const auto told_of = [&](const char* column, const char* unit) {
    const double by_chance = mean(t.chances(column));
    return beside(derived(figure(mean(t.numbers(column))), {t.basis(column)}), unit, by_chance,
                  derived(figure(by_chance), {t.basis(column)}));
  };
  return {{concat(ranks), {}},
          counted ? Finding{} : told_of("ranks a token", " of them"),
          told_of("balancedness", "")};
}

std::string layers_on(int ranks, int nodes) {
  return concat("Layer by layer on ", ranks, " ranks in ", nodes, nodes == 1 ? " node" : " nodes");
}

}  // namespace

Evidence RanksMetric::evidence() const {
  double judged = 0;  // layers
  for (const State& s : layer_)
    judged += s.assignments > 0;
  Judge out(threshold_,
            [ranks = ep_](const chance::Size& s) { return chance::reach_balancedness(s, ranks); });
  const bool known = std::ranges::none_of(layer_, [](const State& s) { return s.tokens < 0; });
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const State& s = layer_[l];
    if (known)
      out.add({double(shape_.experts[l]), choices(s), double(s.tokens), judged});
    else
      out.add_assignments(shape_.experts[l], double(s.assignments), judged);
  }
  return out.take();
}

// Of the size that was asked for; the sweep has it, unless it is no power of two or beyond it.
void RanksMetric::finding(Report& r) const {
  if (told_ == 1)
    return;  // nothing is sent, and nothing can be uneven
  const auto in_sweep = std::find(sizes_.begin(), sizes_.end(), told_);
  const Told t = in_sweep == sizes_.end()
                     ? of_layers(r, told_, counted_)
                     : of_sweep(r, std::size_t(in_sweep - sizes_.begin()), counted_);
  const auto judged = verdict(threshold_, QuotedTable(r, "ranks").column("balancedness"));
  const Finding unsure = judged && judged->light == Light::grey
                             ? told(" ", too_few(judged->tokens, "how even the ranks are",
                                                 judged->needed, "", judged->unit))
                             : Finding{};
  if (counted_) {
    return tell(r, "On ", t.ranks, " expert-parallel ranks the loads have a mean balancedness of ",
                t.balanced, ".", unsure);
  }
  tell(r, "On ", t.ranks, " expert-parallel ranks a token goes to ", t.sent,
       ", and the ranks' loads have a mean balancedness of ", t.balanced, ".", unsure);
}

Values RanksMetric::layer_values(Memo& memo) const {
  Values all(values());
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    State s = layer_[l];
    end_step(s);
    const double k = choices(s);
    const int e = shape_.experts[l];
    all["ep_rank_imbalance"].chance.add(s.sizes.mean(
        [&](std::int64_t tokens) { return chance_balancedness(memo, l, ep_, tokens, true); }));
    all["ep_balancedness"].chance.add(chance_balancedness(memo, l, ep_, s.tokens, false));
    if (counted_)
      continue;
    const double ranks = chance::distinct_ranks(e, k, ep_);
    all["a2a_distinct_ranks"].chance.add({ranks});
    all["a2a_dedup_factor"].chance.add({ranks / k});
    // nodes hold experts in order too
    all["a2a_distinct_nodes"].chance.add({chance::distinct_ranks(e, k, nodes_)});
  }
  return all;
}

void RanksMetric::by_layer(Report& r, Memo& memo) const {
  const Values values = layer_values(memo);
  TableBuilder t("ranks", layers_on(ep_, nodes_), section::deployment);
  t.reading(
       "Imbalance is what a step waits for: the largest load of a rank over the mean, less 1, for "
       "each step alone. Random routing is uneven too, the more the smaller a step.")
      .detail();
  t.layers(shape_.number);
  t.column("imbalance")
      .unit("x mean")
      .meaning("mean over steps of largest over mean load of a rank, less 1")
      .of("ep_rank_imbalance", values);
  t.column("balancedness")
      .meaning("mean over largest load of a rank, whole trace")
      .of("ep_balancedness", values)
      .judged_by(evidence());
  if (!counted_)
    add_sends(t, values);
  if (const std::string cut = uneven_cut(); !cut.empty())
    t.warn(cut);
  t.into(r);
}

// Which ranks hold more experts than others, in a sentence; empty where all hold as many.
std::string RanksMetric::uneven_cut() const {
  for (const int experts : shape_.experts) {
    const int more = experts % ep_;
    if (more == 0)
      continue;
    const int fewest = experts / ep_;
    return concat(experts, " experts do not divide into ", ep_, " ranks: ", more,
                  more == 1 ? " holds " : " hold ", fewest + 1, " and ", ep_ - more,
                  ep_ - more == 1 ? " holds " : " hold ", fewest > 0 ? concat(fewest) : "none",
                  ", so that even routing leaves them uneven");
  }
  return "";
}

void RanksMetric::add_sends(TableBuilder& t, const Values& values) const {
  t.column("ranks a token")
      .unit("ranks")
      .meaning("distinct ranks of a token's experts")
      .of("a2a_distinct_ranks", values)
      .digits(2);
  t.column("dedup factor").meaning("distinct ranks over choices").of("a2a_dedup_factor", values);
  t.column("nodes a token")
      .unit("nodes")
      .meaning("distinct nodes of a token's experts")
      .of("a2a_distinct_nodes", values)
      .digits(2);
  if (has_rank_) {
    std::vector<double> other;
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      other.push_back(double(layer_[l].tokens - layer_[l].foreign) *
                      values.at("a2a_distinct_nodes").chance.value[l] * (nodes_ - 1) / nodes_);
    }
    t.column("sends to other nodes")
        .unit("tokens")
        .meaning("distinct nodes of a token's experts other than its own")
        .of("a2a_internode_sends", values)
        .digits(0)
        .chance(other);
    if (layer_[0].foreign) {
      t.warn(concat(layer_[0].foreign, " tokens come from ranks beyond the ", ep_,
                    " and are in no matrix: set ranks:ep_size="));
    }
  }
}

void RanksMetric::whole(Report& r, Memo& memo) const {
  Values all(values());
  double means = 0;
  double mosts = 0;
  std::vector<chance::Value> each;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const double mean = double(layer_[l].assignments) / ep_;
    means += mean;
    mosts += mean * (1 + chance_balancedness(memo, l, ep_, layer_[l].tokens, true).mean);
    each.push_back(chance_balancedness(memo, l, ep_, layer_[l].tokens, false));
  }
  all["ep_balancedness_eps_mean"].chance.add(chance::mean_of_independent(each));
  TableBuilder t("ranks_whole", concat("All layers in one number, on ", ep_, " ranks"),
                 section::deployment);
  t.reading(
       "Two ways in which engines sum balancedness up: the ratio of the sums weighs layers by "
       "their load, the mean of ratios (with an epsilon) all alike. 1 = even.")
      .detail();
  t.key("ranks", "expert-parallel size", std::vector<std::int64_t>{ep_});
  t.column("ratio of sums")
      .meaning("sum over layers of the mean over the sum of the largest load")
      .of("ep_balancedness_sum_ratio", all)
      .chance(means / mosts);
  t.column("mean of ratios")
      .meaning("mean over layers of mean over largest load")
      .of("ep_balancedness_eps_mean", all);
  t.into(r);
}

// What rank `a` sends to rank `b`, over all layers.
void RanksMetric::add_sent(Values& to, int a, int b) const {
  double sent = 0;
  double copies = 0;
  double random_sent = 0;
  double random_copies = 0;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const State& s = layer_[l];
    const auto row = s.copies_to.row(a);
    const double k = choices(s);
    const double all = std::accumulate(row.begin(), row.end(), 0.0);
    const double here = double(std::count(s.rank_of.begin(), s.rank_of.end(), b));
    sent += double(s.tokens_to(a, b));
    copies += double(s.copies_to(a, b));
    random_sent += all / k * chance::meets(shape_.experts[l], k, here);
    random_copies += all * here / shape_.experts[l];
  }
  to["a2a_matrix"].add(sent, random_sent);
  to["a2a_matrix_copies"].add(copies, random_copies);
}

void RanksMetric::matrix(Report& r) const {
  std::vector<std::int64_t> from, to;
  Values values;
  for (int a = 0; a < ep_; ++a) {
    for (int b = 0; b < ep_; ++b) {
      from.push_back(a);
      to.push_back(b);
      add_sent(values, a, b);
    }
  }
  TableBuilder tokens("a2a_matrix", "Tokens from rank to rank", section::deployment);
  tokens
      .reading(concat(
          "Summed over layers",
          folded() ? concat(" and over groups of ", owners_, " ranks that shared experts out") : "",
          "; a token counts once for each rank that holds one of its experts. "
          "Random routing sends every row evenly, to ranks with more experts more."))
      .chart(Chart::heatmap)
      .detail();
  tokens.key("from", "source rank", from).key("to", "rank of the expert", to);
  tokens.column("tokens").unit("tokens").meaning("tokens sent").of("a2a_matrix", values).digits(0);
  tokens.into(r);
  TableBuilder copies("a2a_matrix_copies", "Copies from rank to rank", section::deployment);
  copies
      .reading(
          "Summed over layers; a token counts once for each of its experts. Random "
          "routing sends every row evenly, to ranks with more experts more.")
      .detail();
  copies.key("from", "source rank", from).key("to", "rank of the expert", to);
  copies.column("copies")
      .unit("assignments")
      .meaning("assignments sent")
      .of("a2a_matrix_copies", values)
      .digits(0);
  copies.into(r);
}

void RanksMetric::report(Report& r) const {
  std::int64_t any = 0;
  for (const State& s : layer_)
    any += s.assignments;
  if (any == 0)
    return;
  if (owners_ > 0)
    recorded(r);
  if (sizes_.empty())
    return;
  Memo& memo = store().memo;
  by_size(r, memo);
  by_layer(r, memo);
  whole(r, memo);
  if (has_rank_)
    matrix(r);
  finding(r);
}

}  // namespace moe
