// Published checkpoints with the outputs of their own classes (expected.h5 or expected.safetensors
// beside config.json or a GGUF model), and malformed ones with the right reaction
// (bad/expected.json): what `moe verify --golden` runs for a folder of that layout.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lib/backend/backend.h"

namespace moe {

struct GoldenModelResult {
  std::string name, family;
  bool passed = false;
  // largest differences; -1 = not compared
  double logits = -1, router_logits = -1, hidden = -1, weights = -1, loss = -1;
  double moe_output = -1;               // of whole MoE layers, shared experts included
  double encoders = -1;                 // of what encoders of pictures and sounds give
  double allowed = 0;                   // of the logits
  long choices = 0, wrong_choices = 0;  // experts of tokens, those that differ
  std::string why;                      // of a failure; of a malformed one the sentence that came
};

// it, or some folder inside, has a model and expected values, or it holds malformed ones or is one
bool is_golden_models(const std::filesystem::path&);
std::vector<GoldenModelResult> verify_golden_models(const std::filesystem::path&, Backend<float>&);
GoldenModelResult verify_golden_model(const std::filesystem::path& folder, Backend<float>&);

}  // namespace moe
