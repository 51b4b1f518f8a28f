// What modality.h counts, as tables and findings.
#include <algorithm>
#include <cmath>

#include "analysis/metric/finding.h"
#include "analysis/metric/modality.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr Index most_map_cells = 20000, most_maps = 64;  // of all small maps together
constexpr int most_pair_map = 128, most_open_map = 32;   // experts on a side
constexpr const char* label_of_rows = "what the row stands for";

double part_of(double value, double most) {
  return most > 0 ? value / most : no_value;
}

}  // namespace

void ModalityMetric::summary(Report& r) const {
  const double most = std::log2(double(kinds_seen()));
  Values values;
  Values::Rows part;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Figures f = figures(l, store());
    const ByChance lot = spread_by_chance(l);
    const double balanced = balanced_information_bits(state_[l].chosen);
    values["modality_balanced_mi_bits"].add(
        balanced, chance::Value{lot.mean.balanced, lot.deviation.balanced});
    part.add(part_of(balanced, most), chance::Value{part_of(lot.mean.balanced, most),
                                                    part_of(lot.deviation.balanced, most)});
    values["modality_expert_mi_bits"].add(f.mi, f.null_mi);
    values["modality_predictability"].add(predictability(l), predictability_by_chance(l));
  }
  TableBuilder t("modalities", "How much the modality tells about the expert", section::modalities);
  t.reading(
       "Information is what an expert tells about the modality of its rows, were every modality as "
       "frequent: 0 bits where experts ignore it, log2 of the number of modalities where each "
       "expert takes one alone. Rows of different modalities look different to an untrained router "
       "as well: only a trace of the untrained model tells what training added.")
      .chart(Chart::lines);
  t.layers(shape_.number);
  t.column("information")
      .unit("bits")
      .meaning("of modality and expert, every modality with the same weight")
      .of("modality_balanced_mi_bits", values)
      .digits(4);
  t.column("of what there is").unit("share").meaning("of the most it can be").rows(part).digits(4);
  t.column("over all choices")
      .unit("bits")
      .meaning("of modality and expert, every choice with the same weight")
      .of("modality_expert_mi_bits", values)
      .digits(4);
  t.column("guessed right")
      .unit("share")
      .meaning("rows whose modality the first choice tells; at least that of the largest modality")
      .of("modality_predictability", values);
  t.into(r);
}

namespace {

struct FigureOfCounts {
  const char *id, *name, *unit, *meaning;
  int digits = 3;
};

}  // namespace

// In the order of OfCounts.
static constexpr FigureOfCounts figures_of_counts[] = {
    {"modality_dedicated", "dedicated", "experts",
     "with a share of 0.9 or more of this modality, all modalities weighed alike", 1},
    {"modality_load_entropy", "evenness", "of 1", "entropy of its choices over log E"},
    {"modality_load_cv", "load CV", "deviation/mean", "of the experts' loads from it alone"},
    {"modality_max_over_mean", "busiest", "x mean", "load of the expert it uses most, from it"},
    {"modality_resting_fraction", "resting", "share", "experts that none of its rows chose"}};

// A row a layer and modality: how each modality spreads over the experts.
struct ModalityMetric::Each {
  std::vector<std::int64_t> layer, rows;
  std::vector<std::string> name;
  Values values;
};

// Figures of rows, beside those of all rows of the layer.
void ModalityMetric::add_figures_of_rows(Each& to, std::size_t l) const {
  const auto seen = seen_modalities();
  double entropy = 0;
  double entropies = 0;
  double dropped = 0;
  double choices = 0;
  for (const std::size_t m : seen) {
    entropy += sums_[l].entropy[m];
    entropies += sums_[l].entropies[m];
    dropped += double(sums_[l].dropped[m]);
    choices += double(sums_[l].choices[m]);
  }
  for (const std::size_t m : seen) {
    to.values["modality_router_entropy"].add(router_entropy(l, m), entropy / entropies);
    to.values["modality_drop_rate"].add(drop_rate(l, m), dropped / choices);
    to.values["modality_place_mi_bits"].add(place_bits(l, m), place_bits_by_chance(l, m));
  }
}

ModalityMetric::Each ModalityMetric::each_row() const {
  const auto seen = seen_modalities();
  Each out;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Spread spread = spread_of(state_[l].chosen);
    const ByChance lot = spread_by_chance(l);
    for (std::size_t i = 0; i < seen.size(); ++i) {
      out.layer.push_back(shape_.number[l]);
      out.name.push_back(names_[seen[i]]);
      out.rows.push_back(state_[l].tokens[seen[i]]);
      for (std::size_t f = 0; f < of_counts; ++f) {
        out.values[figures_of_counts[f].id].add(
            spread.figure[seen[i] * of_counts + f],
            chance::Value{lot.mean.figure[i * of_counts + f],
                          lot.deviation.figure[i * of_counts + f]});
      }
    }
    add_figures_of_rows(out, l);
  }
  return out;
}

void ModalityMetric::each_modality(Report& r) const {
  const Each all = each_row();
  TableBuilder t("modality_layers", "How each modality spreads over the experts",
                 section::modalities);
  t.reading(
      "A modality may crowd on a few experts while the sum of all looks even; the chance value is "
      "that of as many rows routed at random. Experts that rest while only one modality comes "
      "could be kept out of memory then. Entropy and drops stand beside those of all rows.");
  t.layers(all.layer).key("modality", label_of_rows, all.name);
  t.column("rows").unit("tokens").meaning("that the modality has").values(all.rows);
  for (const FigureOfCounts& f : figures_of_counts)
    t.column(f.name).unit(f.unit).meaning(f.meaning).of(f.id, all.values).digits(f.digits);
  t.column("place tells")
      .unit("bits")
      .meaning("mutual information of place in the picture and expert")
      .of("modality_place_mi_bits", all.values)
      .digits(4);
  if (trace_.fields().entropy || trace_.fields().logits) {
    t.column("router entropy")
        .unit("nats")
        .meaning("mean over its rows; beside it that of all rows")
        .of("modality_router_entropy", all.values);
  }
  if (trace_.fields().dropped) {
    t.column("dropped")
        .unit("share")
        .meaning("of its choices; beside it that of all choices")
        .of("modality_drop_rate", all.values);
  }
  t.into(r);
}

// As many layers as can be looked at side by side, one small map each on one scale.
void ModalityMetric::maps(Report& r) const {
  const auto seen = seen_modalities();
  const Index experts = std::ranges::max(shape_.experts);
  const auto cells = std::max<Index>(1, Index(seen.size()) * experts);
  const auto fit = std::clamp<Index>(most_map_cells / cells, 3, most_maps);
  std::vector<std::string> name;
  std::vector<std::int64_t> number, expert;
  Values values;
  for (const Index l : shown_layers(shape_.layers(), fit)) {
    const auto layer = std::size_t(l);
    const Matrix<double> share = balanced_shares(state_[layer].chosen);
    for (const std::size_t m : seen) {
      for (Index e = 0; e < share.cols(); ++e) {
        number.push_back(shape_.number[layer]);
        name.push_back(names_[m]);
        expert.push_back(e);
        values["modality_share"].add(share(Index(m), e), 1 / double(seen.size()));
      }
    }
  }
  TableBuilder t("modality_map", "Which expert takes which modality, layer by layer",
                 section::modalities);
  t.reading(
       "Share of each modality in what an expert takes, every modality weighed alike: otherwise "
       "hundreds of picture rows would drown a few words. Experts that ignore modality take the "
       "same share of each.")
      .chart(Chart::heatmap);
  t.layers(number).key("modality", label_of_rows, name).key("expert", "expert id", expert);
  t.column("share")
      .unit("share")
      .meaning("of the modality in what the expert takes")
      .of("modality_share", values);
  t.into(r);
}

void ModalityMetric::every_cell(Report& r) const {
  const auto seen = seen_modalities();
  std::vector<std::int64_t> layer, expert, chosen;
  std::vector<std::string> name;
  Values values;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const LabelCounts& s = state_[l];
    const auto rate = rates(s.chosen, s.tokens);
    const auto first = first_rates(s);
    const double experts = shape_.experts[l];
    for (const std::size_t m : seen) {
      for (Index e = 0; e < s.chosen.cols(); ++e) {
        layer.push_back(shape_.number[l]);
        name.push_back(names_[m]);
        expert.push_back(e);
        chosen.push_back(s.chosen(Index(m), e));
        values["modality_hit_rate"].add(rate(Index(m), e), choices(l) / experts);
        values["modality_hit_rate_top1"].add(first(Index(m), e), 1 / experts);
      }
    }
  }
  TableBuilder t("modality_experts", "Every modality and expert", section::modalities);
  t.reading(
       "The counts behind the shares of the map: choices of the modality's rows, of all and "
       "of those that came first.")
      .detail();
  t.layers(layer).key("modality", label_of_rows, name).key("expert", "expert id", expert);
  t.column("choices").unit("choices").meaning("of the modality's rows").values(chosen);
  t.column("hit rate")
      .unit("share")
      .meaning("rows of the modality with the expert among their choices")
      .of("modality_hit_rate", values);
  t.column("first choice")
      .unit("share")
      .meaning("rows of the modality whose first choice it is")
      .of("modality_hit_rate_top1", values);
  t.into(r);
}

// A row a layer and pair of modalities.
struct ModalityMetric::Pairs {
  std::vector<std::int64_t> layer, sequences;
  std::vector<std::string> one, other;
  Values values;
};

ModalityMetric::Pairs ModalityMetric::pair_rows() const {
  const auto seen = seen_modalities();
  Pairs out;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Spread spread = spread_of(state_[l].chosen);
    const ByChance lot = spread_by_chance(l);
    for (std::size_t i = 0; i < seen.size(); ++i) {
      for (std::size_t j = i + 1; j < seen.size(); ++j) {
        const auto at = [](const Matrix<double>& m, std::size_t a, std::size_t b) {
          return m(Index(a), Index(b));
        };
        const auto by_lot = [&](const Matrix<double>& mean, const Matrix<double>& deviation) {
          return chance::Value{at(mean, i, j), at(deviation, i, j)};
        };
        out.layer.push_back(shape_.number[l]);
        out.one.push_back(names_[seen[i]]);
        out.other.push_back(names_[seen[j]]);
        out.values["modality_js_bits"].add(at(spread.js, seen[i], seen[j]),
                                           by_lot(lot.mean.js, lot.deviation.js));
        out.values["modality_tv"].add(at(spread.tv, seen[i], seen[j]),
                                      by_lot(lot.mean.tv, lot.deviation.tv));
        add_overlaps(out, l, seen[i], seen[j]);
      }
    }
  }
  return out;
}

void ModalityMetric::add_overlaps(Pairs& to, std::size_t l, std::size_t a, std::size_t b) const {
  const SharedSequences::Overlap o = shared_[l].overlap(a, b);
  const chance::Value lot = shared_[l].overlap_by_chance(a, b, choices(l));
  to.sequences.push_back(std::int64_t(o.sequences));
  to.values["crossmodal_overlap"].add(o.own, lot);
  to.values["crossmodal_overlap_other"].add(o.other, lot.mean);
  to.values["crossmodal_overlap_excess"].add(o.own - o.other, chance::Value{0, o.error});
}

void ModalityMetric::pairs(Report& r) const {
  const Pairs rows = pair_rows();
  TableBuilder t("modality_pairs",
                 "How differently two modalities are routed, and what unites them",
                 section::modalities);
  t.reading(
      "Distances compare the experts of all rows. Overlap is what two modalities of one sequence "
      "have in common; beside it that of different sequences. Only the difference says that the "
      "experts of a picture tell those of its own text; the overlap alone says that experts are "
      "shared.");
  t.layers(rows.layer)
      .key("modality", label_of_rows, rows.one)
      .key("other", label_of_rows, rows.other);
  t.column("divergence")
      .unit("bits")
      .meaning("Jensen-Shannon divergence of their expert shares: 0 = alike, 1 = none in common")
      .of("modality_js_bits", rows.values)
      .digits(4);
  t.column("distance")
      .meaning("half the sum of the differences of expert shares")
      .of("modality_tv", rows.values);
  t.column("sequences").meaning("with both").values(rows.sequences);
  t.column("own overlap")
      .unit("share")
      .meaning("of the choices that both make in the same sequence")
      .of("crossmodal_overlap", rows.values);
  t.column("others' overlap")
      .unit("share")
      .meaning("the same for two different sequences")
      .of("crossmodal_overlap_other", rows.values);
  t.column("difference")
      .unit("share")
      .meaning("own less others': above 0 where a picture's experts tell its text's")
      .of("crossmodal_overlap_excess", rows.values)
      .digits(4);
  t.into(r);
}

namespace {

// The two labels with most rows, in their order.
std::pair<std::size_t, std::size_t> largest_two(std::vector<std::size_t> labels,
                                                const std::vector<std::int64_t>& rows) {
  std::ranges::stable_sort(labels, std::greater{}, [&](std::size_t m) { return rows[m]; });
  return std::minmax(labels[0], labels[1]);
}

}  // namespace

// Which expert of one modality comes with which of the other in the same sequence.
struct ModalityMetric::Together {
  std::vector<std::int64_t> number, one, other;
  std::vector<double> value, by_chance, ratio;
};

ModalityMetric::Together ModalityMetric::together_rows(std::size_t a, std::size_t b) const {
  Together out;
  for (const Index l : shown_layers(shape_.layers())) {
    const auto layer = std::size_t(l);
    const Matrix<double> m = shared_[layer].together(a, b);
    const std::vector<double> ha = shared_[layer].alone(a, b);
    const std::vector<double> hb = shared_[layer].alone(b, a);
    for (Index i = 0; i < m.rows(); ++i) {
      for (Index j = 0; j < m.cols(); ++j) {
        out.number.push_back(shape_.number[layer]);
        out.one.push_back(i);
        out.other.push_back(j);
        out.value.push_back(m(i, j));
        out.by_chance.push_back(ha[std::size_t(i)] * hb[std::size_t(j)]);
        out.ratio.push_back(part_of(out.value.back(), out.by_chance.back()));
      }
    }
  }
  return out;
}

void ModalityMetric::together(Report& r) const {
  if (shape_.max_experts() > most_pair_map)
    return;
  const auto [a, b] = largest_two(seen_modalities(), tokens_);
  const Together rows = together_rows(a, b);
  if (std::ranges::all_of(rows.value, [](double v) { return std::isnan(v); }))
    return;
  TableBuilder t("crossmodal_map",
                 concat("Experts of ", names_[a], " and ", names_[b], " in one sequence"),
                 section::modalities);
  t.reading(concat("Mean over sequences of the share of an expert in the choices of ", names_[a],
                   " times that of another in the choices of ", names_[b],
                   ", over what the two would give if sequences did not differ: 1 everywhere where "
                   "they do not, more for a pair that comes together."))
      .chart(Chart::heatmap);
  if (shape_.max_experts() > most_open_map)
    t.detail();
  t.layers(rows.number)
      .key(concat("expert of ", names_[a]), "expert id", rows.one)
      .key(concat("expert of ", names_[b]), "expert id", rows.other);
  t.column("ratio")
      .unit("x")
      .meaning("together, over what it would be if sequences did not differ")
      .digits(2)
      .values(rows.ratio)
      .chance(1);
  t.column("together")
      .meaning("mean of the product of the two shares")
      .of("crossmodal_coactivation")
      .digits(5)
      .values(rows.value)
      .chance(rows.by_chance);
  t.into(r);
}

std::string ModalityMetric::commonest_path(std::size_t m) const {
  const PathTable& table = paths_[m];
  std::size_t best = 0;
  const auto before = [&](std::size_t a, std::size_t b) {
    return table.count(a) != table.count(b)
               ? table.count(a) > table.count(b)
               : std::ranges::lexicographical_compare(table.path(a), table.path(b));
  };
  for (std::size_t i = 1; i < table.size(); ++i) {
    if (before(i, best))
      best = i;
  }
  std::string out;
  for (std::size_t l = 0; table.size() > 0 && l < table.path(best).size(); ++l)
    out += concat(l ? "→" : "", table.path(best)[l]);
  return out;
}

void ModalityMetric::paths(Report& r) const {
  if (shape_.layers() < 2 || std::ranges::max(travellers_) == 0)
    return;
  std::vector<std::string> name, path;
  std::vector<std::int64_t> rows;
  Values::Rows share[2];
  for (const std::size_t m : seen_modalities()) {
    name.push_back(names_[m]);
    path.push_back(commonest_path(m));
    rows.push_back(travellers_[m]);
    const auto covered = path_coverage(m);
    const auto lot = path_coverage_by_chance(m);
    for (const std::size_t n : {0u, 1u})
      share[n].add(covered[n], lot[n]);
  }
  TableBuilder t("modality_paths", "The commonest paths of each modality", section::modalities);
  t.reading(
      "A path is a row's first choice in every layer; the chance values are those of the fullest "
      "of as many paths under random routing.");
  t.key("modality", label_of_rows, name)
      .key("commonest path", "experts from the first to the last MoE layer", path);
  t.column("rows").unit("tokens").meaning("with a first choice in every layer").values(rows);
  t.column("on it")
      .unit("share")
      .meaning("rows on the commonest path")
      .of("modality_path_coverage")
      .digits(4)
      .rows(share[0]);
  t.column("on ten")
      .unit("share")
      .meaning("rows on the ten commonest paths")
      .of("modality_path_coverage")
      .digits(4)
      .rows(share[1]);
  t.into(r);
}

// A cell beside its chance value.
static Standing stands(const Column& c, std::size_t row, const Noise& noise) {
  return standing(std::get<std::vector<double>>(c.cells)[row],
                  {c.chance[row], c.chance_spread[row]}, noise);
}

bool ModalityMetric::one_each(std::size_t l) const {
  const Matrix<double> share = balanced_shares(state_[l].chosen);
  return std::ranges::all_of(share.flat(),
                             [](double v) { return std::isnan(v) || v == 0 || v == 1; });
}

void ModalityMetric::apart_finding(Report& r) const {
  const QuotedTable t(r, "modalities");
  const std::size_t best = largest(t.numbers("information"));
  const Standing s = stands(t.column("information"), best,
                            {.tokens = state_[best].all_tokens(),
                             .figures = double(state_.size()),
                             .worth = worth_telling * std::log2(double(kinds_seen())),
                             .falls = 1});
  const Finding lot = t.chance("information", best).figure(4);
  if (s.shown == Shown::too_few) {
    return tell(
        r,
        too_few(state_[best].all_tokens(), "whether experts tell the modalities apart", s.needed),
        " They know ", t.cell("information", best).figure(4),
        " bits of the modality at most, random routing gives ", lot, ".");
  }
  if (s.shown == Shown::no_more) {
    return tell(r, Priority::chance,
                "Experts do not tell the modalities apart: ", t.cell("information", best).figure(4),
                " bits at most, random routing gives ", lot, ".");
  }
  tell(r, "Experts tell the modalities apart most in layer ", t.cell("layer", best), ": ",
       t.cell("information", best).figure(3), " bits (", t.cell("of what there is", best).percent(),
       " of what there is to know; random routing: ", lot, " bits).",
       one_each(best) ? " Every expert there takes a single modality, as where the modality "
                        "itself says which experts are allowed."
                      : "");
}

// Experts that take hardly anything but one modality, over all layers.
void ModalityMetric::dedicated_finding(Report& r) const {
  const QuotedTable t(r, "modality_layers");
  const auto sum = [](std::span<const double> v) {
    double out = 0;
    for (const double x : v)
      out += std::isnan(x) ? 0 : x;
    return out;
  };
  double experts = 0;
  for (const int e : shape_.experts)
    experts += e;
  const double found = sum(t.numbers("dedicated"));
  const double lot = sum(t.chances("dedicated"));
  tell(r, found > lot ? Priority::told : Priority::chance,
       derived(found > 0 ? figure(found, 0) : "None", {t.basis("dedicated")}), " of the ", experts,
       " experts of all layers take 90 % or more from one modality, every modality weighed alike "
       "(random routing: ",
       figure(lot, 1), "); the others are shared.");
}

// What could be kept out of memory while only text comes.
void ModalityMetric::resting_finding(Report& r) const {
  const QuotedTable t(r, "modality_layers");
  const auto words = t.words("modality");
  const auto rests = t.numbers("resting");
  std::size_t best = rests.size();
  for (std::size_t i = 0; i < rests.size(); ++i) {
    if (words[i] == text_modality && (best == rests.size() || rests[i] > rests[best]))
      best = i;
  }
  if (best == rests.size())
    return;
  const Standing s =
      stands(t.column("resting"), best,
             {.tokens = double(t.counts("rows")[best]), .figures = double(rests.size())});
  if (s.shown == Shown::more) {
    tell(r, "While only ", t.cell("modality", best), " comes, ", t.cell("resting", best).percent(),
         " of the experts of layer ", t.cell("layer", best),
         " rest (random routing: ", t.chance("resting", best).percent(), ").");
  }
}

// Whether the experts of a picture say which experts its own text takes.
void ModalityMetric::fusion_finding(Report& r) const {
  const QuotedTable t(r, "modality_pairs");
  const auto difference = t.numbers("difference");
  if (std::ranges::all_of(difference, [](double v) { return std::isnan(v); }))
    return;
  std::size_t best = 0;
  for (std::size_t i = 0; i < difference.size(); ++i)
    best = !(difference[i] <= difference[best]) && !std::isnan(difference[i]) ? i : best;
  const Standing s = stands(t.column("difference"), best,
                            {.tokens = double(t.counts("sequences")[best]),
                             .figures = double(difference.size()),
                             .worth = worth_telling});
  const Finding words = told(t.cell("modality", best), " and ", t.cell("other", best));
  const Finding numbers =
      told(t.cell("own overlap", best).figure(3), " of their choices in one sequence, ",
           t.cell("others' overlap", best).figure(3), " across different ones (layer ",
           t.cell("layer", best), ")");
  if (s.shown == Shown::more) {
    return tell(r, "The experts of a sequence go together across its modalities: ", words,
                " have in common ", numbers, ".");
  }
  tell(r, Priority::chance, "What experts a sequence takes in one modality tells ",
       s.shown == Shown::too_few ? "nothing that so few sequences could show" : "nothing",
       " of the other: ", words, " have in common ", numbers, ".");
}

void ModalityMetric::report(Report& r) const {
  if (kinds_seen() < 2) {
    return r.warnings.push_back(concat(
        "all rows of the trace are of ", kinds_seen() == 0 ? "unknown modality" : "one modality",
        kinds_seen() == 0 ? "" : concat(", ", names_[seen_modalities()[0]]),
        ": modalities are left out"));
  }
  if (std::ranges::all_of(state_, [](const LabelCounts& s) {
        return std::ranges::all_of(s.chosen.flat(), [](auto n) { return n == 0; });
      })) {
    return;  // no token chose anybody: there is nothing to tell apart
  }
  std::vector<std::string> rows;
  for (const std::size_t m : seen_modalities())
    rows.push_back(concat(names_[m], " ", tokens_[m], tokens_[m] == 1 ? " row" : " rows"));
  r.facts.emplace_back("modalities", join(rows));
  summary(r);
  each_modality(r);
  maps(r);
  every_cell(r);
  pairs(r);
  together(r);
  paths(r);
  apart_finding(r);
  dedicated_finding(r);
  resting_finding(r);
  fusion_finding(r);
}

}  // namespace moe
