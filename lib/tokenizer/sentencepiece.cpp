#include "lib/tokenizer/sentencepiece.h"

#include <algorithm>
#include <unordered_map>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/tokenizer/decoder.h"
#include "lib/tokenizer/pipeline.h"
#include "lib/tokenizer/sentencepiece_model.h"
#include "lib/tokenizer/sentencepiece_normalizer.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

constexpr std::string_view kSign = "\xE2\x96\x81";  // U+2581

class SentencePiece final : public Tokenizer {
 public:
  SentencePiece(SentencePieceRules rules, std::string_view source) : rules_(std::move(rules)) {
    for (std::size_t id = 0; id < rules_.pieces.size(); ++id) {
      const ScoredPiece& piece = rules_.pieces[id];
      if (piece.text.empty() || piece.text.find('\0') != piece.text.npos ||
          !ids_.emplace(piece.text, int(id)).second) {
        throw Error(Exit::input,
                    concat(in_quotes(source), ": piece ", id, ", ", in_quotes(piece.text),
                           piece.text.empty() ? ", is empty" : ", is there twice or holds a NUL"))
            .hint("fetch the file again");
      }
      if (piece.type == PieceType::unknown)
        unknown_ = int(id);
      if (piece.type == PieceType::user_defined)
        user_defined_.add(piece.text, int(id));
    }
    if (unknown_ < 0) {
      throw Error(Exit::input, concat(in_quotes(source), " has no piece for what is unknown"))
          .hint("fetch the file again");
    }
    find_bytes(source);
    model_ = rules_.unigram ? make_scored_unigram(rules_.pieces, unknown_)
                            : make_scored_bpe(rules_.pieces, user_defined_, unknown_);
  }

  std::string id() const override {
    return rules_.id;
  }
  int vocabulary() const override {
    return int(rules_.pieces.size());
  }
  int boundary() const override {
    return rules_.special.eos >= 0 ? rules_.special.eos : rules_.special.bos;
  }
  using Tokenizer::encode;
  Encoded encode(std::string_view text, const EncodeOptions& options) const override {
    Encoded out;
    if (options.frame && rules_.add_bos)
      out.ids.push_back(rules_.special.bos);
    out.at.resize(options.offsets ? out.ids.size() : 0);
    std::string storage;
    WorkPool<SentencePieceWork>::Loan work(pool_);
    const std::string_view whole = text_to_encode(text, storage);
    if (options.special == SpecialText::ids)
      encode_with_control(whole, *work, options, out);
    else
      encode_text(whole, 0, *work, options, out);
    if (options.frame && rules_.add_eos)
      out.ids.push_back(rules_.special.eos);
    if (options.offsets)
      out.at.resize(out.ids.size());
    return out;
  }

  using Tokenizer::decode;
  std::string decode(const std::vector<int>& ids, bool skip_special) const override;
  std::vector<std::string> pieces() const override {
    std::vector<std::string> out;
    for (const ScoredPiece& piece : rules_.pieces)
      out.push_back(whole_text(piece.text).text);
    return out;
  }
  SpecialIds special() const override {
    return rules_.special;
  }
  std::string tokenizer_json() const override {
    return "";
  }
  std::string tokenizer_config_json() const override {
    return rules_.config_json;
  }

 private:
  void find_bytes(std::string_view source) {
    byte_ids_.assign(256, -1);
    for (std::size_t id = 0; id < rules_.pieces.size(); ++id) {
      const ScoredPiece& piece = rules_.pieces[id];
      const int byte = byte_of_piece(piece.text);
      if (piece.type == PieceType::byte && byte >= 0)
        byte_ids_[std::size_t(byte)] = int(id);
    }
    const bool all = std::ranges::count(byte_ids_, -1) == 0;
    if (rules_.byte_fallback && !all) {
      throw Error(Exit::input,
                  concat(in_quotes(source), " writes unknown characters as bytes and lacks ",
                         std::ranges::count(byte_ids_, -1), " of the 256 pieces"))
          .hint("fetch the file again");
    }
  }

  // Texts of control pieces become their ids, and what stands between them is encoded by itself.
  void encode_with_control(std::string_view text, SentencePieceWork& work,
                           const EncodeOptions& options, Encoded& out) const {
    Trie control;
    for (std::size_t id = 0; id < rules_.pieces.size(); ++id) {
      if (rules_.pieces[id].type == PieceType::control)
        control.add(rules_.pieces[id].text, int(id));
    }
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      std::size_t bytes = 0;
      int found = -1;
      control.prefixes(text.substr(at), [&](std::size_t length, int id) {
        bytes = length;
        found = id;
      });
      if (found < 0) {
        ++at;
        continue;
      }
      encode_text(text.substr(done, at - done), done, work, options, out);
      put(found, {std::uint32_t(at), std::uint32_t(at + bytes)}, options, out);
      at += bytes;
      done = at;
    }
    encode_text(text.substr(done), done, work, options, out);
  }

  void encode_text(std::string_view text, std::size_t from, SentencePieceWork& work,
                   const EncodeOptions& options, Encoded& out) const {
    const NormalizedText n =
        normalize_for_sentencepiece(text, rules_.charsmap, user_defined_,
                                    {.dummy_prefix = rules_.dummy_prefix,
                                     .remove_extra = rules_.remove_extra_blanks,
                                     .escape = rules_.escape_blanks,
                                     .behind = rules_.blanks_behind});
    std::vector<Part> parts;
    if (!n.text.empty())
      model_->encode(n.text, work, parts);
    std::size_t at = 0;
    bool after_unknown = false;
    for (const Part& part : parts) {
      const ByteRange range{std::uint32_t(from) + n.from[at],
                            std::uint32_t(from) + n.from[at + part.bytes]};
      const bool unknown = part.id == unknown_;
      if (unknown && rules_.byte_fallback) {
        put_bytes(std::string_view(n.text).substr(at, part.bytes), range, options, out);
      } else if (unknown && after_unknown) {  // neighbours are one
        if (options.offsets)
          out.at.back().end = range.end;
      } else {
        put(part.id, range, options, out);
      }
      after_unknown = unknown;
      at += part.bytes;
    }
  }
  static void put(int id, ByteRange at, const EncodeOptions& options, Encoded& out) {
    out.ids.push_back(id);
    if (options.offsets)
      out.at.push_back(at);
  }
  // The last byte stands for the whole character, the others for nothing.
  void put_bytes(std::string_view bytes, ByteRange at, const EncodeOptions& options,
                 Encoded& out) const {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const bool last = i + 1 == bytes.size();
      put(byte_ids_[static_cast<unsigned char>(bytes[i])], {at.begin, last ? at.end : at.begin},
          options, out);
    }
  }

  SentencePieceRules rules_;
  std::unordered_map<std::string, int> ids_;
  Trie user_defined_;
  std::vector<int> byte_ids_;
  int unknown_ = -1;
  std::unique_ptr<SentencePieceModel> model_;
  mutable WorkPool<SentencePieceWork> pool_;
};

// Collects text; bytes of byte pieces wait until one that is none comes.
class TextOfPieces {
 public:
  void byte(char c) {
    run_ += c;
  }
  void text(std::string_view text) {
    flush();
    out_ += text;
  }
  // nothing that can be seen has come yet
  bool empty() {
    flush();
    return out_.empty();
  }
  std::string finish() {
    flush();
    return std::move(out_);
  }

 private:
  // Characters where bytes make some, U+FFFD for each byte that makes none.
  void flush() {
    for (std::size_t at = 0; at < run_.size();) {
      const std::string_view rest = std::string_view(run_).substr(at);
      const std::size_t bytes = std::size_t(utf8_valid_length(rest));
      out_ += bytes > 0 ? rest.substr(0, bytes) : "\xEF\xBF\xBD";
      at += std::max<std::size_t>(bytes, 1);
    }
    run_.clear();
  }
  std::string out_, run_;
};

void blanks_from_signs(std::string& text) {
  for (std::size_t at = 0; (at = text.find(kSign, at)) != text.npos; ++at)
    text.replace(at, kSign.size(), " ");
}

// Control pieces never have a text, so leaving special tokens out changes nothing.
std::string SentencePiece::decode(const std::vector<int>& ids, bool) const {
  TextOfPieces out;
  const bool drops = rules_.dummy_prefix || rules_.remove_extra_blanks;
  bool dropped = false;  // the blank in front of the text
  for (const int id : ids) {
    if (id < 0 || id >= vocabulary())
      continue;
    const ScoredPiece& piece = rules_.pieces[std::size_t(id)];
    if (piece.type == PieceType::byte) {
      out.byte(char(byte_of_piece(piece.text)));
      continue;
    }
    const bool at_start = out.empty() && !dropped;
    dropped = false;
    if (piece.type == PieceType::control)
      continue;
    if (piece.type == PieceType::unknown) {
      out.text(rules_.unknown_text);
      continue;
    }
    std::string text = piece.text;
    if (at_start && drops && text.starts_with(kSign)) {
      text.erase(0, kSign.size());
      dropped = !rules_.remove_extra_blanks;
    }
    blanks_from_signs(text);
    out.text(text);
  }
  return out.finish();
}

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece(SentencePieceRules rules, std::string_view source) {
  return std::make_unique<SentencePiece>(std::move(rules), source);
}

}  // namespace moe
