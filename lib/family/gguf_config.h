// A GGUF file in the words of config.json: which published class it was converted from, and that
// class's keys. What the file does not say comes from the architecture, as the class was published.
#pragma once
#include <string>
#include <vector>

#include "lib/family/gguf_keys.h"

namespace moe {

struct GgufArchitecture {
  std::string_view name;  // general.architecture
  // rows of queries and keys in pairs, as the converter laces them
  bool laced = false;
  // writes the keys of the class into `config`, model_type among them; sentences for whoever runs
  // it go to `notes`
  void (*write)(const GgufKeys&, Json& config, std::vector<std::string>& notes) = nullptr;
};
// gguf_architectures.cpp; throws Error(input) with the nearest name
const GgufArchitecture& gguf_architecture(const GgufKeys&);
std::vector<std::string> gguf_architectures();

// `notes` gets a sentence for each place where llama.cpp computes something else than the class.
// Throws Error(input) naming file and key: an unknown architecture, a missing size, a rule that
// this program does not have.
Json gguf_config(const GgufFile&, std::vector<std::string>& notes);

}  // namespace moe
