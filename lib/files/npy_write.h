// What numpy.save puts before the numbers of an array (numpy.lib.format, version 1.0).
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/view.h"

namespace moe {

// The header of a row-major array of this shape; `type` as NumPy writes it: "<i4", "<f2", "|u1",
// "<U8". The numbers follow it, at a multiple of 64 bytes.
std::string npy_head(std::string_view type, const std::vector<Index>& shape);
// UTF-8 as the characters of four bytes that an array of text has; what is no UTF-8 becomes U+FFFD.
std::u32string npy_characters(std::string_view utf8);

}  // namespace moe
