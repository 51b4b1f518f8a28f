// One stack of a trace of an encoder-decoder: its layers and the sequences that it read, as a trace
// of their own. Figures over all tokens of a layer are then over those that the layer routed.
#pragma once
#include "analysis/metric/source.h"

namespace moe {

class StackTrace final : public TraceSource {
 public:
  // `trace` outlives it. Reads the flags of all rows.
  StackTrace(const TraceSource& trace, bool encoder);

  const TraceHeader& header() const override {
    return header_;
  }
  const TraceFields& fields() const override {
    return trace_.fields();
  }
  const std::vector<TraceSequence>& sequences() const override {
    return sequences_;
  }
  const std::vector<TraceStep>& steps() const override {
    return steps_;
  }
  std::uint64_t tokens() const override {
    return tokens_;
  }
  TraceRows read(std::uint64_t first, std::uint64_t count,
                 const TraceFields& wanted) const override;
  std::vector<std::string> warnings() const override;

 private:
  // Rows [from, from + count) of the whole trace, which are rows `to`.. here.
  struct Stretch {
    std::uint64_t from, count, to;
  };
  void find_rows();

  const TraceSource& trace_;
  bool encoder_;
  TraceHeader header_;
  std::vector<std::size_t> layers_;  // of the whole trace
  std::vector<Stretch> stretches_;
  std::vector<std::uint32_t> number_;  // of each sequence of the whole trace, here
  std::vector<TraceSequence> sequences_;
  std::vector<TraceStep> steps_;
  std::uint64_t tokens_ = 0;
};

}  // namespace moe
