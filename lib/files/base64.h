// Base64 (RFC 4648, the plain alphabet, padded): how servers put arrays into JSON.
#pragma once
#include <string_view>
#include <vector>

#include "lib/files/zip.h"

namespace moe {

// False where the text is no base64. The bytes lie in memory that `out` owns.
bool read_base64(std::string_view text, Bytes& out);

}  // namespace moe
