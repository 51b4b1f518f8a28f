// SHA-256 (FIPS 180-4): how published files and golden ids are named.
#pragma once
#include <string>
#include <string_view>

namespace moe {

std::string sha256_hex(std::string_view bytes);  // 64 digits

}  // namespace moe
