// Experts of one trace matched one to one with those of another over the same tokens, layer by
// layer, and how alike the two cut the tokens, which needs no matching. Both are compared with what
// two routings of the same loads give that know nothing of each other.
#pragma once
#include "analysis/metric/agreement.h"
#include "analysis/metric/joint.h"

namespace moe {

// The column of each row so that the sum of the cells taken is the largest (Hungarian method, with
// potentials; O(n^3)). Ties go to the diagonal. Square. {{1,9},{8,9}}: {1,0}
std::vector<int> best_matching(const Counts& joint);

struct LayerMatch {
  std::vector<int> to;                  // (E) the reference's expert for each of the trace's
  std::vector<std::int64_t> together;   // (E) choices that an expert and its match have in common
  std::vector<std::int64_t> chosen;     // (E) choices of the trace's expert
  std::vector<std::int64_t> reference;  // (E) choices of the reference's expert
  double ami = 0, ari = 0;              // of first choices
  std::int64_t tokens = 0;              // with a first choice in both
};

struct MatchOptions {
  std::uint64_t window = 8192;
  std::int64_t memory = std::int64_t{2} << 30;  // bytes of joint counts held at once
  std::uint64_t most_tokens = ~std::uint64_t{0};
};
// Several passes where the layers do not fit into memory together. The traces are comparable.
std::vector<LayerMatch> match_experts(const TraceSource& a, const TraceSource& b,
                                      const MatchOptions& = {});

// Another trace with something changed on the way, and no more than so many rows.
class ChangedTrace : public TraceSource {
 public:
  ChangedTrace(const TraceSource& of, std::uint64_t most_tokens)
      : of_(of), tokens_(std::min(most_tokens, of.tokens())) {}
  const TraceHeader& header() const override {
    return of_.header();
  }
  const TraceFields& fields() const override {
    return of_.fields();
  }
  const std::vector<TraceSequence>& sequences() const override {
    return of_.sequences();
  }
  const std::vector<TraceStep>& steps() const override {
    return of_.steps();
  }
  std::uint64_t tokens() const override {
    return tokens_;
  }
  TraceRows read(std::uint64_t first, std::uint64_t count, const TraceFields& f) const override {
    TraceRows rows = of_.read(first, std::min(count, tokens_ - std::min(first, tokens_)), f);
    change(rows);
    return rows;
  }

 private:
  virtual void change(TraceRows&) const = 0;
  const TraceSource& of_;
  std::uint64_t tokens_;
};

// Experts by the names of their matches.
class MatchedTrace final : public ChangedTrace {
 public:
  MatchedTrace(const TraceSource& of, std::vector<LayerMatch> matches,
               std::uint64_t most_tokens = ~std::uint64_t{0})
      : ChangedTrace(of, most_tokens), matches_(std::move(matches)) {}

 private:
  void change(TraceRows&) const override;
  std::vector<LayerMatch> matches_;
};

// Routing of the same tokens in another order, drawn within each window that is read.
class ShuffledTrace final : public ChangedTrace {
 public:
  ShuffledTrace(const TraceSource& of, std::uint64_t run, std::uint64_t most_tokens)
      : ChangedTrace(of, most_tokens), run_(run) {}

 private:
  void change(TraceRows&) const override;
  std::uint64_t run_;
};

struct PartitionChance {  // of a layer
  chance::Value ami, ari;
};
struct SimulatedAgreement {
  std::vector<ChanceAgreement> matched;
  std::vector<PartitionChance> partition;
};
SimulatedAgreement simulate_agreement(const TraceSource& a, const TraceSource& b,
                                      const MatchOptions&);

}  // namespace moe
