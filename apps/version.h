// What this binary is: version, git revision, compiler, libraries, what the machine offers.
#pragma once
#include <string>

namespace moe {
std::string version_text();
std::string version_json();
std::string version_short();  // "0.1.0 (1b7e364)", for provenance
}  // namespace moe
