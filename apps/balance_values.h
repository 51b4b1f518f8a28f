// moe list balance --values: what each system's balance loss would report for one batch.
#pragma once
#include <cstdint>
#include <string>

#include "analysis/table.h"

namespace moe {

struct BalanceValues {
  int tokens = 1024, experts = 8, k = 2, layers = 4, sequences = 8;
  double skew = 1;
  std::uint64_t seed = 1;
  std::string trace;  // its logits instead of drawn ones; then only `tokens` is read
};

Report balance_values(const BalanceValues&);

}  // namespace moe
