// In which bytes the weights of a model lie: a rule of lib/plan/cost.h, a block format of ggml for
// every matrix, what quantization_config of a config.json says, or the tensors of a GGUF file as
// they are. One function from a piece to its bytes, so that every plan sums the same way.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "lib/files/json.h"
#include "lib/plan/cost.h"

namespace moe::plan {

struct Storage {
  std::string name, about;
  int bits = 16;  // of the operands of products with experts, as the device multiplies them
  std::function<double(const WeightPiece&)> bytes;  // of one matrix of a piece

  double all(const Architecture&) const;
  double part(const Architecture&, ModelPart) const;
  double expert(const Architecture&) const;  // of one expert of the first MoE layer; 0 without
};

// "bf16", "fp8", ... (lib/plan/cost.h) or a weight format of ggml in any case, "q4_k", "iq2_xs".
// Throws Error(usage) with the nearest name.
Storage storage_of(const std::string& name);
std::vector<std::string> storage_names();

// What the published file itself holds. A config.json: its quantization_config (fp8, mxfp4, gptq,
// awq, bitsandbytes, compressed-tensors), or its dtype, or bf16. Throws Error(input) for a method
// whose bytes are not known.
Storage own_storage(const Json& config, const std::string& file);
// A config.json, a folder with one, a run, or a GGUF file. Tensors of a GGUF file, and of a folder
// whose weights are in few bits, are counted as they are.
Storage own_storage_of_path(const std::string& path);

}  // namespace moe::plan
