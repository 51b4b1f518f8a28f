// The names that tensors have in GGUF files, read and written.
#pragma once
#include <string>

#include "lib/family/family.h"

namespace moe {

// `feed_norm`: what the second norm of a layer is called, by the architecture.
Names gguf_names(const std::string& feed_norm, bool always_corrected);
// Whether the converter laces the rows of queries and keys of this architecture into pairs.
bool gguf_laces(const std::string& architecture);

}  // namespace moe
