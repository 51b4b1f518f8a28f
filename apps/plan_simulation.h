// The tables of moe plan --simulate and --grow.
#pragma once
#include <filesystem>

#include "analysis/table.h"
#include "lib/plan/simulate.h"

namespace moe {

Report simulation_report(const std::filesystem::path& trace, const plan::Simulation&);
Report growth_report(const Architecture&, const plan::Storage&, Count most_experts);

}  // namespace moe
