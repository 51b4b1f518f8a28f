// Damaged tokenizer files of every kind: each is read or refused in a sentence, and what is read
// takes any text; no crash and no hang. MOE_MUTANTS=20000 tries that many of each kind (a few
// hundred otherwise).
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lib/core/rng.h"
#include "lib/tokenizer/byte_letters.h"
#include "lib/tokenizer/open.h"
#include "lib/tokenizer/pattern.h"
#include "tests/files/scratch.h"
#include "tests/gguf_bytes.h"
#include "tests/sentencepiece_bytes.h"
#include "tests/skip.h"

using namespace moe;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

Index mutants() {
  const char* asked = std::getenv("MOE_MUTANTS");
  return asked ? std::max(1, std::atoi(asked)) : 250;
}

const std::vector<std::string> kTexts = {"",
                                         "Hello, World! 12345",
                                         "  a\r\n\tb ",
                                         "床前明月光\xFF",
                                         "<s>é\xCC\x81<|end|></s>",
                                         std::string(3000, 'a')};

// Opens a file and uses it; "" where it is good, else what was refused.
std::string tried(const fs::path& path) {
  return test::refusal([&] {
    const auto tokenizer = open_tokenizer(path);
    for (const std::string& text : kTexts) {
      const Encoded ids = tokenizer->encode(text, {.frame = true, .offsets = true});
      tokenizer->decode(ids.ids);
    }
    tokenizer->pieces();
  });
}

std::string damaged(std::string bytes, Rng& rng) {
  for (Index changes = 1 + rng.below(3); changes > 0 && !bytes.empty(); --changes)
    bytes[std::size_t(rng.below(Index(bytes.size())))] = char(rng.below(256));
  if (rng.below(4) == 0)
    bytes.resize(std::size_t(rng.below(Index(bytes.size()) + 1)));
  if (rng.below(4) == 0 && bytes.size() > 8) {  // a stretch is there twice
    const auto at = std::size_t(rng.below(Index(bytes.size()) - 8));
    bytes.insert(at, bytes.substr(at, std::size_t(1 + rng.below(8))));
  }
  return bytes;
}

// Any value of a tree, each as likely as its neighbours.
json& any_value(json& tree, Rng& rng) {
  json* at = &tree;
  while (at->is_structured() && !at->empty() && rng.below(4) != 0) {
    auto child = at->begin();
    std::advance(child, rng.below(Index(at->size())));
    at = &*child;
  }
  return *at;
}

json other_value(Rng& rng, const json& tree) {
  static const std::vector<json> values = {nullptr,
                                           true,
                                           -1,
                                           0,
                                           1e300,
                                           4294967296,
                                           "",
                                           "x",
                                           "\xE2\x96\x81",
                                           "(?=",
                                           "[^a-",
                                           "a{99999}",
                                           json::array(),
                                           json::object(),
                                           json::array({1, "a"}),
                                           json::array({json::array({"a", -1.5})})};
  if (rng.below(3) > 0)
    return values[std::size_t(rng.below(Index(values.size())))];
  json copy = tree;
  return any_value(copy, rng);
}

void try_bytes(const std::string& name, const std::string& seed) {
  const test::Scratch folder;
  folder.put(name, seed);
  REQUIRE(tried(folder / name) == "");
  Rng rng(Rng(11).stream(seed.size()));
  Index refused = 0;
  for (Index i = 0; i < mutants(); ++i) {
    const std::string bytes = damaged(seed, rng);
    folder.put(name, bytes);
    const std::string said = tried(folder / name);
    INFO(said);
    CHECK(said.find('\n') == said.npos);
    refused += !said.empty();
  }
  CHECK(refused > 0);
}

void try_values(const json& seed) {
  const test::Scratch folder;
  folder.put("tokenizer.json", seed.dump());
  REQUIRE(tried(folder / "tokenizer.json") == "");
  Rng rng(Rng(12).stream(seed.size()));
  Index refused = 0;
  for (Index i = 0; i < mutants(); ++i) {
    json mutant = seed;
    any_value(mutant, rng) = other_value(rng, seed);
    folder.put("tokenizer.json", mutant.dump());
    const std::string said = tried(folder / "tokenizer.json");
    INFO(mutant.dump().substr(0, 300) << "\n" << said);
    CHECK(said.find('\n') == said.npos);
    refused += !said.empty();
  }
  CHECK(refused > 0);
}

json added(int id, const char* text) {
  return {{"id", id},        {"content", text},    {"single_word", false}, {"lstrip", true},
          {"rstrip", false}, {"normalized", true}, {"special", true}};
}

json byte_pairs() {
  json vocabulary;
  for (int b = 0; b < 256; ++b)
    vocabulary[letters_of_bytes(std::string(1, char(b)))] = b;
  vocabulary["He"] = 256;
  vocabulary["Hel"] = 257;
  return {{"type", "BPE"},
          {"vocab", vocabulary},
          {"merges", json::array({"H e", json::array({"He", "l"})})}};
}

json byte_level() {
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", "\\p{L}{1,4}(?!x)|\\s+|[^a-z\\s]+"}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const json normalizers =
      json::array({{{"type", "NFKC"}},
                   {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "b"}},
                   {{"type", "Lowercase"}}});
  return {{"version", "1.0"},
          {"added_tokens", json::array({added(258, "<|end|>")})},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", normalizers}}},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", json::array({split, level})}}},
          {"post_processor", {{"type", "ByteLevel"}, {"trim_offsets", true}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", byte_pairs()}};
}

json unigram() {
  json vocab = json::array();
  double score = 0;
  for (const char* text : {"<unk>", "\xE2\x96\x81", "a", "b", "ab", "<0x0A>", "</s>"})
    vocab.push_back(json::array({text, score -= 0.5}));
  const json space = {
      {"type", "Metaspace"}, {"replacement", "\xE2\x96\x81"}, {"prepend_scheme", "always"}};
  const json single = json::array({{{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
                                   {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}}});
  const json end = {{"id", "</s>"}, {"ids", json::array({6})}, {"tokens", json::array({"</s>"})}};
  return {{"added_tokens", json::array({added(6, "</s>")})},
          {"normalizer", {{"type", "NFKC"}}},
          {"pre_tokenizer", space},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single", single},
            {"pair", single},
            {"special_tokens", {{"</s>", end}}}}},
          {"decoder", space},
          {"model", {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", vocab}}}};
}

json word_piece() {
  return {{"added_tokens", json::array({added(0, "[UNK]")})},
          {"normalizer",
           {{"type", "BertNormalizer"},
            {"clean_text", true},
            {"handle_chinese_chars", true},
            {"strip_accents", nullptr},
            {"lowercase", true}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", "[UNK]"},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", {{"[UNK]", 0}, {"hello", 1}, {"##lo", 2}, {"hel", 3}, {"a", 4}}}}}};
}

std::string sentencepiece(int model_type) {
  std::string out = test::scored_piece("<unk>", 0, 2) + test::scored_piece("<s>", 0, 3) +
                    test::scored_piece("</s>", 0, 3) + test::scored_piece("user", 0, 4) +
                    test::scored_piece("\xE2\x96\x81", -1, 1);
  for (const char c : std::string("Helowrd,!12345"))
    out += test::scored_piece(std::string(1, c), -5, 1);
  out += test::scored_piece("He", -2, 1) + test::scored_piece("ll", -2.5f, 1) +
         test::scored_piece("Hell", -2.75f, 5);
  return out + test::field(2, test::varint(3, model_type)) +
         test::field(3, test::varint(3, 1) + test::varint(4, 1) + test::varint(5, 1));
}

std::string to_base64(const std::string& bytes) {
  const char* letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  std::uint32_t bits = 0;
  int have = 0;
  const auto put = [&] {
    have -= 6;
    out += letters[bits >> have & 63];
  };
  for (const char c : bytes) {
    bits = bits << 8 | static_cast<unsigned char>(c);
    have += 8;
    while (have >= 6)
      put();
  }
  bits <<= 6;
  have += 6;
  if (have > 6)
    put();
  while (out.size() % 4 != 0)
    out += '=';
  return out;
}

std::string ranks() {
  std::string out;
  int rank = 0;
  for (int b = 0; b < 256; ++b)
    out += to_base64(std::string(1, char(b))) + " " + std::to_string(rank++) + "\n";
  for (const char* token : {"He", "ll", "Hell", "aa", "aaaa"})
    out += to_base64(token) + " " + std::to_string(rank++) + "\n";
  return out;
}

std::string gguf() {
  std::vector<std::string> tokens;
  for (int b = 0; b < 256; ++b)
    tokens.push_back(letters_of_bytes(std::string(1, char(b))));
  tokens.insert(tokens.end(), {"He", "Hel", "<|end|>"});
  std::string types = test::raw(std::uint32_t(5)) + test::raw(std::uint64_t(tokens.size()));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    types += test::raw(std::int32_t(i + 1 == tokens.size() ? 3 : 1));
  test::GgufBytes out;
  out.text("tokenizer.ggml.model", "gpt2");
  out.text("tokenizer.ggml.pre", "qwen2");
  out.texts("tokenizer.ggml.tokens", tokens);
  out.key("tokenizer.ggml.token_type", 9, types);
  out.texts("tokenizer.ggml.merges", {"H e", "He l"});
  out.u32("tokenizer.ggml.eos_token_id", 258);
  return out.bytes();
}

}  // namespace

TEST_CASE("mutants of a byte-level tokenizer.json") {
  try_values(byte_level());
  try_bytes("tokenizer.json", byte_level().dump());
}
TEST_CASE("mutants of a Unigram tokenizer.json") {
  try_values(unigram());
  try_bytes("tokenizer.json", unigram().dump());
}
TEST_CASE("mutants of a WordPiece tokenizer.json") {
  try_values(word_piece());
  try_bytes("tokenizer.json", word_piece().dump());
}
TEST_CASE("mutants of sentencepiece models") {
  try_bytes("tokenizer.model", sentencepiece(1));
  try_bytes("tokenizer.model", sentencepiece(2));
}
TEST_CASE("mutants of files of ranks") {
  const test::Scratch folder;
  folder.put("special.json", json({{"pattern", std::string(known_pattern("qwen2"))},
                                   {"special_tokens", {{"<|end|>", 261}}}})
                                 .dump());
  folder.put("a.tiktoken", ranks());
  REQUIRE(tried(folder / "a.tiktoken") == "");
  Rng rng(13);
  for (Index i = 0; i < mutants(); ++i) {
    folder.put("a.tiktoken", damaged(ranks(), rng));
    const std::string said = tried(folder / "a.tiktoken");
    CHECK(said.find('\n') == said.npos);
  }
}
TEST_CASE("mutants of the tokenizers of GGUF files") {
  try_bytes("x.gguf", gguf());
}

TEST_CASE("mutants of the recorded tokenizer.json files") {
  const auto golden = test::shared("golden/tokenizers");
  if (!fs::exists(golden))
    return test::skip("no recorded tokenizers at " + golden.string());
  const test::Scratch folder;
  Rng rng(14);
  for (const auto& kind : fs::directory_iterator(golden)) {
    std::ifstream in(kind.path() / "tokenizer.json");
    if (!in)
      continue;
    const json seed = json::parse(in);
    for (Index i = 0; i < std::max<Index>(mutants() / 50, 1); ++i) {
      json mutant = seed;
      any_value(mutant, rng) = other_value(rng, seed);
      folder.put("tokenizer.json", mutant.dump());
      const std::string said = tried(folder / "tokenizer.json");
      CHECK(said.find('\n') == said.npos);
    }
  }
}
