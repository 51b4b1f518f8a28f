// Byte pair encoding, over the characters of a piece or over its bytes.
#include "lib/core/text.h"
#include "lib/tokenizer/model.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

void put_parts(const std::vector<Part>& parts, std::vector<Token>& out) {
  std::uint32_t at = 0;
  for (const Part& p : parts) {
    out.push_back({p.id, at, at + p.bytes});
    at += p.bytes;
  }
}

class CharBpe final : public Model {
 public:
  CharBpe(const Vocabulary& vocabulary, MergeTable table, BpeOptions options)
      : vocabulary_(vocabulary),
        table_(std::move(table)),
        options_(std::move(options)),
        bytes_(vocabulary.byte_pieces()) {}

  void encode(std::string_view piece, ModelWork& work, std::vector<Token>& out) const override {
    if (options_.whole_first) {
      if (const int id = vocabulary_.find(piece); id >= 0) {
        out.push_back({id, 0, std::uint32_t(piece.size())});
        return;
      }
    }
    work.parts.clear();
    Unknown unknown;
    for (std::size_t at = 0; at < piece.size();) {
      const std::size_t bytes = std::size_t(utf8_length(static_cast<unsigned char>(piece[at])));
      add(piece.substr(at, bytes), at == 0, at + bytes == piece.size(), work.parts, unknown);
      at += bytes;
    }
    unknown.flush(work.parts);
    merge_parts(work.parts, table_, work.merge);
    put_parts(work.parts, out);
  }

 private:
  // The unknown characters that are not written yet. The library writes them only before the next
  // known one, so bytes of later characters may come first.
  struct Unknown {
    Part part{-1, 0};
    void flush(std::vector<Part>& parts) {
      if (part.id >= 0)
        parts.push_back(part);
      part = {-1, 0};
    }
  };

  void add(std::string_view character, bool first, bool last, std::vector<Part>& parts,
           Unknown& unknown) const {
    std::string longer;
    std::string_view text = character;
    if ((!first && !options_.prefix.empty()) || (last && !options_.suffix.empty())) {
      longer = concat(first ? "" : options_.prefix, character, last ? options_.suffix : "");
      text = longer;
    }
    if (const int id = vocabulary_.find(text); id >= 0) {
      unknown.flush(parts);
      parts.push_back({id, std::uint32_t(character.size())});
      return;
    }
    if (options_.byte_fallback && all_bytes(text)) {
      for (const char c : text)
        parts.push_back({bytes_[static_cast<unsigned char>(c)], 1});
      return;
    }
    if (options_.unknown < 0)
      return;
    if (!options_.fuse_unknown)
      unknown.flush(parts);
    unknown.part = {options_.unknown, unknown.part.bytes + std::uint32_t(character.size())};
  }
  bool all_bytes(std::string_view text) const {
    for (const char c : text) {
      if (bytes_[static_cast<unsigned char>(c)] < 0)
        return false;
    }
    return true;
  }

  const Vocabulary& vocabulary_;
  MergeTable table_;
  BpeOptions options_;
  std::vector<int> bytes_;
};

class ByteBpe final : public Model {
 public:
  ByteBpe(std::vector<int> bytes, MergeTable table, WholePieces whole)
      : bytes_(std::move(bytes)), table_(std::move(table)), whole_(std::move(whole)) {}

  void encode(std::string_view piece, ModelWork& work, std::vector<Token>& out) const override {
    merge(piece, work);
    put_parts(work.parts, out);
  }

  void encode_ids(std::string_view piece, ModelWork& work, std::vector<int>& out) const override {
    const bool small = piece.size() <= PieceCache::longest;
    if (small) {
      if (const auto* entry = work.cache.find(piece, false)) {
        const auto ids = entry->found();
        out.insert(out.end(), ids.begin(), ids.end());
        return;
      }
    }
    merge(piece, work);
    const std::size_t first = out.size();
    for (const Part& p : work.parts)
      out.push_back(p.id);
    if (small)
      work.cache.put(std::span(out).subspan(first));
  }

 private:
  void merge(std::string_view piece, ModelWork& work) const {
    work.parts.clear();
    if (!whole_.empty()) {
      const auto found = whole_.find(piece);
      if (found != whole_.end()) {
        work.parts.push_back({found->second, std::uint32_t(piece.size())});
        return;
      }
    }
    for (const char c : piece)
      work.parts.push_back({bytes_[static_cast<unsigned char>(c)], 1});
    merge_parts(work.parts, table_, work.merge);
  }

  std::vector<int> bytes_;
  MergeTable table_;
  WholePieces whole_;
};

}  // namespace

std::unique_ptr<Model> make_char_bpe(const Vocabulary& vocabulary, MergeTable table,
                                     BpeOptions options) {
  return std::make_unique<CharBpe>(vocabulary, std::move(table), std::move(options));
}

std::unique_ptr<Model> make_byte_bpe(std::vector<int> byte_ids, MergeTable table,
                                     WholePieces whole) {
  return std::make_unique<ByteBpe>(std::move(byte_ids), std::move(table), std::move(whole));
}

}  // namespace moe
