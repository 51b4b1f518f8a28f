// Strict JSON files: duplicate keys, bytes after the end, bad UTF-8, deep nesting and oversized
// files are refused with line and column; what is written is finite and keeps floats as floats
// (published configs are read by typed classes: 0.0 is not 0).
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "lib/core/view.h"

namespace moe {

using Json = nlohmann::json;

struct JsonLimits {
  Index bytes = 64 << 20;
  int depth = 64;
  // the bare words Infinity, -Infinity and NaN, which Python's json writes into config.json; a NaN
  // becomes null
  bool python_words = false;
};

Json parse_json(std::string_view text, std::string_view name,
                const JsonLimits& = {});  // throws Error(input): "'a.json' line 3, column 7: ..."
Json read_json(const std::filesystem::path&, const JsonLimits& = {});
// two spaces, keys sorted, newline at the end; throws Error(numeric) naming a value that is not
// finite
std::string json_text(const Json&);
void write_json(const std::filesystem::path&, const Json&);  // whole or absent
// the double that prints as short as the float: 1e-06, not 9.999999974752427e-07
double json_number(float);

}  // namespace moe
