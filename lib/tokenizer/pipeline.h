// The stages of a tokenizer.json in their order: added tokens, normalizer, added tokens of the
// normalized text, pre-tokenizer, model, post-processor; and back through the decoder. Files of
// ranks are the same stages with others filled in.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "lib/tokenizer/added_tokens.h"
#include "lib/tokenizer/decoder.h"
#include "lib/tokenizer/model.h"
#include "lib/tokenizer/post_processor.h"
#include "lib/tokenizer/pre_tokenizer.h"
#include "lib/tokenizer/tokenizer.h"
#include "lib/tokenizer/work_pool.h"

namespace moe {

// What a reader fills in.
struct Stages {
  std::string id;  // name and hash
  Vocabulary vocabulary;
  std::unique_ptr<Normalizer> normalizer;
  AddedTokens added;
  PreTokenizerPlan pre;
  std::unique_ptr<Model> model;
  PostProcessor post;
  std::unique_ptr<TokenDecoder> decoder;
  bool decodes_bytes = false;  // texts of the vocabulary are bytes: joined, then made valid UTF-8
  SpecialIds special;
  // What the text of special tokens becomes where nothing is said, in a bare text and in a framed
  // one; files of ranks differ in the two.
  SpecialText bare = SpecialText::ids, framed = SpecialText::ids;
  // Cuts a text before everything else (Kimi's guard); spans that together are the text.
  std::function<Spans(std::string_view)> guard;
  std::string json, config_json;  // the files as they were read
};

class Pipeline final : public Tokenizer {
 public:
  // `stages` on the heap: its model points into its vocabulary
  explicit Pipeline(std::unique_ptr<Stages> stages);

  std::string id() const override {
    return stages_->id;
  }
  int vocabulary() const override;
  int boundary() const override;
  using Tokenizer::encode;
  Encoded encode(std::string_view text, const EncodeOptions&) const override;
  using Tokenizer::decode;
  std::string decode(const std::vector<int>& ids, bool skip_special) const override;
  std::vector<std::string> pieces() const override;
  SpecialIds special() const override {
    return stages_->special;
  }
  bool is_special(int id) const override {
    const AddedToken* added = stages_->added.find(id);
    return added && added->special;
  }
  std::string tokenizer_json() const override {
    return stages_->json;
  }
  std::string tokenizer_config_json() const override {
    return stages_->config_json;
  }

 private:
  class Encoder;
  std::string decode_bytes(const std::vector<int>& ids, bool skip_special) const;

  std::unique_ptr<Stages> stages_;
  mutable WorkPool<ModelWork> pool_;
};

// The text to encode: valid UTF-8 as it is, or made whole in `storage`. Throws Error(input) for one
// of 1 GiB or more.
std::string_view text_to_encode(std::string_view text, std::string& storage);

}  // namespace moe
