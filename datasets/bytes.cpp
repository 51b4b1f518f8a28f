// The tokenizer that cannot fail: id = byte, 256 = document boundary, padded to 320 rows (a
// multiple of 64 for the products). For Hugging Face it is a byte-level BPE without merges, its
// vocabulary written in GPT-2's printable alphabet for bytes.
#include <nlohmann/json.hpp>

#include "datasets/tokenizer.h"
#include "lib/core/error.h"
#include "lib/tokenizer/byte_letters.h"
#include "lib/tokenizer/decoder.h"

namespace moe {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kBoundary = 256, kRows = 320;
constexpr const char* kBoundaryText = "<|endoftext|>";

class Bytes final : public Tokenizer {
 public:
  std::string id() const override {
    return "bytes";
  }
  int vocabulary() const override {
    return kRows;
  }
  int boundary() const override {
    return kBoundary;
  }

  using Tokenizer::encode;
  // A byte has its place in the text whether it is whole or not.
  Encoded encode(std::string_view text, const EncodeOptions& options) const override {
    Encoded out;
    out.ids.resize(text.size());
    std::ranges::transform(text, out.ids.begin(),
                           [](char c) { return int(static_cast<unsigned char>(c)); });
    for (std::uint32_t at = 0; options.offsets && at < text.size(); ++at)
      out.at.push_back({at, at + 1});
    return out;
  }

  using Tokenizer::decode;
  std::string decode(const std::vector<int>& ids, bool) const override {
    std::string text;
    for (const int id : ids) {
      if (id < 0 || id >= kRows) {
        throw Error(Exit::input, concat("token id ", id,
                                        " is outside the vocabulary of the tokenizer bytes (0 to ",
                                        kRows - 1, ")"));
      }
      if (id < 256)
        text += char(id);
    }
    return text;
  }

  std::vector<std::string> pieces() const override {
    std::vector<std::string> out;
    for (int b = 0; b < 256; ++b) {
      const auto byte = static_cast<unsigned char>(b);
      out.push_back(b >= 0x20 && b < 0x7F ? std::string(1, char(b)) : byte_piece(byte));
    }
    out.push_back(kBoundaryText);
    while (int(out.size()) < kRows)
      out.push_back(concat("<|pad", out.size(), "|>"));
    return out;
  }

  SpecialIds special() const override {
    return {.bos = kBoundary, .eos = kBoundary, .ends = {kBoundary}};
  }

  std::string tokenizer_json() const override {
    Json vocabulary;
    for (int b = 0; b < 256; ++b)
      vocabulary[letters_of_bytes(std::string(1, char(b)))] = b;
    vocabulary[kBoundaryText] = kBoundary;
    // no text reaches them: BPE without merges
    for (int id = kBoundary + 1; id < kRows; ++id)
      vocabulary[concat("<|pad", id, "|>")] = id;
    const Json boundary = {{"id", kBoundary}, {"content", kBoundaryText}, {"single_word", false},
                           {"lstrip", false}, {"rstrip", false},          {"normalized", false},
                           {"special", true}};
    const Json level = {{"type", "ByteLevel"},
                        {"add_prefix_space", false},
                        {"trim_offsets", false},
                        {"use_regex", false}};
    const Json model = {{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", nullptr},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", false},
                        {"byte_fallback", false},
                        {"vocab", vocabulary},
                        {"merges", Json::array()}};
    const Json all = {{"version", "1.0"},
                      {"truncation", nullptr},
                      {"padding", nullptr},
                      {"added_tokens", Json::array({boundary})},
                      {"normalizer", nullptr},
                      {"pre_tokenizer", level},
                      {"post_processor", nullptr},
                      {"decoder", level},
                      {"model", model}};
    return all.dump(1) + "\n";
  }

  std::string tokenizer_config_json() const override {
    const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"bos_token", kBoundaryText},
                         {"eos_token", kBoundaryText},
                         // cleaning would change the text that comes back
                         {"clean_up_tokenization_spaces", false}};
    return config.dump(1) + "\n";
  }
};

}  // namespace

std::unique_ptr<Tokenizer> make_bytes_tokenizer(Spec&) {
  return std::make_unique<Bytes>();
}

}  // namespace moe
