// What a token id looks like, for people and as bytes. Vocabularies spell their pieces in six ways;
// which one, the pieces themselves tell: the mark at the beginning or end of words that most have.
#pragma once
#include "lib/trace/trace.h"

namespace moe {

class Pieces {
 public:
  explicit Pieces(const TraceHeader&);
  std::string bytes(std::uint32_t id) const;  // as in the text; "�" where withheld or unknown
  // printable UTF-8: ⏎ for a newline, ␣ for a space, <0xE4> for half a character
  std::string readable(std::uint32_t id) const;

 private:
  enum class Style { raw, bytes, byte_level, sentencepiece, word_piece, word_end };
  static Style style_of(const TraceHeader&);
  const TraceHeader& header_;
  Style style_;
};

}  // namespace moe
