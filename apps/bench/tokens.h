// A batch of random tokens for benches of whole models.
#pragma once
#include "lib/core/batch.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"

namespace moe {

inline Batch random_batch(const ModelConfig& c, Index sequences, Index length) {
  Batch b;
  Rng rng(11);
  for (Index t = 0; t < sequences * length; ++t)
    b.token.push_back(int(rng.below(c.vocabulary)));
  b.start.assign(1, 0);
  for (Index s = 1; s <= sequences; ++s)
    b.start.push_back(s * length);
  for (Index t = 0; t < sequences * length; ++t)
    b.target.push_back((t + 1) % length ? b.token[std::size_t(t + 1)] : -1);
  return b;
}

}  // namespace moe
