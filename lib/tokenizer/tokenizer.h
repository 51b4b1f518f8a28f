// Text to ids and back. What a tokenizer does is built from its file (tokenizer.json, sentencepiece
// model, ranks, tekken.json, GGUF metadata), never from a model's name; open.h opens them. A
// tokenizer is constant: many threads may use one.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/tokenizer/aligned.h"

namespace moe {

// Ids that the files beside a tokenizer name; -1 = none.
struct SpecialIds {
  int bos = -1, eos = -1, pad = -1, unknown = -1;
  std::vector<int> ends;  // all ids that end a text, eos among them
};

// What the text of a special token, written in a document, becomes. `own`: what the library that
// reads such files does unless it is told otherwise.
enum class SpecialText { own, text, ids };

struct EncodeOptions {
  bool frame = false;    // with what the file puts around a document (BOS, EOS, [CLS] ... [SEP])
  bool offsets = false;  // fill Encoded::at
  SpecialText special = SpecialText::own;
};

struct Encoded {
  std::vector<int> ids;
  // Bytes of the text that each id stands for, whole characters; where the text is broken UTF-8, of
  // whole_text(text). Empty ranges for what the frame added.
  std::vector<ByteRange> at;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string id() const = 0;  // "bytes"; of a file its name and the hash of its bytes
  virtual int vocabulary() const = 0;  // padded size: rows of the embedding; ids are below it
  virtual int boundary() const = 0;    // id of the document boundary; -1 = none
  // Broken UTF-8 is made whole first (utf8.h). Throws Error(input) for a text of 1 GiB or more.
  virtual Encoded encode(std::string_view text, const EncodeOptions&) const = 0;
  std::vector<int> encode(std::string_view text) const {
    return encode(text, EncodeOptions{}).ids;
  }
  // Ids without a text give nothing; with `skip_special` special tokens neither. Valid UTF-8,
  // except that the tokenizer `bytes` gives back what it was given.
  virtual std::string decode(const std::vector<int>& ids, bool skip_special) const = 0;
  std::string decode(const std::vector<int>& ids) const {
    return decode(ids, false);
  }
  // what each id looks like, valid UTF-8
  virtual std::vector<std::string> pieces() const = 0;
  virtual SpecialIds special() const = 0;
  // Whether decode() with skip_special leaves it out: it stands for no text.
  virtual bool is_special(int) const {
    return false;
  }
  virtual std::string tokenizer_json() const = 0;  // as `tokenizers` reads it; "" = no such file
  virtual std::string tokenizer_config_json() const = 0;
};

// What stands before a text that a model reads from its beginning: BOS, where the file puts it
// before every document; else the boundary between documents, where there is one.
std::vector<int> document_opening(const Tokenizer&);

}  // namespace moe
