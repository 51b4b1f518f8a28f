// What redundancy.h counts, as tables and findings.
#include <cmath>

#include "analysis/metric/finding.h"
#include "analysis/metric/redundancy.h"
#include "lib/core/text.h"

namespace moe {

struct RedundancyMetric::Kind {
  const char *id, *says;
  double chance;  // of the mean over pairs; NaN = depends on sizes that the trace does not tell
  bool distance;  // small is alike
  bool listed;    // among the pairs above the threshold
};

namespace {

constexpr RedundancyMetric::Kind kinds[] = {
    {"expert_weight_cosine", "weights", 0, false, true},
    {"expert_output_cosine", "outputs on the same tokens", 0, false, true},
    {"gate_row_cosine", "router rows", 0, false, true},
    {"expert_matched_cosine", "neurons matched one to one", no_value, false, true},
    {"expert_output_cka", "outputs, by linear CKA", no_value, false, false},
    {"expert_up_cosine", "up projections", 0, false, false},
    {"expert_neuron_mean_cosine", "mean neurons", 0, false, false},
    {"expert_mean_output_angle", "mean outputs, as an angle over pi", 0.5, true, false},
    {"expert_ttm_distance", "outputs on the tokens that chose one of the two", 1, true, false}};

}  // namespace

RedundancyMetric::Pairs RedundancyMetric::over_pairs(const Matrix<float>& m, bool distance) {
  double sum = 0;
  double n = 0;
  double top = no_value;
  for (Index i = 0; i < m.rows(); ++i) {
    for (Index j = i + 1; j < m.cols(); ++j) {
      if (std::isnan(m(i, j)))
        continue;
      sum += m(i, j);
      n += 1;
      top = std::isnan(top) ? m(i, j)
            : distance      ? std::min<double>(top, m(i, j))
                            : std::max<double>(top, m(i, j));
    }
  }
  return {n > 0 ? sum / n : no_value, top};
}

// Router rows of H numbers at random: cosines of deviation 1/sqrt(H).
std::vector<double> RedundancyMetric::largest_by_lot() const {
  std::vector<double> out;
  for (std::size_t l = 0; l < width_.size(); ++l) {
    out.push_back(
        chance::largest_cosine(shape_.experts[l] * (shape_.experts[l] - 1.0) / 2, width_[l]));
  }
  return out;
}

void RedundancyMetric::add_kind(TableBuilder& t, const Kind& k, const PairMatrix& p) const {
  std::vector<double> mean, most;
  for (const Matrix<float>& m : p.layer) {
    const Pairs all = over_pairs(m, k.distance);
    mean.push_back(all.mean);
    most.push_back(all.most_alike);
  }
  ColumnBuilder means = t.column(concat(k.id, ", mean"));
  means.meaning(concat("mean over pairs, ", k.says)).of(k.id).values(mean);
  if (!std::isnan(k.chance))
    means.chance(k.chance);
  if (!k.listed && !k.distance)
    return;
  t.column(k.distance ? "smallest" : "largest")
      .meaning(concat(k.distance ? "smallest" : "largest", " of all pairs, ", k.says))
      .of(k.id)
      .values(most)
      .chance(p.name == "gate_row_cosine" ? largest_by_lot() : std::vector<double>{});
}

void RedundancyMetric::summary(Report& r) const {
  TableBuilder t("redundancy", "How alike the experts of a layer are", section::redundancy);
  t.reading(
      "Mean over the pairs of a layer, and the most alike pair: a cosine of 0 is unrelated (random "
      "vectors), 1 the same direction; of the two distances 0 is the same, and unrelated are 0.5 "
      "(angle) and 1 (TTM). Experts copied from one dense network start near 1.");
  t.layers(shape_.number);
  for (const Kind& k : kinds) {
    if (const PairMatrix* p = find(k.id))
      add_kind(t, k, *p);
  }
  const Values all(values());
  if (all.has("gate_expert_r2")) {
    std::vector<double> random;  // of a line through so many unrelated points
    for (const int e : shape_.experts)
      random.push_back(e > 2 ? 1 / (e * (e - 1) / 2.0 - 1) : no_value);
    t.column("router tells weights")
        .meaning("R² of the cosines of expert weights on those of the router rows")
        .of("gate_expert_r2", all)
        .digits(4)
        .chance(random);
  }
  t.into(r);
}

// Pairs of experts, the columns of a table.
struct RedundancyMetric::Listed {
  std::vector<std::string> kind;
  std::vector<std::int64_t> layer, one, other;
  std::vector<double> value;

  void add_above(double threshold, const Kind& k, std::int64_t number,
                 const Matrix<float>& cosine) {
    for (Index i = 0; i < cosine.rows(); ++i) {
      for (Index j = i + 1; j < cosine.cols(); ++j) {
        if (!(double(cosine(i, j)) > threshold))
          continue;
        kind.push_back(k.id);
        layer.push_back(number);
        one.push_back(i);
        other.push_back(j);
        value.push_back(cosine(i, j));
      }
    }
  }
};

void RedundancyMetric::list(Report& r) const {
  Listed pairs;
  std::vector<Found> found;
  for (const Kind& k : kinds) {
    const PairMatrix* p = find(k.id);
    if (!p || !k.listed)
      continue;
    const std::size_t before = pairs.kind.size();
    for (std::size_t l = 0; l < p->layer.size(); ++l)
      pairs.add_above(threshold_, k, shape_.number[l], p->layer[l]);
    found.push_back({&k, before, pairs.kind.size() - before});
  }
  TableBuilder t("redundant_pairs", "Pairs above the threshold", section::redundancy);
  t.reading(concat("Pairs whose cosine exceeds ", figure(threshold_),
                   " (set with redundancy:threshold=). Unrelated experts have a cosine near 0, so "
                   "random "
                   "directions give none. Similar weights are a hint; similar outputs are the "
                   "proof."));
  t.key("by", "what was compared", pairs.kind).layers(pairs.layer);
  t.key("expert", "expert id", pairs.one).key("other", "expert id", pairs.other);
  t.column("cosine").meaning("similarity of the two").values(pairs.value).chance(0);
  if (pairs.value.empty())
    t.warn(concat("no pair lies above ", figure(threshold_)));
  t.into(r);
  for (const Found& f : found)
    finding(r, f);
}

// How many rows there are; of none, the most alike pairs of the layers, which lie below. The
// threshold is an option and stands in how the table is read.
void RedundancyMetric::finding(Report& r, const Found& f) const {
  const std::string_view id = f.kind->id;
  if (id != "expert_weight_cosine" && id != "expert_output_cosine")
    return;
  const QuotedTable all(r, "redundancy");
  const QuotedTable pairs(r, "redundant_pairs");
  const Quote from = f.count ? pairs.basis(pairs.column("cosine"), f.first, f.count)
                             : all.basis(all.column("largest", id), 0, all.rows());
  tell(r,
       derived(f.count == 0   ? "No pair of experts is"
               : f.count == 1 ? "1 pair of experts is"
                              : concat(f.count, " pairs of experts are"),
               {from}),
       " redundant, with a cosine above ", figure(threshold_), ", by ", f.kind->says, ".");
}

void RedundancyMetric::map(Report& r, const PairMatrix& p, Index l) const {
  const Matrix<float>& m = p.layer[l];
  if (m.empty())
    return;
  std::vector<std::int64_t> row, col;
  std::vector<double> cell;
  for (Index i = 0; i < m.rows(); ++i) {
    for (Index j = 0; j < m.cols(); ++j) {
      row.push_back(i);
      col.push_back(j);
      cell.push_back(i == j ? no_value : double(m(i, j)));
    }
  }
  const std::int64_t number = shape_.number[l];
  TableBuilder t(concat(p.name, "_", number),
                 concat("Layer ", number,
                        p.name == "expert_weight_cosine" ? ": likeness of expert weights"
                                                         : ": likeness of expert outputs"),
                 section::redundancy);
  t.reading("Cosine of every pair of experts; unrelated experts are near 0.")
      .chart(Chart::heatmap)
      .detail();
  t.key("expert", "expert id", row).key("other", "expert id", col);
  t.column("cosine").meaning("similarity").of(p.name).values(cell).chance(0);
  t.into(r);
}

void RedundancyMetric::report(Report& r) const {
  if (pairs_.empty()) {
    return r.warnings.push_back(
        "the trace holds no pair matrices and no router rows: redundancy cannot be measured from "
        "routing alone");
  }
  summary(r);
  list(r);
  for (const char* id : {"expert_weight_cosine", "expert_output_cosine"}) {
    const PairMatrix* p = find(id);
    for (const Index l : p ? shown_layers(shape_.layers(), 2) : std::vector<Index>{})
      map(r, *p, l);
  }
}

}  // namespace moe
