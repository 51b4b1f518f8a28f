// Rows that no router can have made. One expert in several of a token's choices in a layer: engines
// give zeros for tokens whose routing they did not keep, and expert 0 in every slot where logits
// are NaN; counted as routing, they look like collapse. Logits that are no numbers: what was chosen
// by them means nothing. Weights and orders that are not what the trace says of them.
#pragma once
#include <string>

#include "analysis/metric/metric.h"

namespace moe {

// Rows of one kind, of those that are not padding.
struct OddRows {
  std::uint64_t rows = 0, first = 0;
  void seen(std::uint64_t row) {
    if (rows++ == 0)
      first = row;
  }
};

struct ImpossibleRows {
  OddRows repeated, logits;  // left out of every figure
  OddRows weights, order;    // weights are left out, the order is named
  std::uint64_t left_out = 0;

  // For the head of a report of so many tokens, a sentence for each kind that was met.
  std::vector<std::string> sentences(std::uint64_t tokens) const;
  // those of rows that are left out whole, as one
  std::string why_left_out(std::uint64_t tokens) const;
};

// (T) 1 where a token's choices name an expert twice, in one layer, in any; empty where none does.
std::vector<std::uint8_t> repeated_choices(const LayerChoices&, Index tokens, int experts);
std::vector<std::uint8_t> repeated_choices(const TraceRows&);

// Of a window whose choices are known: fills in which rows are valid and which weights are odd.
void keep_possible(Window&, const TraceHeader&, ImpossibleRows&);

}  // namespace moe
