// Experts that do the same. The pair matrices were computed once from weights and outputs and stand
// in the trace's header; gate_row_cosine comes from the router rows. Nothing of this needs the
// token rows.
#include <algorithm>
#include <cmath>

#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"

namespace moe {
namespace {

Matrix<float> row_cosine(const Matrix<float>& w) {
  Matrix<float> out(w.rows(), w.rows());
  const auto dot = [&](Index a, Index b) {
    double sum = 0;
    for (Index c = 0; c < w.cols(); ++c)
      sum += double(w(a, c)) * double(w(b, c));
    return sum;
  };
  for (Index a = 0; a < w.rows(); ++a) {
    for (Index b = 0; b < w.rows(); ++b) {
      const double size = std::sqrt(dot(a, a) * dot(b, b));
      out(a, b) = size > 0 ? float(dot(a, b) / size) : 0;
    }
  }
  return out;
}

struct Kind {
  const char *id, *says;
  double chance;  // of the mean over pairs; NaN = depends on sizes that the trace does not tell
  bool distance;  // small is alike
  bool listed;    // among the pairs above the threshold
};
constexpr Kind kinds[] = {
    {"expert_weight_cosine", "weights", 0, false, true},
    {"expert_output_cosine", "outputs on the same tokens", 0, false, true},
    {"gate_row_cosine", "router rows", 0, false, true},
    {"expert_matched_cosine", "neurons matched one to one", no_value, false, true},
    {"expert_output_cka", "outputs, by linear CKA", no_value, false, false},
    {"expert_up_cosine", "up projections", 0, false, false},
    {"expert_neuron_mean_cosine", "mean neurons", 0, false, false},
    {"expert_mean_output_angle", "mean outputs, as an angle over pi", 0.5, true, false},
    {"expert_ttm_distance", "outputs on the tokens that chose one of the two", 1, true, false}};

class Redundancy final : public Metric {
 public:
  Redundancy(Spec& spec, const TraceSource& trace)
      : shape_(trace), threshold_(spec.get("threshold", 0.8, -1.0)) {
    pairs_ = trace.header().pairs;
    const bool has_gate = std::any_of(pairs_.begin(), pairs_.end(), [](const PairMatrix& p) {
      return p.name == "gate_row_cosine";
    });
    if (!has_gate && !trace.header().router_weight.empty()) {
      pairs_.push_back({"gate_row_cosine", {}});
      for (const Matrix<float>& w : trace.header().router_weight) {
        pairs_.back().layer.push_back(row_cosine(w));
        width_.push_back(double(w.cols()));
      }
    }
    for (PairMatrix& p : pairs_)
      p.layer.resize(shape_.experts.size());
  }

  TraceFields needs() const override {
    return no_fields;
  }

  std::vector<MetricValue> values() const override {
    std::vector<MetricValue> out;
    for (const PairMatrix& p : pairs_) {
      std::vector<Matrix<double>> layers;
      for (const Matrix<float>& m : p.layer) {
        layers.emplace_back(m.rows(), m.cols());
        std::copy(m.flat().begin(), m.flat().end(), layers.back().data());
      }
      out.push_back(per_layer(p.name.c_str(), layers));
    }
    const PairMatrix* gate = find("gate_row_cosine");
    const PairMatrix* weight = find("expert_weight_cosine");
    if (gate && weight) {
      std::vector<double> r2;
      for (std::size_t l = 0; l < shape_.experts.size(); ++l) {
        r2.push_back(gate->layer[l].rows() == weight->layer[l].rows()
                         ? pair_r2(gate->layer[l].view(), weight->layer[l].view())
                         : no_value);
      }
      out.push_back(per_layer("gate_expert_r2", r2));
    }
    return out;
  }

  void report(Report&) const override;

 private:
  const PairMatrix* find(std::string_view name) const {
    for (const PairMatrix& p : pairs_) {
      if (p.name == name)
        return &p;
    }
    return nullptr;
  }
  void summary(Report&) const;
  void list(Report&) const;
  void maps(Report&) const;

  Shape shape_;
  double threshold_;
  std::vector<PairMatrix> pairs_;
  std::vector<double> width_;  // (L) H of the router rows
};

void Redundancy::summary(Report& r) const {
  Table t{
      "redundancy",
      "How alike the experts of a layer are",
      "Mean over the pairs of a layer, and the most alike pair: a cosine of 0 is unrelated (random "
      "vectors), 1 the same direction; of the two distances 0 is the same, and unrelated are 0.5 "
      "(angle) and 1 (TTM). Experts copied from one dense network start near 1.",
      Chart::none,
      {column({"layer", "", "absolute layer number", ""}, shape_.number)},
      section::redundancy,
      false,
      {}};
  for (const Kind& k : kinds) {
    const PairMatrix* p = find(k.id);
    if (!p)
      continue;
    std::vector<double> mean, most;
    for (const Matrix<float>& m : p->layer) {
      double sum = 0;
      double n = 0;
      double top = no_value;
      for (Index i = 0; i < m.rows(); ++i) {
        for (Index j = i + 1; j < m.cols(); ++j) {
          if (!std::isnan(m(i, j))) {
            sum += m(i, j);
            n += 1;
            top = std::isnan(top) ? m(i, j)
                  : k.distance    ? std::min<double>(top, m(i, j))
                                  : std::max<double>(top, m(i, j));
          }
        }
      }
      mean.push_back(n > 0 ? sum / n : no_value);
      most.push_back(top);
    }
    t.columns.push_back(
        {std::string(k.id) + ", mean", "", std::string("mean over pairs, ") + k.says, mean, k.id,
         std::isnan(k.chance) ? std::vector<double>{} : std::vector<double>(mean.size(), k.chance),
         3});
    std::vector<double> largest;
    if (p->name == "gate_row_cosine")  // rows of H numbers by lot: cosines of deviation 1/sqrt(H)
    {
      for (std::size_t l = 0; l < width_.size(); ++l) {
        largest.push_back(
            chance::largest_cosine(shape_.experts[l] * (shape_.experts[l] - 1.0) / 2, width_[l]));
      }
    }
    if (k.listed) {
      t.columns.push_back(
          {"largest", "", std::string("largest of all pairs, ") + k.says, most, k.id, largest, 3});
    } else if (k.distance) {
      t.columns.push_back(
          {"smallest", "", std::string("smallest of all pairs, ") + k.says, most, k.id, {}, 3});
    }
  }
  for (const MetricValue& m : values()) {
    if (m.id == "gate_expert_r2") {
      std::vector<double> null;  // of a line through so many unrelated points
      for (const int e : shape_.experts)
        null.push_back(e > 2 ? 1 / (e * (e - 1) / 2.0 - 1) : no_value);
      t.columns.push_back({"router tells weights", "",
                           "R² of the cosines of expert weights on those of the router rows",
                           m.values, m.id, null, 4});
    }
  }
  r.tables.push_back(std::move(t));
}

void Redundancy::list(Report& r) const {
  std::vector<std::string> kind;
  std::vector<std::int64_t> layer, one, other;
  std::vector<double> value;
  for (const Kind& k : kinds) {
    const PairMatrix* p = find(k.id);
    if (!p || !k.listed)
      continue;
    const std::size_t before = kind.size();
    for (std::size_t l = 0; l < p->layer.size(); ++l) {
      for (Index i = 0; i < p->layer[l].rows(); ++i) {
        for (Index j = i + 1; j < p->layer[l].cols(); ++j) {
          if (double(p->layer[l](i, j)) > threshold_) {
            kind.push_back(k.id);
            layer.push_back(shape_.number[l]);
            one.push_back(i);
            other.push_back(j);
            value.push_back(p->layer[l](i, j));
          }
        }
      }
    }
    const std::size_t found = kind.size() - before;
    if (std::string_view(k.id) == "expert_weight_cosine" ||
        std::string_view(k.id) == "expert_output_cosine") {
      r.findings.push_back((found ? std::to_string(found) + (found == 1 ? " pair of experts is"
                                                                        : " pairs of experts are")
                                  : std::string("No pair of experts is")) +
                           " redundant, with a cosine above " + figure(threshold_) + ", by " +
                           k.says + ".");
    }
  }
  Table t{
      "redundant_pairs",
      "Pairs above the threshold",
      "Pairs whose cosine exceeds " + figure(threshold_) +
          " (set with redundancy:threshold=). Unrelated experts have a cosine near 0, so random "
          "directions give none. Similar weights are a hint; similar outputs are the proof.",
      Chart::none,
      {column({"by", "", "what was compared", ""}, kind),
       column({"layer", "", "absolute layer number", ""}, layer),
       column({"expert", "", "expert id", ""}, one), column({"other", "", "expert id", ""}, other),
       column({"cosine", "", "similarity of the two", ""}, value,
              std::vector<double>(value.size(), 0))},
      section::redundancy,
      false,
      {}};
  if (value.empty())
    t.warnings.push_back("no pair lies above " + figure(threshold_));
  r.tables.push_back(std::move(t));
}

void Redundancy::maps(Report& r) const {
  for (const char* id : {"expert_weight_cosine", "expert_output_cosine"}) {
    const PairMatrix* p = find(id);
    if (!p)
      continue;
    for (const Index l : shown_layers(shape_.layers(), 2)) {
      const Matrix<float>& m = p->layer[std::size_t(l)];
      if (m.empty())
        continue;
      std::vector<std::int64_t> row, col;
      std::vector<double> cell;
      for (Index i = 0; i < m.rows(); ++i) {
        for (Index j = 0; j < m.cols(); ++j) {
          row.push_back(i);
          col.push_back(j);
          cell.push_back(i == j ? no_value : double(m(i, j)));
        }
      }
      const std::string number = std::to_string(shape_.number[std::size_t(l)]);
      r.tables.push_back(
          {std::string(id) + "_" + number,
           std::string("Layer ") + number +
               (std::string_view(id) == "expert_weight_cosine" ? ": likeness of expert weights"
                                                               : ": likeness of expert outputs"),
           "Cosine of every pair of experts; unrelated experts are near 0.",
           Chart::heatmap,
           {column({"expert", "", "expert id", ""}, row),
            column({"other", "", "expert id", ""}, col),
            column({"cosine", "", "similarity", id}, cell, std::vector<double>(row.size(), 0))},
           section::redundancy,
           true,
           {}});
    }
  }
}

void Redundancy::report(Report& r) const {
  if (pairs_.empty()) {
    return r.warnings.push_back(
        "the trace holds no pair matrices and no router rows: redundancy cannot be told from "
        "routing alone");
  }
  summary(r);
  list(r);
  maps(r);
}

}  // namespace

std::unique_ptr<Metric> make_redundancy_metric(Spec& spec, const TraceSource& trace,
                                               const AnalyzeOptions& o) {
  const std::int64_t bytes = pair_bytes(trace);
  if (bytes <= o.memory)
    return std::make_unique<Redundancy>(spec, trace);
  spec.get("threshold", 0.8, -1.0);  // known, as where it is measured
  return left_out("which experts do the same", bytes, o.memory);
}

}  // namespace moe
