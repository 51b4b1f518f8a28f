// Data whose unit is a whole sample: the rows of a picture or a sound, a question about it, the
// answer. A sample is one sequence, signal first, and only the answer and the id of its end are
// asked for. What the sets of this kind share.
#pragma once
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "datasets/dataset.h"
#include "lib/signal/patches.h"

namespace moe {

// What of a sample is wanted: its text is made at once, its rows can take a while.
enum class Wanted { text, all };

struct Sample {
  Index row_count = 0;
  Matrix<float> rows;  // (row_count,D) of the set's signal, where they are wanted
  std::string question, answer;
  int kind = 0;  // of DatasetInfo::questions
};

class Samples : public Dataset {
 public:
  // The tokenizer outlives it. Throws Error(usage) where that has no id for the end of an answer.
  Samples(const std::string& name, const Tokenizer&);
  const DatasetInfo& info() const override {
    return info_;
  }
  // Both throw Error(input) where a sample is longer than `tokens`: none is cut.
  Piece train_piece(int domain, int tokens, Rng&) const override;
  std::optional<Piece> valid_piece(int domain, int tokens, Index piece) const override;

 protected:
  virtual Sample train_sample(int domain, Rng&) const = 0;
  // Number n of the domain's DatasetInfo::valid_pieces.
  virtual Sample valid_sample(int domain, Index n, Wanted) const = 0;
  // What the samples of this set bring, D numbers a row, at most so many rows.
  void signal_is(std::uint8_t modality, int numbers, int places);
  // One more domain of so many samples to validate on; train_tokens may be kEndless.
  void add_domain(const std::string& name, Index train_tokens, Index valid_samples);
  Index rows_of(const Sample&) const;

  DatasetInfo info_;

 private:
  Piece piece_of(const Sample&, int tokens) const;
  void refuse_long(Index rows, Index signals, int tokens) const;

  const Tokenizer& tokenizer_;
  std::string name_;
};

// One text in ten, by a hash of it: what is kept for validation, whatever else there is.
bool in_tenth(std::string_view text);
// The same of names, but one at least where there are several, and never all of them.
std::set<std::string> tenth_of(const std::set<std::string>& names);

// How every set makes rows of a picture: patches of three colours line by line, channel by channel,
// pixels of 0 to 1 brought to about -2 to 2; and the picture that such rows are of, which is
// square.
PatchRule patch_rule(int patch);
Picture picture_of_rows(View<const float> rows /*(n,3*patch*patch)*/);
Matrix<float> as_floats(const Matrix<double>&);
// Rows of `join` log-mel frames of so many bands side by side, brought to about -1 to 1; frames
// that fill no row are left out.
Matrix<float> joined_frames(const std::vector<float>& samples, int bands, int join);

// Things of two properties (a colour and a form, a pitch and a slide), some pairs of which are held
// out of training: whoever has learned each property by itself knows them all the same.
class HeldPairs {
 public:
  // Throws Error(usage), beginning with `where`, where so many held pairs would leave a value of
  // either property with no pair to train on.
  HeldPairs(int first, int second, int hold, Rng, const std::string& where);
  using Pair = std::pair<int, int>;
  const std::vector<Pair>& held() const {
    return held_;
  }
  Pair any_seen(Rng& rng) const {
    return seen_[std::size_t(rng.below(Index(seen_.size())))];
  }
  Pair any_held(Rng& rng) const {
    return held_[std::size_t(rng.below(Index(held_.size())))];
  }

 private:
  std::vector<Pair> held_, seen_;
};

// A list and the same with ", unseen pair" behind it: kind k of a held pair is k + kinds.size().
std::vector<std::string> with_unseen_pairs(std::vector<std::string> kinds);

}  // namespace moe
