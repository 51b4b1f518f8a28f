// The tokens of one step: several sequences laid end to end. A row is a piece of text, or it stands
// for a patch of a picture or a stretch of sound, whose numbers are a signal.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "lib/core/matrix.h"
#include "lib/core/modality.h"
#include "lib/core/signal.h"
#include "lib/core/view.h"

namespace moe {

// Vectors of the model's width for some rows of a batch, made outside of the decoder: by an encoder
// of pictures or sounds and its projector, or by another engine.
struct RowValues {
  std::vector<Index> row;  // (n) ascending
  Matrix<float> value;     // (n, H)

  bool empty() const {
    return row.empty();
  }
};

struct Batch {
  std::vector<int> token;       // (T) ids; of rows of a signal those of their places
  std::vector<int> target;      // (T) the id to predict; -1 = nothing; empty = no loss wanted
  std::vector<Index> start{0};  // (Q+1) first row of each sequence; start.back() == T
  // (Q) index into the dataset's domains; -1 = none; empty = none
  std::vector<int> domain;
  // (Q) tokens of the sequence already in the state (decoding); empty = 0
  std::vector<Index> past;
  std::vector<std::uint8_t> valid;     // (T) 0 = padding; empty = all valid
  std::vector<std::uint8_t> modality;  // (T) see modality.h; empty = all text
  std::vector<Signal> signal;  // of rows that are no text, one of a kind; empty = none has numbers
  // (Q) which kind of question the targets of a sequence answer, see DatasetInfo::questions; -1 =
  // none; empty = none has one
  std::vector<int> question;
  std::vector<SignalGrid> grid;  // (Q) of its rows that are no text; empty = none
  RowValues given;  // rows that stand in place of the embedding of their ids; empty = none
  // [l] is added to the stream behind decoder layer l (deepstack, Qwen3-VL); empty = nothing
  std::vector<RowValues> added;
  // (3,T) time, height and width for models that turn by three axes (M-RoPE), counted from the
  // start of each sequence; empty = the place in its sequence in all three
  Matrix<int> position;
  // What the encoder of an encoder-decoder reads, a sequence for each of these; null = there is
  // none, or the state of decoding holds it.
  std::shared_ptr<const Batch> source = {};

  Index tokens() const {
    return Index(token.size());
  }
  Index sequences() const {
    return Index(start.size()) - 1;
  }
  bool is_valid(Index t) const {
    return valid.empty() || valid[std::size_t(t)];
  }
  std::uint8_t modality_of(Index t) const {
    return modality.empty() ? std::uint8_t(modality::text) : modality[std::size_t(t)];
  }
};

}  // namespace moe
