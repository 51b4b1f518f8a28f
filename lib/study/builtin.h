// The studies that come with the program: lib/study/studies/NAME.toml, compiled in.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "lib/study/study.h"

namespace moe {

struct BuiltInStudy {
  std::string_view name, text;
};
const std::vector<BuiltInStudy>& built_in_studies();  // by name
// Where `given` is a file, its text; where it is the name of a built-in study, that. Throws
// Error(usage) naming the studies there are.
struct StudySource {
  std::string name, text;
};
StudySource study_source(const std::string& given);

}  // namespace moe
