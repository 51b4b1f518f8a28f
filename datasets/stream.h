// Text cut into a train and a valid stream of ids, and the dataset that serves pieces of such
// streams. The cut depends on the text alone and only on what stands before it: a longer limit adds
// blocks, it moves none from one split to the other.
#pragma once
#include "datasets/dataset.h"
#include "datasets/files.h"

namespace moe {

namespace token_mark {  // what a file of ids says of one id
constexpr std::uint8_t padding = 1, not_predicted = 2;
}

// Ids of one split of one domain: stretches of text, each behind a boundary id.
class TokenStream {
 public:
  // opening: what stands before the ids; finished = the document ends with this stretch, so that
  // the opening of the next rightly follows
  void add(const std::vector<int>& opening, const std::vector<int>& ids, bool finished);
  void add(const std::vector<int>& ids);  // one stretch without a boundary
  // the same; unless it goes on with the next, nothing follows its last id. marks: a token_mark of
  // each id, or none at all.
  void add_unfinished(const std::vector<int>& ids, const std::vector<std::uint8_t>& marks,
                      bool goes_on);
  Index size() const {
    return Index(low_.size());
  }
  // `count` ids from `first` on and what follows each: -1 behind the end of an unfinished stretch,
  // and where padding or an id that is not to be predicted follows. Padding comes behind the other
  // ids of the piece. A ring: the first id follows the last.
  Piece piece(Index first, Index count) const;
  std::uint64_t hash() const;  // of ids, marks and where documents end
  // Number `piece` of the consecutive pieces of `tokens` ids; not a ring, so the last one may be
  // short, and behind it there is none.
  std::optional<Piece> consecutive(int tokens, Index piece) const;

 private:
  int id(Index i) const {
    return low_[std::size_t(i)] | (high_.empty() ? 0 : high_[std::size_t(i)] << 16);
  }
  std::uint8_t mark(Index i) const {
    return marks_.empty() ? 0 : marks_[std::size_t(i)];
  }
  int target(Index i) const;
  void push(int id);

  // high halves only once an id needs them: text is kept at two bytes a token
  std::vector<std::uint16_t> low_, high_;
  std::vector<std::uint8_t> marks_;  // once an id has one
  // where a stretch ends before its document does, ascending
  std::vector<Index> unfinished_;
};

// Bytes [first, last) of a document that go to one split.
struct Stretch {
  Index document, first, last;
  Split split;
};
// One block in ten is valid. Blocks are 8 KiB; at the start of a domain they grow from 128 bytes,
// so that a small file has several. They end at a line's end where one is near, and never within a
// UTF-8 character.
std::vector<Stretch> split_blocks(const std::vector<Document>&);

// Of both splits of a domain.
std::uint64_t content_hash(const TokenStream& train, const TokenStream& valid);

class StreamDataset final : public Dataset {
 public:
  // special: what the texts of special tokens in documents become. whole: all is for `valid`
  StreamDataset(Spec&, const Tokenizer&, SpecialText special, bool whole = false);
  // Adds a domain; where it has no document, only notes what was left out of it.
  void add(const DomainText&, const Tokenizer&);
  const DatasetInfo& info() const override {
    return info_;
  }
  Piece train_piece(int domain, int tokens, Rng&) const override;
  std::optional<Piece> valid_piece(int domain, int tokens, Index piece) const override;

 private:
  // one note a kind, however many domains it is about
  void add_note(const std::string& kind, const std::string& about);
  void note_left_out(const DomainText&);
  void note_special(const std::string& domain, Index ids);

  DatasetInfo info_;
  SpecialText special_;
  bool whole_;
  std::vector<TokenStream> train_, valid_;
};

}  // namespace moe
