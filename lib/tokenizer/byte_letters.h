// GPT-2's letters for bytes: a byte that prints in Latin-1 stands for itself, the other 68 take
// U+0100, U+0101, ... in order. Byte-level vocabularies are written in them.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "lib/tokenizer/aligned.h"

namespace moe {

const std::array<char32_t, 256>& byte_letters();
// the byte that a letter stands for; -1 = none
int byte_of_letter(char32_t);
std::string letters_of_bytes(std::string_view bytes);
// nothing where a character is no letter of a byte
std::optional<std::string> bytes_of_letters(std::string_view letters);
// every byte becomes its letter, which comes from what the byte came from
void to_byte_letters(Aligned&);

}  // namespace moe
