// How many tokens the steps of a trace have: what a mean over steps is by chance depends on all of
// them. A prefill of 4,096 tokens and a hundred decode steps of 2 are, on average, as uneven as
// steps of 2, and not as one of the mean size.
#pragma once
#include <functional>
#include <map>

#include "analysis/metric/chance.h"

namespace moe {

class StepSizes {
 public:
  void add(std::int64_t tokens);  // of a step; -1 = not known
  std::int64_t steps() const {
    return steps_;
  }
  // What the mean of a figure over independent steps is by chance, given what it is of a step of so
  // many tokens. Sizes within 5 % of each other count as their mean.
  chance::Value mean(const std::function<chance::Value(std::int64_t tokens)>& of) const;

 private:
  struct Group {
    std::int64_t steps = 0, tokens = 0;
  };
  std::map<std::int64_t, Group> group_;  // by size
  std::int64_t steps_ = 0;
};

}  // namespace moe
