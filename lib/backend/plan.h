// Where each kept choice of each token is computed: rows (slots) sorted by expert, inside an expert
// by token, then by rank.
#pragma once
#include <vector>

#include "lib/backend/array.h"

namespace moe {

// Tokens that a pass has at most to count as decoding: some texts, a token each.
inline constexpr Index most_decoding_tokens = 16;

struct Plan {
  Array<int> place;   // (T,K) slot of the choice; -1 = not computed
  Array<int> offset;  // (1,E+1) first slot of each expert; offset[E] = number of slots
  Array<int> token;   // (1,S) token of each slot
  Array<int> choice;  // (1,S) t*K + k of each slot
  Index slots = 0;    // offset[E]
  // offset again, where a device's library calls need it; else empty
  std::vector<Index> host_offset;
  // of some of a layer's experts, as a rank that owns those has it: sums are then cut as they are
  // for all experts together, however few these are
  bool part = false;
  // Of a pass of few tokens that leaves nothing for a backward pass: products may be those of few
  // rows, whatever part of the slots this is.
  bool decoding = false;
  Index experts() const {
    return offset.cols() - 1;
  }
};

}  // namespace moe
