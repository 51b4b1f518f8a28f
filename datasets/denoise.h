// T5's span corruption (1910.10683, section 3.1.4): spans of a text are taken out, each replaced by
// a sentinel; the encoder reads what is left, the decoder writes the spans behind their sentinels.
#pragma once
#include "datasets/dataset.h"

namespace moe {

class Denoise {
 public:
  // "denoise:density=0.15,span=3,sentinels=32"; throws Error(usage)
  explicit Denoise(const std::string& spec);

  const std::string& resolved() const {
    return resolved_;
  }
  int sentinels() const {
    return sentinels_;
  }
  // The ids of `text` without padding, spans behind `sentinel` (sentinels() of them); the decoder
  // reads `start` first and writes it last.
  Piece apply(const Piece& text, const TokenIds& sentinel, int start, Rng&) const;

 private:
  double density_ = 0;  // share of ids that are taken out
  double span_ = 0;     // mean length of a span
  int sentinels_ = 0;   // most spans of a piece
  std::string resolved_;
};

// [start, y...] and what follows each, at most `most` rows: what a decoder reads of `y` and writes.
Piece shifted(const TokenIds& y, int start, std::size_t most);

}  // namespace moe
