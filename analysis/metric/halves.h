// Two halves of a trace for what is planned on one and judged on the other: every second sequence
// of each domain, whatever order the trace has. Halves by rows would compare domains, where a trace
// goes through one domain after another.
#pragma once
#include <vector>

#include "analysis/metric/metric.h"

namespace moe {

class Halves {
 public:
  explicit Halves(const TraceSource&);
  // 0 or 1. Of a trace with a single sequence, every second stretch of 64 positions.
  int of(std::uint32_t sequence, std::uint32_t position) const {
    return half_.size() > 1 ? half_[sequence] : int(position / stretch % 2);
  }

 private:
  static constexpr std::uint32_t stretch = 64;
  std::vector<std::uint8_t> half_;  // of each sequence
};

}  // namespace moe
