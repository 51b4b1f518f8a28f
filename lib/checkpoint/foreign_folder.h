// Folders of models that hold no weights this program can open, named for what they are: by the
// files in them, and by the names of their tensors.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lib/files/foreign.h"

namespace moe {

// What a folder is that has no safetensors of a whole model; nothing where no kind is recognised.
std::optional<ForeignFile> foreign_folder(const std::filesystem::path&);
// What the names of tensors say that no model here has: quantised by GPTQ, AWQ, bitsandbytes, MLX,
// adapters, the layout of other code. `names`: sorted.
std::optional<ForeignFile> foreign_tensors(const std::vector<std::string>& names);

}  // namespace moe
