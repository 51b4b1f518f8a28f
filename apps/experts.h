// How the experts of a checkpoint come into memory, for the verbs that only run it; and what is to
// be said of a checkpoint that was loaded.
#pragma once
#include <CLI/CLI.hpp>
#include <string>

#include "lib/run/run_folder.h"

namespace moe {

struct ExpertOptions {
  std::string memory;  // a size; empty = as fits
};
void add_experts(CLI::App&, ExpertOptions&);  // --expert-memory
Index expert_limit(const ExpertOptions&);     // for load_model(); throws Error(usage)

void tell(const LoadedModel&);  // warnings, and how much of the experts is kept

}  // namespace moe
