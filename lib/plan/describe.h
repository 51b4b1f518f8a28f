// The architecture of a model that was not built here: from its config.json, of any family, also of
// those that this program cannot run. Types that lib/family computes are read by the family's own
// reader; readers.h has those of all others. Nothing is allocated.
#pragma once
#include <string>
#include <vector>

#include "lib/files/json.h"
#include "lib/model/architecture.h"

namespace moe {
struct ModelConfig;
}

namespace moe::plan {

// A published config.json, or one of ours (which says everything in moe_training). Throws
// Error(input) naming file and key.
Architecture describe(const Json&, const std::string& file, const std::string& name);
Architecture describe(const ModelConfig&, const std::string& name);
// a config.json, a folder with one, a run, or a GGUF file
Architecture describe_path(const std::string& path);
std::vector<std::string> known_types();  // model_type values that describe() reads

}  // namespace moe::plan
