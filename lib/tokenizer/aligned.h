// A text on its way through the normalizers, with the bytes of the original that each of its bytes
// came from. The rules for what a new character comes from are those of the library `tokenizers`,
// so that offsets are equal too.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moe {

// Bytes [begin, end).
struct ByteRange {
  std::uint32_t begin = 0, end = 0;
  std::uint32_t size() const {
    return end - begin;
  }
  bool operator==(const ByteRange&) const = default;
};

// A character of a rewritten text: 0 takes the place of the next character of the old text, +1 is
// put in without taking one, -n takes the place of one and removes the n behind it.
struct Change {
  char32_t code;
  int change;
};

class Aligned {
 public:
  Aligned() = default;
  // each character comes from itself; `from` is the place of `text` in the original
  Aligned(std::string_view text, std::uint32_t from, bool tracked);
  explicit Aligned(bool tracked) : tracked_(tracked) {}

  const std::string& text() const {
    return text_;
  }
  bool tracked() const {
    return tracked_;
  }
  // where bytes [begin, end) came from; needs `tracked`
  ByteRange origin(std::size_t begin, std::size_t end) const;
  ByteRange byte_origin(std::size_t at) const {
    return origin_[at];
  }
  void clear() {
    text_.clear();
    origin_.clear();
  }
  void append(std::string_view bytes, ByteRange origin);
  void append(char32_t code, ByteRange origin);
  // bytes [begin, end) of another text with what they came from
  void append(const Aligned& other, std::size_t begin, std::size_t end);
  // The text rewritten; `removed` characters at its start are dropped first.
  void transform(std::span<const Change> changes, int removed);

 private:
  std::string text_;
  std::vector<ByteRange> origin_;  // of each byte; empty where not tracked
  bool tracked_ = false;
};

}  // namespace moe
