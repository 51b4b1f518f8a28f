// Models of sentencepiece made by hand: fields of protobuf messages, and pieces.
#pragma once
#include <string>

#include "tests/gguf_bytes.h"

namespace moe::test {

// A field of a protobuf message: number, length, bytes.
inline std::string field(int number, const std::string& bytes) {
  std::string out(1, char(number << 3 | 2));
  for (std::size_t n = bytes.size();; n >>= 7) {
    out += char((n & 127) | (n > 127 ? 128 : 0));
    if (n <= 127)
      return out + bytes;
  }
}
inline std::string varint(int number, int value) {
  return {char(number << 3), char(value)};
}

// A piece of the model; type: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused.
inline std::string scored_piece(const std::string& text, float score, int type) {
  return field(1, field(1, text) + std::string(1, char(2 << 3 | 5)) + raw(score) + varint(3, type));
}

}  // namespace moe::test
