// A router with a table of token ids that is made from how often each of them stands in the
// training text. Router::state() holds the table once the vocabulary is known.
#pragma once
#include <cstdint>
#include <span>

namespace moe {

class LearnsFromText {
 public:
  virtual ~LearnsFromText() = default;
  virtual void set_vocabulary(int words) = 0;                            // an empty table for V ids
  virtual void learn(std::span<const std::int64_t> counts /*(V)*/) = 0;  // fills it
};

}  // namespace moe
