// Unigram as sentencepiece adds it up: in single precision. A user-defined piece counts 0.1 for
// each byte behind its first, whatever score is stored with it (measured on sentencepiece 0.2.3).
#include <algorithm>
#include <limits>

#include "lib/tokenizer/sentencepiece_model.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

constexpr float kUnknownPenalty = 10;

class ScoredUnigram final : public SentencePieceModel {
 public:
  ScoredUnigram(const std::vector<ScoredPiece>& pieces, int unknown)
      : pieces_(pieces), unknown_(unknown) {
    float lowest = std::numeric_limits<float>::max();
    for (std::size_t id = 0; id < pieces.size(); ++id) {
      const ScoredPiece& piece = pieces[id];
      if (piece.type == PieceType::normal)
        lowest = std::min(lowest, piece.score);
      if (piece.type == PieceType::normal || piece.type == PieceType::user_defined)
        trie_.add(piece.text, int(id));
    }
    unknown_score_ = lowest - kUnknownPenalty;
  }

  void encode(std::string_view text, SentencePieceWork& work,
              std::vector<Part>& out) const override {
    search(text, work.nodes);
    const std::size_t first = out.size();
    for (std::size_t end = text.size(); end > 0;) {
      const SentencePieceWork::Node& node = work.nodes[end];
      out.push_back({node.id, std::uint32_t(end - std::size_t(node.start))});
      end = std::size_t(node.start);
    }
    std::reverse(out.begin() + std::ptrdiff_t(first), out.end());
  }

 private:
  void search(std::string_view text, std::vector<SentencePieceWork::Node>& nodes) const {
    nodes.assign(text.size() + 1, {0, -1, -1});
    const auto offer = [&](std::size_t start, std::size_t end, int id, float score) {
      SentencePieceWork::Node& node = nodes[end];
      if (node.start == -1 || score > node.score)
        node = {score, id, std::int32_t(start)};
    };
    for (std::size_t at = 0; at < text.size();) {
      const float till_here = nodes[at].score;
      const std::size_t bytes = std::min(
          text.size() - at, std::size_t(utf8_length(static_cast<unsigned char>(text[at]))));
      bool single = false;
      trie_.prefixes(text.substr(at), [&](std::size_t length, int id) {
        offer(at, at + length, id, score_of(id, length) + till_here);
        single = single || length == bytes;
      });
      if (!single)
        offer(at, at + bytes, unknown_, unknown_score_ + till_here);
      at += bytes;
    }
  }
  float score_of(int id, std::size_t bytes) const {
    const ScoredPiece& piece = pieces_[std::size_t(id)];
    if (piece.type == PieceType::user_defined)
      return float(0.1 * double(bytes) - 0.1);
    return piece.score;
  }

  const std::vector<ScoredPiece>& pieces_;
  int unknown_;
  Trie trie_;
  float unknown_score_ = 0;
};

}  // namespace

std::unique_ptr<SentencePieceModel> make_scored_unigram(const std::vector<ScoredPiece>& pieces,
                                                        int unknown) {
  return std::make_unique<ScoredUnigram>(pieces, unknown);
}

}  // namespace moe
