// The two models of sentencepiece over its normalized text. Parts come back as ids with their
// bytes; what is unknown has the id of the unknown piece.
#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "lib/tokenizer/merges.h"
#include "lib/tokenizer/sentencepiece.h"
#include "lib/tokenizer/trie.h"

namespace moe {

struct SentencePieceWork {
  std::vector<Part> parts;
  MergeWork merge;
  struct Node {
    float score;
    std::int32_t id, start;
  };
  std::vector<Node> nodes;
};

class SentencePieceModel {
 public:
  virtual ~SentencePieceModel() = default;
  virtual void encode(std::string_view text, SentencePieceWork&, std::vector<Part>& out) const = 0;
};

// `pieces` and `user_defined` must outlive the model; `unknown` is the id of the unknown piece.
std::unique_ptr<SentencePieceModel> make_scored_bpe(const std::vector<ScoredPiece>& pieces,
                                                    const Trie& user_defined, int unknown);
std::unique_ptr<SentencePieceModel> make_scored_unigram(const std::vector<ScoredPiece>& pieces,
                                                        int unknown);

}  // namespace moe
