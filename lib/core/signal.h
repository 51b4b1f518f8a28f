// Rows that are not text: patches of a picture, stretches of a sound. A row of a signal is D
// numbers; a model has a matrix for each kind of them that makes its vectors of them, and its ids
// end with one for each place that a row can have in its picture or sound, so that every row has an
// id and no text has the same.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lib/core/matrix.h"

namespace moe {

// The rows of one kind in a batch, in a piece of data.
struct Signal {
  std::uint8_t modality = 0;  // see modality.h; never text
  std::vector<Index> row;     // (n) their numbers, ascending
  Matrix<float> value;        // (n, D)
};

// What data bring of one kind, and what a model can read.
struct SignalShape {
  std::uint8_t modality = 0;
  int numbers = 0;  // D
  int places = 0;   // most rows of one picture, of one sound
  bool operator==(const SignalShape&) const = default;
};
// One of a kind at most, by modality.
using SignalShapes = std::vector<SignalShape>;

// "image:numbers=48,places=16;audio:numbers=64,places=16"; "" = text alone. Throws Error(usage) for
// a kind that is text or stands twice, and for sizes below 1.
SignalShapes signal_shapes(const std::string& text);
std::string signal_text(const SignalShapes&);

// Of this kind; null = none.
const SignalShape* find_signal(const SignalShapes&, std::uint8_t modality);
// Ids of all places: the last ones of a vocabulary, kind by kind.
int place_ids(const SignalShapes&);
// The id of place 0 of a kind that is among them.
int first_place_id(const SignalShapes&, std::uint8_t modality, int vocabulary);
// What the ids of places are called, in their order: "<image 0>", ...
std::vector<std::string> place_names(const SignalShapes&);

}  // namespace moe
