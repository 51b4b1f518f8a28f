// Text to ids and back. A tokenizer also says how it is written beside a checkpoint, in the two
// files that Hugging Face's `tokenizers` reads, so that a checkpoint of ours and the ids in a trace
// mean the same text to everybody.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/registry.h"
#include "lib/core/spec.h"

namespace moe {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string id() const = 0;  // "bytes"
  virtual int vocabulary() const = 0;  // padded size: rows of the embedding
  virtual int boundary() const = 0;    // id of the document boundary; no text encodes to it
  virtual std::vector<int> encode(std::string_view text) const = 0;
  // boundary and padding ids stand for no text
  virtual std::string decode(const std::vector<int>& ids) const = 0;
  // what each id looks like, valid UTF-8
  virtual std::vector<std::string> pieces() const = 0;
  virtual std::string tokenizer_json() const = 0;  // as `tokenizers` reads it
  virtual std::string tokenizer_config_json() const = 0;
};

using MakeTokenizer = std::unique_ptr<Tokenizer>(Spec&);
const Registry<MakeTokenizer>& tokenizers();
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec);  // throws Error(usage)

}  // namespace moe
