// Numbers out of the block formats of GGUF files. Every value is what ggml's own float code gives,
// bit for bit: the scale is multiplied first, in float32, and nothing is contracted.
#pragma once
#include <span>

#include "lib/files/gguf.h"

namespace moe {

// out.size() numbers from the blocks that begin at `from`; both must be whole blocks, else
// Error(bug). Throws Error(bug) for types that are no weights.
void dequantise(const GgmlType&, std::span<const std::byte> from, std::span<float> out);
bool can_dequantise(const GgmlType&);

}  // namespace moe
