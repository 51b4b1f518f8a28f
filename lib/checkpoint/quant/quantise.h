// Numbers into the formats of GGUF files that need no search: what dequantise() gives back is each
// number rounded once.
#pragma once
#include <span>
#include <vector>

#include "lib/files/gguf.h"

namespace moe {

// F32, F16, BF16, Q8_0: 32 numbers share a scale, the largest of them over 127; and Q4_0: the
// number furthest from 0 over -8.
bool can_quantise(const GgmlType&);
// Appends the blocks of `numbers`, which must be whole blocks; else Error(bug). Numbers are finite.
void quantise(const GgmlType&, std::span<const float> numbers, std::vector<std::byte>& out);

}  // namespace moe
