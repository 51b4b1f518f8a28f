// The last stage: a piece of text becomes ids. One implementation each for byte pairs, Unigram,
// WordPiece and whole words.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/tokenizer/merges.h"
#include "lib/tokenizer/piece_cache.h"

namespace moe {

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>()(text);
  }
};
using IdsOfTexts = std::unordered_map<std::string, int, TextHash, std::equal_to<>>;

// Ids and their texts. An id that the file leaves out has no text.
class Vocabulary {
 public:
  // throws Error(input), naming `source`, for an id that is too large or used twice
  void add(std::string text, std::int64_t id, std::string_view source);
  int find(std::string_view text) const;  // -1 = none
  int size() const {                      // highest id + 1
    return int(texts_.size());
  }
  bool has(int id) const {
    return id >= 0 && id < size() && present_[std::size_t(id)];
  }
  const std::string& text(int id) const {
    return *texts_[std::size_t(id)];
  }
  // 256 ids of the byte pieces <0x00> to <0xFF>, -1 = none
  std::vector<int> byte_pieces() const;

 private:
  IdsOfTexts ids_;
  std::vector<const std::string*> texts_;
  std::vector<bool> present_;
};

// An id with the bytes of the piece that it stands for. They follow one another except where
// `begin` says otherwise (byte pieces of one character share its bytes).
struct Token {
  int id;
  std::uint32_t begin, end;
};

// Memory of a model at work, one for each thread.
struct ModelWork {
  std::vector<Part> parts;
  MergeWork merge;
  PieceCache cache;
  struct Node {
    double score;
    std::int32_t id;
    std::uint32_t start;
  };
  std::vector<Node> nodes;
  std::vector<Token> tokens;
};

class Model {
 public:
  virtual ~Model() = default;
  // Adds the ids of a piece that is not empty.
  virtual void encode(std::string_view piece, ModelWork&, std::vector<Token>& out) const = 0;
  virtual void encode_ids(std::string_view piece, ModelWork& work, std::vector<int>& out) const {
    work.tokens.clear();
    encode(piece, work, work.tokens);
    for (const Token& t : work.tokens)
      out.push_back(t.id);
  }
};

struct BpeOptions {
  // text of a piece is looked up whole before it is merged
  bool whole_first = false;
  bool byte_fallback = false, fuse_unknown = false;
  int unknown = -1;
  std::string prefix, suffix;  // of parts inside a word, and of the last one
};

// Byte pairs over characters of the piece. The vocabulary must outlive the model.
std::unique_ptr<Model> make_char_bpe(const Vocabulary&, MergeTable, BpeOptions);
// Byte pairs over bytes: `byte_ids` are those of single bytes, `whole` gives the id of a whole
// piece where whole_first.
using WholePieces = IdsOfTexts;
std::unique_ptr<Model> make_byte_bpe(std::vector<int> byte_ids, MergeTable, WholePieces whole);

struct UnigramOptions {
  int unknown = -1;
  bool byte_fallback = false;
};
std::unique_ptr<Model> make_unigram(const Vocabulary&, const std::vector<double>& scores,
                                    UnigramOptions);

struct WordPieceOptions {
  int unknown = -1;
  std::string prefix = "##";
  std::size_t longest = 100;  // characters of a word
};
std::unique_ptr<Model> make_word_piece(const Vocabulary&, WordPieceOptions);
std::unique_ptr<Model> make_word_level(const Vocabulary&, int unknown);

}  // namespace moe
