// How much where a token stands decides its expert: its document (few experts a document?) and its
// position in it.
#include <cmath>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"
#include "lib/core/text.h"

namespace moe {
namespace {

class Context final : public Metric {
 public:
  Context(Spec& spec, const TraceSource& trace)
      : shape_(trace), bucket_(spec.get("position_bucket", 16, 1)), state_(shape_.experts.size()) {
    for (std::size_t l = 0; l < state_.size(); ++l)
      state_[l].document.assign(std::size_t(shape_.experts[l]), 0);
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    State& s = state_[l];
    const std::size_t experts = std::size_t(shape_.experts[l]);
    for (const Index t : w.valid) {
      if (w.rows.sequence[t] != s.sequence) {
        end_document(s);
        s.sequence = w.rows.sequence[t];
      }
      const std::size_t bucket =
          std::min<std::size_t>(w.rows.position[t] / std::uint32_t(bucket_), most_buckets - 1);
      if (bucket >= s.position.size())
        s.position.resize(bucket + 1);
      if (s.position[bucket].empty())
        s.position[bucket].assign(experts, 0);
      for (const int e : w.layer[l].of(t)) {
        ++s.document[e];
        ++s.position[bucket][e];
        ++s.assignments;
      }
      ++s.tokens;
    }
  }

  std::vector<MetricValue> values() const override {
    std::vector<double> documents, positions;
    for (const State& s : state_) {
      documents.push_back(document_entropy(s));
      positions.push_back(mutual_information_bits(table(s)));
    }
    return {per_layer("document_entropy_bits", documents),
            per_layer("position_expert_mi_bits", positions)};
  }

  void report(Report& r) const override {
    if (state_.empty() || state_[0].assignments == 0)
      return;
    Values all(values());
    for (std::size_t l = 0; l < state_.size(); ++l) {
      State s = state_[l];
      end_document(s);
      const double k = double(s.assignments) / double(s.tokens);
      chance::Labels& label =
          store().labels(shape_.experts[l], whole_choices(k, shape_.experts[l]));
      all["document_entropy_bits"].chance.add(entropy_by_lot(s, k, label));
      std::vector<std::int64_t> buckets = row_sums(table(s));
      for (auto& n : buckets)
        n = rounded(double(n) / k);
      all["position_expert_mi_bits"].chance.add(label.mi_bits(buckets));
    }
    TableBuilder t("context", "Document and position", section::specialisation);
    t.reading(concat(
        "Entropy of the experts inside one document: log2 E if every document uses all experts "
        "evenly (random routing: a little below), less if a document keeps to a few. "
        "Position information: what the place in the sequence (in buckets of ",
        bucket_, ") tells about the expert; random routing gives the small chance value."));
    t.layers(shape_.number);
    t.column("document entropy")
        .unit("bits")
        .meaning("mean over sequences of the entropy of their expert shares")
        .of("document_entropy_bits", all);
    t.column("position information")
        .unit("bits")
        .meaning("mutual information of position bucket and expert")
        .of("position_expert_mi_bits", all)
        .digits(4);
    t.into(r);
  }

 private:
  static constexpr std::size_t most_buckets = 4096;  // later positions share the last one
  struct State {
    std::vector<std::int64_t> document;               // (E) of the sequence being read
    std::vector<std::vector<std::int64_t>> position;  // (buckets)(E)
    std::uint32_t sequence = 0;
    std::int64_t tokens = 0, assignments = 0, documents = 0;
    double entropy = 0;
    // assignments of a document -> how many documents had as many
    std::map<std::int64_t, std::int64_t> lengths;
  };
  static void end_document(State& s) {
    if (std::all_of(s.document.begin(), s.document.end(), [](auto c) { return c == 0; }))
      return;
    s.entropy += entropy_bits(s.document);
    ++s.documents;
    ++s.lengths[std::accumulate(s.document.begin(), s.document.end(), std::int64_t{0})];
    std::fill(s.document.begin(), s.document.end(), 0);
  }
  static chance::Value entropy_by_lot(const State& s, double k, chance::Labels& label) {
    double mean = 0;
    double variance = 0;
    double documents = 0;
    for (const auto& [assignments, n] : s.lengths) {
      const chance::Value v =
          label.entropy(std::max<std::int64_t>(1, rounded(double(assignments) / k)));
      mean += v.mean * double(n);
      variance += v.spread * v.spread * double(n);
      documents += double(n);
    }
    return {mean / documents, std::sqrt(variance) / documents};
  }
  static double document_entropy(State s) {
    end_document(s);
    return s.entropy / double(s.documents);
  }
  static Counts table(const State& s) {
    Counts out(Index(s.position.size()), Index(s.document.size()));
    for (std::size_t b = 0; b < s.position.size(); ++b)
      std::copy(s.position[b].begin(), s.position[b].end(), out.row(Index(b)).begin());
    return out;
  }

  Shape shape_;
  int bucket_;
  std::vector<State> state_;
};

}  // namespace

std::unique_ptr<Metric> make_context_metric(Spec& spec, const TraceSource& trace,
                                            const AnalyzeOptions&) {
  return std::make_unique<Context>(spec, trace);
}

}  // namespace moe
