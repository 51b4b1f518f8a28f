#include "lib/tokenizer/base64.h"

#include <algorithm>
#include <cstdint>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {
namespace {

int value_of(char c) {
  if (c >= 'A' && c <= 'Z')
    return c - 'A';
  if (c >= 'a' && c <= 'z')
    return c - 'a' + 26;
  if (c >= '0' && c <= '9')
    return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

std::string_view without_padding(std::string_view text) {
  for (int i = 0; i < 2 && text.ends_with('='); ++i)
    text.remove_suffix(1);
  return text;
}

}  // namespace

bool is_base64(std::string_view text) {
  const std::string_view letters = without_padding(text);
  return letters.size() % 4 != 1 &&
         std::ranges::all_of(letters, [](char c) { return value_of(c) >= 0; });
}

std::string from_base64(std::string_view text, std::string_view source) {
  if (!is_base64(text)) {
    throw Error(Exit::input,
                concat(in_quotes(source), ": ", in_quotes(text.substr(0, 40)), " is no base64"))
        .hint("fetch the file again");
  }
  std::string out;
  out.reserve(text.size() / 4 * 3 + 3);
  std::uint32_t bits = 0;
  int have = 0;
  for (const char c : without_padding(text)) {
    bits = bits << 6 | std::uint32_t(value_of(c));
    have += 6;
    if (have >= 8) {
      have -= 8;
      out += char(bits >> have & 0xFF);
    }
  }
  return out;
}

}  // namespace moe
