// A question asked of a trace. A metric sees every row once, in order, a window at a time, and
// answers with values under the ids of docs/metrics.md and with tables for people. State is counts,
// so a trace of any length needs little memory.
#pragma once
#include "analysis/metric/source.h"
#include "analysis/metric/thresholds.h"
#include "analysis/table.h"
#include "lib/core/registry.h"
#include "lib/core/spec.h"

namespace moe {

// The choices of one layer with the gaps closed: of(t) are the experts of token t in key order, no
// -1 among them.
struct LayerChoices {
  int width = 0;              // Kmax
  const int* data = nullptr;  // (T,Kmax): the rows themselves where no choice is missing, else `id`
  bool full = false;          // every token has `width` choices; `id` and `count` are empty then
  std::vector<int> id;        // (T,Kmax)
  std::vector<int> count;     // (T) how many there are
  bool ranked = true;         // false: listed by id, so that no first choice is known

  std::span<const int> of(Index t) const {
    return {data + t * width, std::size_t(full ? width : count[std::size_t(t)])};
  }
  // -1 where there is none, or where it is not known which it was
  int first(Index t) const {
    return ranked && width > 0 && (full || count[std::size_t(t)]) ? data[t * width] : -1;
  }
};

struct Window {
  const TraceRows& rows;
  std::vector<LayerChoices> layer;  // (L); ids checked: 0 <= id < E of the layer
  std::vector<Index> valid;         // rows that are not padding
  std::vector<int> domain;          // (T) domain of the row's sequence, -1 = none
  // (L) rows whose weights are not what the trace says of them, (T) 1 there; empty = none
  std::vector<std::vector<std::uint8_t>> odd_weights = {};
};

// One definition's values. Layers with fewer experts than the widest have NaN behind their last
// expert.
struct MetricValue {
  std::string id;
  std::vector<Index> dims;  // empty = scalar
  std::vector<double> values;
};

struct CountWindow;  // count_pass.h
struct Replicated;   // bootstrap.h
struct ChanceStore;  // layout.h
struct KnownChance;

class Metric {
 public:
  virtual ~Metric() = default;
  virtual TraceFields needs() const = 0;  // optional fields it reads
  // called for all layers at once, on several threads
  virtual void observe_layer(const Window&, Index /*layer*/) {}
  // called once a window, on one thread
  virtual void observe(const Window&) {}
  // Whether it has something to say of a trace that holds tokens per expert of each step and no
  // tokens (counts_only); then it is shown those, for all layers at once, in the place of rows.
  virtual bool counts_suffice() const {
    return false;
  }
  virtual void observe_counts(const CountWindow&, Index /*layer*/) {}
  // called once, after the last window
  virtual void finish() {}
  // of every id it can give for this trace
  virtual std::vector<MetricValue> values() const = 0;
  // appends tables, findings and warnings
  virtual void report(Report&) const = 0;

  // Where it keeps what it simulates; longer-lived than the metric.
  void keep_chance_in(ChanceStore& s) {
    store_ = &s;
  }

 protected:
  ChanceStore& store() const {
    return *store_;
  }

 private:
  ChanceStore* store_ = nullptr;
};

struct AnalyzeOptions {
  std::uint64_t window = 8192;                  // rows read at a time
  std::int64_t memory = std::int64_t{2} << 30;  // bytes that one metric's counts may take
  int sample_tokens = 600;  // of text per domain, coloured by expert; 0 = no samples
  // planted cluster of each token id, -1 = none; empty = nothing was planted
  std::vector<int> planted_labels;
  std::vector<Threshold> thresholds;  // of findings in words; empty = those of lights.def
  // what random routing gives, simulated for traces before this one; empty = each report its own
  std::shared_ptr<KnownChance> known_chance;
  std::function<void(std::uint64_t rows)> progress;  // after every window
  // replicas behind the 95 % intervals of a report; 0 = no intervals
  int bootstrap = 0;
  // traces over the same text take the same, and their differences are paired
  std::uint64_t bootstrap_stream = 0;
  std::vector<Replicated>* replicas = nullptr;  // filled, where the caller wants them
  // filled too; then matrices that no report shows are counted as well
  std::vector<MetricValue>* values = nullptr;
};

using MakeMetric = std::unique_ptr<Metric>(Spec&, const TraceSource&, const AnalyzeOptions&);
const Registry<MakeMetric>& metrics();

// Runs the metrics over the whole trace. No specs: every metric of the registry with its defaults,
// in that order; what the trace does not hold is left out. Throws Error(usage) for unknown names or
// options, Error(input) for rows that make no sense.
Report analyze(const TraceSource&, const std::vector<std::string>& metric_specs = {},
               const AnalyzeOptions& = {});

// The same pass, bare values instead of a report: what tests compare and programs read.
std::vector<MetricValue> measure(const TraceSource&,
                                 const std::vector<std::string>& metric_specs = {},
                                 const AnalyzeOptions& = {});

constexpr TraceFields no_fields{false, false, false, false, false, false,
                                false, false, false, false, false};

}  // namespace moe
