// WordPiece (the longest piece that fits, again and again) and WordLevel (the word or nothing).
#include "lib/core/text.h"
#include "lib/tokenizer/model.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

class WordPiece final : public Model {
 public:
  WordPiece(const Vocabulary& vocabulary, WordPieceOptions options)
      : vocabulary_(vocabulary), options_(std::move(options)) {}

  void encode(std::string_view piece, ModelWork&, std::vector<Token>& out) const override {
    const std::size_t before = out.size();
    bool known = !is_too_long(piece);
    for (std::size_t at = 0; known && at < piece.size();) {
      const Token token = longest(piece, at);
      known = token.id >= 0;
      out.push_back(token);
      at = token.end;
    }
    if (known)
      return;
    out.resize(before);
    out.push_back({options_.unknown, 0, std::uint32_t(piece.size())});
  }

 private:
  bool is_too_long(std::string_view piece) const {
    std::size_t characters = 0;
    for (std::size_t at = 0; at < piece.size() && characters <= options_.longest; ++characters)
      at += std::size_t(utf8_length(static_cast<unsigned char>(piece[at])));
    return characters > options_.longest;
  }
  Token longest(std::string_view piece, std::size_t begin) const {
    std::size_t end = piece.size();
    while (end > begin) {
      const std::string_view part = piece.substr(begin, end - begin);
      const int id =
          begin == 0 ? vocabulary_.find(part) : vocabulary_.find(concat(options_.prefix, part));
      if (id >= 0)
        return {id, std::uint32_t(begin), std::uint32_t(end)};
      do
        --end;
      while (end > begin && (static_cast<unsigned char>(piece[end]) & 0xC0) == 0x80);
    }
    return {-1, 0, 0};
  }

  const Vocabulary& vocabulary_;
  WordPieceOptions options_;
};

class WordLevel final : public Model {
 public:
  WordLevel(const Vocabulary& vocabulary, int unknown)
      : vocabulary_(vocabulary), unknown_(unknown) {}
  void encode(std::string_view piece, ModelWork&, std::vector<Token>& out) const override {
    const int id = vocabulary_.find(piece);
    out.push_back({id >= 0 ? id : unknown_, 0, std::uint32_t(piece.size())});
  }

 private:
  const Vocabulary& vocabulary_;
  int unknown_;
};

}  // namespace

std::unique_ptr<Model> make_word_piece(const Vocabulary& vocabulary, WordPieceOptions options) {
  return std::make_unique<WordPiece>(vocabulary, std::move(options));
}

std::unique_ptr<Model> make_word_level(const Vocabulary& vocabulary, int unknown) {
  return std::make_unique<WordLevel>(vocabulary, unknown);
}

}  // namespace moe
