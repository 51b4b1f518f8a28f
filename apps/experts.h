// What the verbs that only run a checkpoint have in common: how its experts come into memory, the
// batches it sees, and what is to be said once it is loaded.
#pragma once
#include <string>

#include "apps/command_line.h"

#include "lib/run/eval_batches.h"
#include "lib/run/run_folder.h"

namespace moe {

struct ExpertOptions {
  std::string memory;       // a size; empty = as fits
  std::string activations;  // empty = exact
};
void add_activations(CommandLine&, std::string& activations);  // --activations
void add_experts(CommandLine&, ExpertOptions&);                // --expert-memory, --activations
Activations activations(const std::string& option);
Holding holding(const ExpertOptions&);  // throws Error(usage)

void add_router(CommandLine&, std::string& router);  // --router
// --experts-per-token N; `names`: under other names too, with commas between
void add_top_k(CommandLine&, int& k, const std::string& names = "--experts-per-token");

struct BatchOptions {
  Index tokens = 0;
  int sequences = 16;
  int length = 0;  // the model's context
  std::string order = "mixed";
};
void add_batches(CommandLine&, BatchOptions&);  // --tokens, --batch, --length, --order
// Throws Error(usage) where sequences are longer than the context.
EvalBatches batches_of(const BatchOptions&, const ModelConfig&, std::uint64_t seed);

// Warnings of a checkpoint that was loaded, and how much of its experts is kept in memory.
// `given`: the path that was named, a run or a checkpoint of it.
void report_loading(const LoadedModel&, const std::string& given);

}  // namespace moe
