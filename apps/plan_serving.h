// The tables of moe plan --device: what lies in memory, how many devices and sequences, bounds of
// tokens a second, experts kept elsewhere.
#pragma once
#include <filesystem>
#include <optional>

#include "analysis/table.h"
#include "lib/plan/serving.h"
#include "lib/plan/trace_law.h"

namespace moe {

struct ServingRequest {
  plan::Serving serving;
  Count devices = 0;                     // 0 = the fewest that hold one sequence
  std::optional<plan::Offload> offload;  // held < 0: as many as there is room for
  std::filesystem::path trace;           // of the routing; empty = a law
  std::uint64_t trace_tokens = 0;        // replayed through caches
};
Report serving_report(const ServingRequest&);

}  // namespace moe
