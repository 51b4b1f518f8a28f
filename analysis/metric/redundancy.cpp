#include "analysis/metric/redundancy.h"

#include <algorithm>
#include <cmath>

#include "analysis/metric/joint.h"

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

}  // namespace

RedundancyMetric::RedundancyMetric(Spec& spec, const TraceSource& trace)
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

TraceFields RedundancyMetric::needs() const {
  return no_fields;
}

std::vector<MetricValue> RedundancyMetric::values() const {
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

const PairMatrix* RedundancyMetric::find(std::string_view name) const {
  for (const PairMatrix& p : pairs_) {
    if (p.name == name)
      return &p;
  }
  return nullptr;
}

std::unique_ptr<Metric> make_redundancy_metric(Spec& spec, const TraceSource& trace,
                                               const AnalyzeOptions& o) {
  const std::int64_t bytes = pair_bytes(trace);
  if (bytes <= o.memory)
    return std::make_unique<RedundancyMetric>(spec, trace);
  spec.get("threshold", 0.8, -1.0);  // known, as where it is measured
  return left_out("which experts do the same", bytes, o.memory);
}

}  // namespace moe
