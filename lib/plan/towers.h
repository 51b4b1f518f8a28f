// Encoders of pictures and sounds beside a language model: their parameters, and those of the
// products between the two, from config.json alone.
#pragma once
#include <string>
#include <vector>

#include "lib/files/json.h"
#include "lib/tower/tensors.h"

namespace moe::plan {

// Of a file or folder as describe_path() takes it; empty where there are none, or where their
// family's encoders are not known.
std::vector<TowerPart> towers_of_path(const std::string& path);
std::vector<TowerPart> towers_of(const Json& config);  // of a published model

}  // namespace moe::plan
