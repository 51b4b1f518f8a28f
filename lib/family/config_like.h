// config.json of a model that was made from another one: every key of the other's file stays, those
// that nobody here reads too, but for the keys in which the two models differ.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "lib/core/dtype.h"
#include "lib/family/families.h"

namespace moe {

// fit_of(), but the family `preferred` where its class computes the model as well: what was
// published as qwen3_moe stays qwen3_moe. "" and "moe" prefer nothing.
Fit fit_like(const ModelConfig&, const std::string& preferred);
// One line for each field in which `theirs` does not compute what `model` does: "activation=swiglu
// instead of relu".
std::vector<std::string> model_differences(const ModelConfig& model, const ModelConfig& theirs);
// Whether two models compute the same from the same weights and train with the same losses and
// capacity.
bool same_model(const ModelConfig&, const ModelConfig&);

struct ConfigRequest {
  const ModelConfig& model;
  std::string family;          // of the new file
  DType weights = DType::f32;  // the type of most of its numbers
  bool spec = false;           // write moe_training also where the class's keys say everything
  bool few_bits = false;       // some of its numbers are in few bits, as another key says
  std::optional<TokenizerFacts> ids = {};  // of another tokenizer than the old file's
};
struct ConfigLike {
  Json json;
  std::string note;  // a sentence on what of the old file could not stay; empty = all did
};
// `old`: a config.json that config_from_json() reads. The result is read back as the model. Throws
// Error as config_from_json() does where `old` is not read.
ConfigLike config_like(const Json& old, const ConfigRequest&);

}  // namespace moe
