// Which data a run began with: sizes and hashes of every domain in run.json, so that a resumed run
// is the run that it says it is.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "datasets/dataset.h"

namespace moe {

// [{"domain": "english", "train_tokens": 1000, "valid_tokens": 100, "xxh3": "0123456789abcdef"}];
// made-up data have no hash, and endless ones -1 train_tokens.
nlohmann::json data_identity(const Corpus&);
// Throws Error(input) naming the domain and what changed, where run.json says other data. A
// run.json without an identity (earlier versions) is not compared.
void require_same_data(const std::filesystem::path& folder, const Corpus&);
// From now on these are the run's data.
void accept_data(const std::filesystem::path& folder, const Corpus&);

}  // namespace moe
