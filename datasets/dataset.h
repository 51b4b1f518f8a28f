// Where tokens come from. A dataset has domains (labels), a train and a valid split that never
// overlap, and is a pure function of its spec, the seed and a cursor: the same position gives the
// same tokens, so resuming needs three numbers.
#pragma once
#include <array>
#include <filesystem>
#include <optional>

#include "datasets/tokenizer.h"
#include "lib/core/batch.h"
#include "lib/core/rng.h"

namespace moe {

enum class Split { train, valid };
constexpr Index kEndless = -1;  // train_tokens of a dataset that makes its text up

struct DatasetInfo {
  std::string spec;    // resolved
  int vocabulary = 0;  // ids are below it
  std::vector<std::string> domains;
  // per domain, boundaries counted; train may be kEndless
  std::vector<Index> train_tokens, valid_tokens;
  // per domain, of its ids and their marks, both splits; empty where the text is made up from the
  // spec alone
  std::vector<std::uint64_t> content_hash;
  // ids without a tokenizer of ours: its vocabulary says nothing about them
  bool bare_ids = false;
  // the tokenizer that such ids are of, where it was named; its texts are for people to read
  std::shared_ptr<const Tokenizer> pieces;
  // what a user should hear: files skipped, bytes cut by limit
  std::vector<std::string> notes;
  // Of data for encoder-decoders: the id that a decoder reads first and writes last; -1 = pieces
  // have no source.
  int start = -1;
  // per domain, pieces of the valid split where they are no stretches of one text, -1 where they
  // are; empty = all are
  std::vector<Index> valid_pieces;
  // What the pieces bring besides ids. Of the ids of a corpus those of their places are the last.
  SignalShapes signals;
  bool modalities = false;  // rows say what they stand for, whether or not there are signals
  // Kinds of questions that the targets of a piece answer: "how many", "colour, unseen pair"
  std::vector<std::string> questions;
};

using TokenIds = std::vector<int>;

// A stretch of one domain, as long as was asked for or shorter; or a whole sample of it, its
// picture or sound first.
struct Piece {
  TokenIds token;                   // (T) ids; of a row of a signal its place, from 0
  std::vector<int> target;          // (T) the id that follows each row; -1 = none
  std::vector<std::uint8_t> valid;  // (T) 0 = padding, behind the others; empty = all valid
  TokenIds source = {};             // what an encoder reads; the rows above are its decoder's
  std::vector<std::uint8_t> modality = {};  // (T) see modality.h; empty = all text
  std::vector<Signal> signal = {};          // what the rows that are no text hold
  SignalGrid grid = {};                     // how these rows lie in the picture
  int question = -1;  // kind of the question that the targets answer, of DatasetInfo::questions
  // of rows that were made elsewhere, as in a batch; ids are then the model's own
  RowValues given = {};
  std::vector<RowValues> added = {};
  Matrix<int> position = {};  // (3,T)
};

class Denoise;

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual const DatasetInfo& info() const = 0;
  // A piece of `tokens` rows from the train split of one domain, its position drawn from rng.
  // Throws Error(input) where the domain is smaller than a piece.
  virtual Piece train_piece(int domain, int tokens, Rng& rng) const = 0;
  // Number `piece` of the consecutive pieces of that domain's valid split; the last one may be
  // short, and behind it there is none.
  virtual std::optional<Piece> valid_piece(int domain, int tokens, Index piece) const = 0;
  // The class that was planted in each token, for data that is made up (`clusters`: its cluster; -1
  // = none); empty where nothing is planted.
  virtual std::vector<int> planted_labels(const TokenIds& token) const {
    (void)token;
    return {};
  }
};

// A maker calls spec.done() before it reads anything. It is not told the run's seed: the text, its
// split and a planted structure must be the same for the run that trains and the run that
// evaluates. The tokenizer outlives the dataset.
using MakeDataset = std::unique_ptr<Dataset>(Spec&, const Tokenizer&);
const Registry<MakeDataset>& datasets();
// The specs with vocabulary= set where a dataset of bare ids leaves it open: ids that a model does
// not have are then refused where they stand.
std::vector<std::string> for_vocabulary(const std::vector<std::string>& specs, int vocabulary);

// The specs with encoder= and vocabulary= set where they name pictures or sounds and say nothing of
// patches or bands,
// and the folder `model` is that of a model with an encoder of its own (docs/vision-language.md).
std::vector<std::string> with_encoder(const std::vector<std::string>& specs,
                                      const std::filesystem::path& model, int vocabulary);

struct PieceNumber {
  int domain;
  Index piece;  // of that domain's consecutive pieces
};

// Whether any of them makes ids of text, so that it matters which tokenizer does.
bool reads_text(const std::vector<std::string>& specs);

// Whether a spec that names no split= has nothing to train on, so that it is of the other split.
bool only_validates(const Spec&);

// The specs with task= set: what is made of each piece of their text.
std::vector<std::string> with_task(const std::vector<std::string>& specs, const std::string& task);

// Several --data specs as one: their domains side by side, sampled equally. `split=` inside a spec
// is read here (train, valid), and so is `task=` (denoise).
class Corpus {
 public:
  Corpus(const std::vector<std::string>& specs, const Tokenizer&, std::uint64_t seed);
  ~Corpus();
  Corpus(Corpus&&) noexcept;
  const DatasetInfo& info() const {
    return info_;
  }
  const std::vector<std::string>& specs() const {
    return specs_;
  }  // resolved
  // what the specs asked for; train by default
  Split split() const {
    return split_;
  }
  // id between texts; -1 where the ids are of a tokenizer that was not named
  int boundary() const {
    return boundary_;
  }
  // Whether its batches have a source for each sequence (Batch::source), and the id that their
  // decoder reads first.
  bool has_sources() const {
    return info_.start >= 0;
  }
  // From now on decoders read this id first, which their model began with in training; -1 = the
  // data's own.
  void begin_with(int id) {
    begin_ = id;
  }

  // Training batch number `cursor`: `sequences` pieces of `length` tokens, domains in turn from a
  // seeded shuffle.
  Batch train(std::uint64_t cursor, int sequences, int length) const;
  // These pieces of the validation split as a batch, in their order, without those that do not
  // exist. Pieces never mix domains.
  Batch valid(const std::vector<PieceNumber>& pieces, int length) const;
  // Lays the ids of places out as a model has them whose signals and vocabulary these are. Throws
  // Error(usage) where it does not read what the data bring.
  void use_places(const SignalShapes& of_model, int vocabulary);
  // see Dataset::planted_labels, (T); empty unless every dataset has them
  std::vector<int> planted_labels(const Batch&) const;

 private:
  void add(const std::string& text, const Tokenizer&);
  void add_domains(const DatasetInfo& part);
  void add_signals(const DatasetInfo& part, const std::string& spec);
  void find_places();
  void find_pieces(const Tokenizer& text);
  void find_start();
  void find_sentinels(const Tokenizer&);
  void add_piece(Batch&, Batch& sources, int domain, std::size_t part, Piece, Rng&) const;
  // A piece of that part with the ids of its places and the numbers of its questions.
  Piece placed(Piece, std::size_t part) const;
  int drawn_domain(std::uint64_t sequence) const;

  std::vector<std::unique_ptr<Dataset>> parts_;
  std::vector<std::unique_ptr<const Denoise>> tasks_;  // of each part; null = none
  TokenIds sentinels_;                                 // of the tasks
  int begin_ = -1;                                     // see begin_with()
  std::vector<std::pair<int, int>> owner_;             // (domain) -> part, its domain
  std::vector<int> first_question_;                    // of each part, among info_.questions
  std::array<int, modality_kinds> first_place_{};      // ids, of kinds that there are
  std::vector<std::string> specs_;
  DatasetInfo info_;
  Split split_ = Split::train;
  int boundary_ = -1;
  std::uint64_t seed_ = 0;
};

}  // namespace moe
