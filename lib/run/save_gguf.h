// A model written as one GGUF file with its tokenizer, whole or not at all, and read back before it
// is there.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lib/run/run_folder.h"

namespace moe {

struct SavedGguf {
  std::string architecture;
  std::vector<std::string> notes;  // sentences on what could not be kept, or is computed otherwise
};
// `type`: "F32", "F16", "BF16" or "Q8_0" for matrices. `from`: what the model was made of, for its
// family, its tokenizer and its chat template. Throws Error(usage) naming the family where
// llama.cpp has no architecture for it, and where a file of that architecture cannot say what the
// model computes.
SavedGguf save_gguf(const std::filesystem::path&, Decoder<float>&, const LoadedModel& from,
                    const std::string& type);

}  // namespace moe
