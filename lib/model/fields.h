// The fields of a model's spec in words: what `moe list fields` and docs/fields.md say.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "lib/model/config.h"

namespace moe {

struct ModelField {
  std::string_view name, about, source;  // source: whose name or idea it is
  std::string initial;                   // the value where neither preset nor spec gives one
};
// fields.def
const std::vector<ModelField>& model_fields();

std::string fields_page();  // docs/fields.md, Markdown

// As to_spec(), with the fields alone that differ from those of its preset:
// "tiny:layers=6,router={...}". The same as to_spec() where there is no such preset.
std::string spec_beside_preset(const ModelConfig&);

}  // namespace moe
