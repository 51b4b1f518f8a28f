// Which checkpoint the name of a run stood for, and how old it is: a run that was killed soon after
// its start has step 0 alone, and results of drawn weights look like results.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace moe {

struct LoadedModel;

// "checkpoint-00000200 of runs/a, step 200 of 500"; empty where `given` is not a run of ours.
std::string checkpoint_taken(const std::filesystem::path& given, const LoadedModel&);
// Sentences where nothing was learnt yet (step 0 of a run that is to train), and where
// metrics.jsonl knows later steps than the checkpoint; of the latter only where `given` left the
// choice of the checkpoint to us.
std::vector<std::string> checkpoint_warnings(const std::filesystem::path& given,
                                             const LoadedModel&);

}  // namespace moe
