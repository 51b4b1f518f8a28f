// Unigram: the cut of a text whose pieces have the highest sum of scores, found from left to right.
#include <algorithm>
#include <limits>

#include "lib/tokenizer/model.h"
#include "lib/tokenizer/trie.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

constexpr double kUnknownPenalty = 10;
constexpr std::uint32_t kNoStart = ~std::uint32_t(0);

class Unigram final : public Model {
 public:
  Unigram(const Vocabulary& vocabulary, const std::vector<double>& scores, UnigramOptions options)
      : vocabulary_(vocabulary),
        scores_(scores),
        options_(options),
        bytes_(vocabulary.byte_pieces()) {
    double lowest = std::numeric_limits<double>::infinity();
    for (std::size_t id = 0; id < scores_.size(); ++id) {
      trie_.add(vocabulary.text(int(id)), int(id));
      lowest = std::min(lowest, scores_[id]);
    }
    unknown_score_ = lowest - kUnknownPenalty;
  }

  void encode(std::string_view piece, ModelWork& work, std::vector<Token>& out) const override {
    search(piece, work.nodes);
    // the best path from its end; neighbours that are unknown are one
    work.parts.clear();
    std::size_t end = piece.size();
    bool fused = false;
    while (end > 0) {
      const ModelWork::Node& node = work.nodes[end];
      const std::uint32_t bytes = std::uint32_t(end) - node.start;
      const bool unknown = node.id == options_.unknown;
      if (unknown && fused)
        work.parts.back().bytes += bytes;
      else
        work.parts.push_back({node.id, bytes});
      fused = unknown;
      end = node.start;
    }
    std::uint32_t at = 0;
    for (auto p = work.parts.rbegin(); p != work.parts.rend(); ++p) {
      put(piece, at, at + p->bytes, out);
      at += p->bytes;
    }
  }

 private:
  void search(std::string_view text, std::vector<ModelWork::Node>& nodes) const {
    nodes.assign(text.size() + 1, {0, -1, kNoStart});
    const auto offer = [&](std::size_t start, std::size_t end, int id, double score) {
      ModelWork::Node& node = nodes[end];
      if (node.start == kNoStart || score > node.score)
        node = {score, id, std::uint32_t(start)};
    };
    for (std::size_t at = 0; at < text.size();) {
      const double till_here = nodes[at].score;
      const std::size_t bytes = std::size_t(utf8_length(static_cast<unsigned char>(text[at])));
      bool single = false;
      trie_.prefixes(text.substr(at), [&](std::size_t length, int id) {
        offer(at, at + length, id, scores_[std::size_t(id)] + till_here);
        single = single || length == bytes;
      });
      if (!single)
        offer(at, at + bytes, options_.unknown, unknown_score_ + till_here);
      at += bytes;
    }
  }

  // The library looks each part up by its text once more, so that unknown characters together may
  // be a piece.
  void put(std::string_view piece, std::uint32_t begin, std::uint32_t end,
           std::vector<Token>& out) const {
    const std::string_view text = piece.substr(begin, end - begin);
    if (const int id = vocabulary_.find(text); id >= 0 && id < int(scores_.size())) {
      out.push_back({id, begin, end});
      return;
    }
    const bool bytes = options_.byte_fallback && std::ranges::all_of(text, [&](char c) {
                         return bytes_[static_cast<unsigned char>(c)] >= 0;
                       });
    if (!bytes) {
      out.push_back({options_.unknown, begin, end});
      return;
    }
    for (const char c : text)
      out.push_back({bytes_[static_cast<unsigned char>(c)], begin, end});
  }

  const Vocabulary& vocabulary_;
  std::vector<double> scores_;
  UnigramOptions options_;
  std::vector<int> bytes_;
  Trie trie_;
  double unknown_score_ = 0;
};

}  // namespace

std::unique_ptr<Model> make_unigram(const Vocabulary& vocabulary, const std::vector<double>& scores,
                                    UnigramOptions options) {
  return std::make_unique<Unigram>(vocabulary, scores, options);
}

}  // namespace moe
