// The list of tokenizers, from tokenizers.def: a new one is a file here and a line there.
#include "datasets/tokenizer.h"

namespace moe {

#define TOKENIZER(name, about, examples) MakeTokenizer make_##name##_tokenizer;
#include "datasets/tokenizers.def"
#undef TOKENIZER

const Registry<MakeTokenizer>& tokenizers() {
  static const Registry<MakeTokenizer> all("tokenizer", {
#define TOKENIZER(name, about, examples) {#name, about, examples, make_##name##_tokenizer},
#include "datasets/tokenizers.def"
#undef TOKENIZER
                                                        });
  return all;
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& text) {
  Spec spec(text);
  auto made = tokenizers().at(spec.name()).make(spec);
  spec.done();
  return made;
}

}  // namespace moe
