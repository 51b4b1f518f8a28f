// The tables of moe plan: one model in detail, several side by side, the published ones by name.
#pragma once
#include "analysis/table.h"
#include "lib/plan/storage.h"

namespace moe {

struct PlanOptions {
  Count context = 4096;
  plan::Sharding sharding;
  plan::Storage weights = plan::storage_of("bf16");
};
Report plan_of(const Architecture&, const PlanOptions&);
Report comparison_of(const std::vector<Architecture>&, const PlanOptions&);
Table published_table();

}  // namespace moe
