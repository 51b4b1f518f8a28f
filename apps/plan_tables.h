// The tables of moe plan: one model in detail, several side by side, the published ones by name.
#pragma once
#include "analysis/table.h"
#include "lib/plan/storage.h"
#include "lib/tower/tensors.h"

namespace moe {

struct PlanOptions {
  Count context = 4096;
  plan::Sharding sharding;
  plan::Storage weights = plan::storage_of("bf16");
};
// Encoders of pictures and sounds beside a model of so many parameters.
Table towers_table(const std::vector<TowerPart>&, double language);
Report plan_of(const Architecture&, const PlanOptions&);
Report comparison_of(const std::vector<Architecture>&, const PlanOptions&);
Table published_table();

}  // namespace moe
