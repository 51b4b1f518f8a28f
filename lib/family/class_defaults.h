// What the configuration class of a published model takes for a key that config.json leaves out, so
// that a file means here what it means there.
#pragma once
#include <string_view>
#include <vector>

#include "lib/files/json.h"

namespace moe {

struct ClassDefaults {
  std::string_view type, name;   // model_type; the class: "MixtralConfig"
  std::string_view values;       // of keys that may be left out, a JSON object
  std::string_view other_names;  // {"num_experts": "num_local_experts"}: read as the second
};
const std::vector<ClassDefaults>& class_defaults();  // class_defaults.def

// The configuration, with the class's values for the keys that it leaves out, objects inside
// included; an explicit null stays. A file of another type comes back as it is.
Json with_class_defaults(std::string_view type, const Json& config);

}  // namespace moe
