#include "analysis/metric/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"

namespace moe {

Shape::Shape(const TraceSource& trace) {
  for (const TraceLayer& l : trace.header().layers) {
    experts.push_back(l.experts);
    top_k.push_back(l.top_k);
    number.push_back(l.index);
  }
}

int Shape::max_experts() const {
  return experts.empty() ? 0 : *std::max_element(experts.begin(), experts.end());
}

int usual_ranks(const Shape& s) {
  int ranks = 8;
  const auto fit = [&](int experts) {
    return experts % ranks == 0 && ranks <= experts / 2;
  };
  while (ranks > 1 && !std::ranges::all_of(s.experts, fit))
    ranks /= 2;
  return ranks;
}

std::vector<double> list_of(Spec& spec, const char* key, const char* fallback, double least) {
  std::vector<double> out;
  for (const std::string& text : split_list(spec.get(key, fallback))) {
    // the spec's own number check, sentence included
    Spec one(concat(spec.name(), ":", key, "=", text));
    out.push_back(one.get(key, 0.0, least));
  }
  return out;
}

std::vector<int> whole_list_of(Spec& spec, const char* key, const char* fallback, int least) {
  std::vector<int> out;
  for (const std::string& text : split_list(spec.get(key, fallback))) {
    Spec one(concat(spec.name(), ":", key, "=", text));
    out.push_back(one.get(key, 0, least));
  }
  return out;
}

MetricValue per_layer(const char* id, const std::vector<double>& values) {
  return {id, {Index(values.size())}, values};
}

MetricValue per_layer(const char* id, const std::vector<std::vector<double>>& rows) {
  std::size_t widest = 0;
  for (const auto& r : rows)
    widest = std::max(widest, r.size());
  MetricValue out{
      id, {Index(rows.size()), Index(widest)}, std::vector<double>(rows.size() * widest, no_value)};
  for (std::size_t r = 0; r < rows.size(); ++r)
    std::copy(rows[r].begin(), rows[r].end(), out.values.begin() + std::ptrdiff_t(r * widest));
  return out;
}

MetricValue per_layer(const char* id, const std::vector<Matrix<double>>& layers) {
  Index rows = 0;
  Index cols = 0;
  for (const auto& m : layers) {
    rows = std::max(rows, m.rows());
    cols = std::max(cols, m.cols());
  }
  MetricValue out{id,
                  {Index(layers.size()), rows, cols},
                  std::vector<double>(layers.size() * std::size_t(rows * cols), no_value)};
  for (std::size_t l = 0; l < layers.size(); ++l) {
    for (Index r = 0; r < layers[l].rows(); ++r) {
      for (Index c = 0; c < layers[l].cols(); ++c)
        out.values[(Index(l) * rows + r) * cols + c] = layers[l](r, c);
    }
  }
  return out;
}

Matrix<double> as_double(const Matrix<std::int64_t>& counts) {
  Matrix<double> out(counts.rows(), counts.cols());
  std::transform(counts.flat().begin(), counts.flat().end(), out.data(),
                 [](std::int64_t n) { return double(n); });
  return out;
}

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}
std::string figure(double value, int digits) {
  return std::isinf(value) ? "∞" : fmt::format("{:.{}f}", value, digits);
}

std::int64_t rounded(double value) {
  return std::isnan(value) ? 0 : std::llround(value);
}
int whole_choices(double mean, int experts) {
  return std::clamp(int(rounded(mean)), 1, std::max(1, experts));
}

std::vector<double> key_of(int experts, int k, const std::vector<std::int64_t>& label_tokens) {
  std::vector<double> out{double(experts), double(k)};
  out.insert(out.end(), label_tokens.begin(), label_tokens.end());
  return out;
}

std::int64_t pair_bytes(const TraceSource& trace) {
  std::int64_t bytes = 0;
  for (const TraceLayer& l : trace.header().layers)
    bytes += std::int64_t{8} * l.experts * l.experts;
  return bytes;
}

namespace {
class LeftOut final : public Metric {
 public:
  explicit LeftOut(std::string sentence) : sentence_(std::move(sentence)) {}
  TraceFields needs() const override {
    return no_fields;
  }
  std::vector<MetricValue> values() const override {
    return {};
  }
  void report(Report& r) const override {
    r.warnings.push_back(sentence_);
  }

 private:
  std::string sentence_;
};
}  // namespace

std::unique_ptr<Metric> left_out(const std::string& what, std::int64_t bytes, std::int64_t memory) {
  const auto gib = [](std::int64_t n) {
    return figure(double(n) / double(1 << 30), 1);
  };
  return left_out(concat(what, " is left out: all pairs of experts would take ", gib(bytes),
                         " GiB, and a metric may take ", gib(memory)));
}

std::unique_ptr<Metric> left_out(std::string sentence) {
  return std::make_unique<LeftOut>(std::move(sentence));
}

Index maps_within(std::int64_t memory, int experts, int others) {
  // two keys, the value and its chance value
  return Index(memory / (std::int64_t{32} * std::max(1, experts) * std::max(1, others)));
}

std::vector<Index> shown_layers(Index layers, Index most) {
  std::vector<Index> out;
  if (most < 1)
    return out;
  if (layers <= most) {
    for (Index l = 0; l < layers; ++l)
      out.push_back(l);
  } else {
    for (Index i = 0; i < most; ++i)
      out.push_back(i * (layers - 1) / std::max<Index>(1, most - 1));
  }
  return out;
}

}  // namespace moe
