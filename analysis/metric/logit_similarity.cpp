// Experts that the router wants for the same tokens: cosine of the columns of the logits, as
// MC-SMoE groups by. From the (E,E) products of logits, summed over the first `tokens` that have
// some.
#include "analysis/metric/layout.h"

namespace moe {
namespace {

class LogitSimilarity final : public Metric {
 public:
  LogitSimilarity(Spec& spec, const TraceSource& trace)
      : shape_(trace),
        has_(trace.fields().logits),
        most_(spec.get("tokens", 65536, 0)),
        layer_(shape_.experts.size()) {
    for (std::size_t l = 0; l < layer_.size() && has_; ++l)
      layer_[l].products = Matrix<double>(shape_.experts[l], shape_.experts[l]);
  }

  TraceFields needs() const override {
    TraceFields f = no_fields;
    f.logits = has_;
    return f;
  }

  void observe_layer(const Window& w, Index l) override {
    const Matrix<float>& logits = w.rows.layer[l].logits;
    if (logits.empty())
      return;
    State& s = layer_[l];
    for (const Index t : w.valid) {
      if (most_ > 0 && s.tokens >= most_)
        return;
      const auto z = logits.row(t).first(std::size_t(shape_.experts[l]));
      // recorded for some rows only, masked, or damaged
      if (!std::all_of(z.begin(), z.end(), [](float v) { return std::isfinite(v); }))
        continue;
      ++s.tokens;
      for (std::size_t i = 0; i < z.size(); ++i) {
        const double a = z[i];
        double* row = s.products.row(Index(i)).data();
        for (std::size_t j = 0; j <= i; ++j)
          row[j] += a * double(z[j]);
      }
    }
  }

  std::vector<MetricValue> values() const override {
    if (!has_)
      return {};
    std::vector<Matrix<double>> out;
    for (const State& s : layer_)
      out.push_back(similarity(s));
    return {per_layer("router_logit_similarity", out)};
  }

  void report(Report& r) const override {
    if (!has_)
      return;
    std::vector<std::int64_t> layer, one, other;
    Values values;
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      if (layer_[l].tokens == 0 || shape_.experts[l] < 2)
        continue;
      const Matrix<double> m = similarity(layer_[l]);
      const auto [a, b] = closest(m);
      layer.push_back(shape_.number[l]);
      one.push_back(b);
      other.push_back(a);
      const double pairs = double(m.rows() * (m.rows() - 1) / 2);
      values["router_logit_similarity"].add(
          m(a, b), (1 + chance::largest_cosine(pairs, double(layer_[l].tokens))) / 2);
    }
    if (layer.empty())
      return;
    TableBuilder t("logit_similarity", "Experts that the router wants together",
                   section::redundancy);
    t.reading(
         "The pair of each layer whose logits rise and fall together most: 1 "
         "always, 0 opposite, 0.5 unrelated. The chance value is that of the "
         "closest of all pairs where logits are drawn at random, around 0.")
        .detail();
    t.layers(layer).key("expert", "expert id", one).key("other", "expert id", other);
    t.column("similarity")
        .meaning("(cosine of the two columns of logits + 1) / 2")
        .of("router_logit_similarity", values);
    t.into(r);
  }

 private:
  struct State {
    Matrix<double> products;  // (E,E) lower half
    std::int64_t tokens = 0;
  };
  // the first of the largest below the diagonal
  static std::pair<Index, Index> closest(const Matrix<double>& m) {
    std::pair<Index, Index> best{1, 0};
    for (Index i = 0; i < m.rows(); ++i) {
      for (Index j = 0; j < i; ++j) {
        if (m(i, j) > m(best.first, best.second))
          best = {i, j};
      }
    }
    return best;
  }
  static Matrix<double> similarity(const State& s) {
    Matrix<double> out(s.products.rows(), s.products.cols(), no_value);
    if (s.tokens == 0)
      return out;
    for (Index i = 0; i < out.rows(); ++i) {
      for (Index j = 0; j <= i; ++j) {
        const double size = std::sqrt(s.products(i, i) * s.products(j, j));
        out(i, j) = out(j, i) = ((size > 0 ? s.products(i, j) / size : 0) + 1) / 2;
      }
    }
    return out;
  }

  Shape shape_;
  bool has_;
  std::int64_t most_;
  std::vector<State> layer_;
};

}  // namespace

std::unique_ptr<Metric> make_logit_similarity_metric(Spec& spec, const TraceSource& trace,
                                                     const AnalyzeOptions& o) {
  const std::int64_t bytes = trace.fields().logits ? pair_bytes(trace) : 0;
  if (bytes <= o.memory)
    return std::make_unique<LogitSimilarity>(spec, trace);
  spec.get("tokens", 65536, 0);  // known, as where it is measured
  return left_out("which experts the router wants together", bytes, o.memory);
}

}  // namespace moe
