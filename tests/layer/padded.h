// A batch of one sequence with a token that is padding.
#pragma once
#include "lib/core/batch.h"

namespace moe::test {

inline Batch padded_batch(Index tokens, Index padding) {
  Batch batch;
  batch.token.assign(std::size_t(tokens), 0);
  batch.start = {0, tokens};
  batch.valid.assign(std::size_t(tokens), 1);
  batch.valid[std::size_t(padding)] = 0;
  return batch;
}

}  // namespace moe::test
