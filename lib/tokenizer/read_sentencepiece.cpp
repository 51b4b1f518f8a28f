// sentencepiece's `.model`: a protocol buffer (ModelProto), read by hand since only a dozen of its
// fields matter. Numbers of fields are those of sentencepiece_model.proto.
#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/tokenizer/read.h"
#include "lib/tokenizer/sentencepiece.h"

namespace moe {
namespace {

// One field after the other of a message.
class Message {
 public:
  Message(std::string_view message, std::string_view source) : rest_(message), source_(source) {}

  int field = 0;
  std::uint64_t number = 0;  // of a varint
  float real = 0;            // of a 32-bit field
  std::string_view bytes;    // of a text or message

  bool next() {
    if (rest_.empty())
      return false;
    const std::uint64_t key = varint();
    field = int(key >> 3 & 0x1FFFFFFF);
    number = 0;
    real = 0;
    bytes = {};
    switch (key & 7) {
      case 0:
        number = varint();
        return true;
      case 1:
        take(8);
        return true;
      case 2:
        bytes = take(varint());
        return true;
      case 5:
        std::memcpy(&real, take(4).data(), 4);
        return true;
      default:
        fail("has a field of an unknown kind");
    }
  }

 private:
  std::uint64_t varint() {
    std::uint64_t out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      out |= std::uint64_t(byte & 0x7F) << shift;
      if (byte < 0x80)
        return out;
    }
    fail("has a number of more than 64 bits");
  }
  std::string_view take(std::uint64_t n) {
    if (n > rest_.size())
      fail("ends in the middle of a field");
    const std::string_view out = rest_.substr(0, std::size_t(n));
    rest_.remove_prefix(std::size_t(n));
    return out;
  }
  [[noreturn]] void fail(std::string_view why) const {
    throw Error(Exit::input, concat(in_quotes(source_), " is no sentencepiece model: it ", why))
        .hint("fetch the file again");
  }

  std::string_view rest_, source_;
};

class Reader {
 public:
  explicit Reader(const TokenizerFile& file) : file_(file) {}

  SentencePieceRules read() {
    Message all(file_.bytes, file_.name);
    while (all.next()) {
      if (all.field == 1)
        piece(all.bytes);
      else if (all.field == 2)
        trainer(all.bytes);
      else if (all.field == 3)
        normalizer(all.bytes);
    }
    if (out_.pieces.empty()) {
      throw Error(Exit::input, concat(in_quotes(file_.name), " holds no pieces"))
          .hint("fetch the file again");
    }
    special();
    return std::move(out_);
  }

 private:
  void piece(std::string_view bytes) {
    ScoredPiece piece;
    Message m(bytes, file_.name);
    while (m.next()) {
      if (m.field == 1)
        piece.text = m.bytes;
      else if (m.field == 2)
        piece.score = m.real;
      else if (m.field == 3)
        piece.type = type_of(m.number);
    }
    out_.pieces.push_back(std::move(piece));
  }
  PieceType type_of(std::uint64_t number) const {
    if (number < 1 || number > 6) {
      throw Error(Exit::input,
                  concat(in_quotes(file_.name), " has a piece of the unknown type ", number))
          .hint("types are 1 (normal) to 6 (byte)");
    }
    return PieceType(number);
  }

  void trainer(std::string_view bytes) {
    Message m(bytes, file_.name);
    while (m.next()) {
      switch (m.field) {
        case 3:
          model_type(m.number);
          break;
        case 24:
          out_.blanks_behind = m.number != 0;
          break;
        case 35:
          out_.byte_fallback = m.number != 0;
          break;
        case 40:
          unknown_ = int(m.number);
          break;
        case 41:
          bos_ = int(m.number);
          break;
        case 42:
          eos_ = int(m.number);
          break;
        case 43:
          pad_ = int(m.number);
          break;
        case 44:
          out_.unknown_text = m.bytes;
          break;
        default:
          break;
      }
    }
  }
  void model_type(std::uint64_t type) {
    if (type != 1 && type != 2) {
      throw Error(Exit::input, concat(in_quotes(file_.name), " is a sentencepiece model of type ",
                                      type, ", which is not read"))
          .hint("what is read: 1 (unigram) and 2 (bpe)");
    }
    out_.unigram = type == 1;
  }

  void normalizer(std::string_view bytes) {
    Message m(bytes, file_.name);
    while (m.next()) {
      if (m.field == 2 && !m.bytes.empty())
        out_.charsmap = Charsmap(m.bytes, file_.name);
      else if (m.field == 3)
        out_.dummy_prefix = m.number != 0;
      else if (m.field == 4)
        out_.remove_extra_blanks = m.number != 0;
      else if (m.field == 5)
        out_.escape_blanks = m.number != 0;
    }
  }

  int known(int id) const {
    return id >= 0 && std::size_t(id) < out_.pieces.size() ? id : -1;
  }
  // A frame as the families have it: BOS in front where there is one, else EOS behind (T5), unless
  // tokenizer_config.json says otherwise.
  void special() {
    SpecialIds& s = out_.special;
    s = {.bos = control(bos_),
         .eos = control(eos_),
         .pad = control(pad_),
         .unknown = known(unknown_)};
    if (s.eos >= 0)
      s.ends = {s.eos};
    const bool t5 = out_.unigram && s.eos >= 0;
    out_.add_bos = s.bos >= 0 && file_.config.add_bos.value_or(!t5);
    out_.add_eos = s.eos >= 0 && file_.config.add_eos.value_or(t5);
    out_.id = file_.id;
    out_.config_json = file_.config.json;
  }
  int control(int id) const {
    return known(id) >= 0 && out_.pieces[std::size_t(id)].type == PieceType::control ? id : -1;
  }

  const TokenizerFile& file_;
  SentencePieceRules out_;
  int unknown_ = 0, bos_ = 1, eos_ = 2, pad_ = -1;
};

}  // namespace

SentencePieceRules sentencepiece_rules(const TokenizerFile& file) {
  return Reader(file).read();
}

std::unique_ptr<Tokenizer> read_sentencepiece(const TokenizerFile& file) {
  return make_sentencepiece(Reader(file).read(), file.name);
}

}  // namespace moe
