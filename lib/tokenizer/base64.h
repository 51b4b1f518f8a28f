// Base64 as tokenizer files hold it: the standard letters, with or without the '=' at the end.
#pragma once
#include <string>
#include <string_view>

namespace moe {

// throws Error(input), naming `source`, for what is no base64
std::string from_base64(std::string_view text, std::string_view source);
bool is_base64(std::string_view text);

}  // namespace moe
