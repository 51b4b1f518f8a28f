// What a trace says of routing that a plan needs: how often each expert is chosen, and what a cache
// of experts would have caught, token by token.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "lib/plan/law.h"

namespace moe::plan {

// Chances by counting, a layer of the law for each layer of the trace. Throws Error(input) where
// the trace holds no tokens, or where its experts and choices are not those that are asked for (0 =
// any; layers may be fewer or more: means are taken over those of the trace).
ChoiceLaw law_of_trace(const std::filesystem::path&, Count experts, Count k);

// One cache of `held` experts for each layer, under the tokens of a trace one after the other.
struct CacheReplay {
  std::uint64_t tokens = 0;
  double lru = 0, lfu = 0, most_used = 0, belady = 0;  // share of requests caught, mean over layers
  // experts that a token waits for with LRU, over all layers of the trace: mean, half of all
  // tokens, 99 of 100
  double missed = 0, missed_p50 = 0, missed_p99 = 0;
};
CacheReplay replay_cache(const std::filesystem::path&, Count held, std::uint64_t most_tokens);

}  // namespace moe::plan
