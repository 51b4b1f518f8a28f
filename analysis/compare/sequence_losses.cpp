#include "analysis/compare/sequence_losses.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/metric/bootstrap.h"
#include "analysis/metric/loss.h"
#include "analysis/metric/pass.h"

namespace moe {
namespace {

class Sums final : public Metric {
 public:
  explicit Sums(const TraceSource& trace) {
    sums.nats.assign(trace.sequences().size(), 0);
    sums.tokens.assign(trace.sequences().size(), 0);
  }
  TraceFields needs() const override {
    TraceFields f = no_fields;
    f.prediction = true;
    return f;
  }
  void observe(const Window& w) override {
    for (const Index t : w.valid) {
      const double loss = LossMetric::loss_of(w.rows, t);
      const std::size_t q = w.rows.sequence[std::size_t(t)];
      if (std::isnan(loss) || q >= sums.nats.size())
        continue;
      sums.nats[q] += loss;
      sums.tokens[q] += 1;
    }
  }
  std::vector<MetricValue> values() const override {
    return {};
  }
  void report(Report&) const override {}

  SequenceLosses sums;
};

double total(const std::vector<double>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0);
}

}  // namespace

double SequenceLosses::mean() const {
  const double n = total(tokens);
  return n > 0 ? total(nats) / n : no_value;
}

std::vector<double> SequenceLosses::replicas(std::uint64_t stream, int wanted) const {
  const auto told = std::ranges::count_if(tokens, [](double n) { return n > 0; });
  if (wanted < 1 || std::size_t(told) < Bootstrap::least_sequences)
    return {};
  std::vector<double> over(std::size_t(wanted) + 1, 0);
  std::vector<double> under = over;
  std::vector<std::uint32_t> weight(over.size());
  for (std::size_t q = 0; q < tokens.size(); ++q) {
    poisson_weights(stream, q, weight);
    for (std::size_t r = 0; r < weight.size(); ++r) {
      over[r] += weight[r] * nats[q];
      under[r] += weight[r] * tokens[q];
    }
  }
  for (std::size_t r = 0; r < over.size(); ++r)
    over[r] = under[r] > 0 ? over[r] / under[r] : no_value;
  return over;
}

SequenceLosses sequence_losses(const TraceSource& trace, const AnalyzeOptions& o) {
  if (!trace.fields().prediction || trace.tokens() == 0)
    return {};
  Sums sums(trace);
  read_again(trace, sums, o);
  return sums.sums;
}

}  // namespace moe
