// Tokenizers in GGUF files, beside the same ones in their own files.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/tokenizer/byte_letters.h"
#include "lib/tokenizer/charsmap.h"
#include "lib/tokenizer/open.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/utf8.h"
#include "tests/files/scratch.h"
#include "tests/gguf_bytes.h"

using namespace moe;
using moe::test::Scratch;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

std::string ints(const std::vector<std::int32_t>& all) {
  std::string out = test::raw(std::uint32_t(5)) + test::raw(std::uint64_t(all.size()));
  for (const std::int32_t n : all)
    out += test::raw(n);
  return out;
}

std::string floats(const std::vector<float>& all) {
  std::string out = test::raw(std::uint32_t(6)) + test::raw(std::uint64_t(all.size()));
  for (const float x : all)
    out += test::raw(x);
  return out;
}

fs::path write(const std::string& name, const std::string& bytes) {
  static const Scratch folder;  // of this process
  folder.put(name, bytes);
  return folder / name;
}

// Letters of all bytes, two merges, and a control token behind them.
struct Pairs {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  std::vector<std::string> merges = {"a b", "ab c"};

  Pairs() {
    for (int b = 0; b < 256; ++b)
      tokens.push_back(letters_of_bytes(std::string(1, char(b))));
    tokens.insert(tokens.end(), {"ab", "abc", "<|end|>"});
    types.assign(tokens.size(), 1);
    types.back() = 3;
  }
  test::GgufBytes gguf(const std::string& pre) const {
    test::GgufBytes out;
    out.text("tokenizer.ggml.model", "gpt2");
    out.text("tokenizer.ggml.pre", pre);
    out.texts("tokenizer.ggml.tokens", tokens);
    out.key("tokenizer.ggml.token_type", 9, ints(types));
    out.texts("tokenizer.ggml.merges", merges);
    out.u32("tokenizer.ggml.bos_token_id", std::uint32_t(tokens.size() - 1));
    out.u32("tokenizer.ggml.eos_token_id", std::uint32_t(tokens.size() - 1));
    return out;
  }
  std::string file(const std::string& pattern) const {
    json vocabulary;
    for (std::size_t id = 0; id + 1 < tokens.size(); ++id)
      vocabulary[tokens[id]] = id;
    const json split = {
        {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
    const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    const json end = {{"id", 258}, {"content", "<|end|>"}, {"special", true}};
    return json{
        {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}},
        {"added_tokens", json::array({end})},
        {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", json::array({split, bytes})}}},
        {"decoder", {{"type", "ByteLevel"}}}}
        .dump();
  }
};

test::GgufBytes scored() {
  test::GgufBytes out;
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<std::int32_t> types = {2, 3, 3};
  std::vector<float> scores(3, 0.0f);
  for (int b = 0; b < 256; ++b) {
    constexpr const char* hex = "0123456789ABCDEF";
    tokens.push_back(std::string("<0x") + hex[b / 16] + hex[b % 16] + ">");
    types.push_back(6);
    scores.push_back(0.0f);
  }
  for (const char* piece : {"\u2581", "a", "b", "ab", "\u2581ab"}) {
    tokens.emplace_back(piece);
    types.push_back(1);
    scores.push_back(-float(tokens.size()));
  }
  out.text("tokenizer.ggml.model", "llama");
  out.texts("tokenizer.ggml.tokens", tokens);
  out.key("tokenizer.ggml.token_type", 9, ints(types));
  out.key("tokenizer.ggml.scores", 9, floats(scores));
  return out;
}

}  // namespace

TEST_CASE("byte pairs of a GGUF file are those of the same tokenizer.json") {
  const Pairs pairs;
  for (const auto& [pre, pattern] :
       {std::pair("qwen2", "qwen2"), {"dbrx", "llama3"}, {"gpt-4o", "o200k"}, {"olmo", "gpt2"}}) {
    INFO(pre);
    const auto gguf = open_tokenizer(write("pairs.gguf", pairs.gguf(pre).bytes()));
    const std::string own = pairs.file(std::string(known_pattern(pattern)));
    const auto other = open_tokenizer(write("pairs.json", own));
    const std::string text = "abc abcab 12345 it's\n\n <|end|>abc \u00e9\u4e2d";
    CHECK(gguf->encode(text) == other->encode(text));
    CHECK(gguf->decode(gguf->encode(text)) == text);
    CHECK(gguf->vocabulary() == 259);
    CHECK(gguf->special().eos == 258);
  }
}

TEST_CASE("each name of a split cuts where it says") {
  // Every text could be joined to one token; its cuts keep so many apart.
  struct Cut {
    const char* text;
    std::vector<std::pair<const char*, std::size_t>> tokens;  // by name of the split
  };
  const Cut cuts[] = {
      {"12",
       {{"gpt-2", 1},
        {"deepseek-llm", 2},
        {"deepseek-coder", 2},
        {"seed-coder", 2},
        {"bloom", 1},
        {"viking", 2},
        {"falcon", 1},
        {"minerva-7b", 2}}},
      {" ab", {{"gpt-2", 1}, {"deepseek-llm", 1}, {"deepseek-coder", 1}, {"bloom", 1}}},
      {"ab,", {{"deepseek-llm", 2}, {"deepseek-coder", 2}, {"bloom", 2}, {"falcon", 2}}},
      {"ab+", {{"gpt-2", 2}, {"bloom", 1}, {"viking", 1}, {"deepseek-llm", 2}}},
      {"'s", {{"gpt-2", 1}, {"deepseek-llm", 2}, {"falcon", 2}, {"seed-coder", 1}}},
      {",\n",
       {{"qwen2", 1},
        {"seed-coder", 2},
        {"deepseek-llm", 2},
        {"deepseek-v3", 1},
        {"joyai-llm", 1}}},
      {"1234", {{"falcon", 2}, {"gpt-2", 1}, {"falcon-h1", 2}}},
      {"\u4e2d\u00e9", {{"deepseek-llm", 2}, {"deepseek-coder", 2}, {"gpt-2", 1}}}};
  for (const Cut& cut : cuts) {
    Pairs pairs;
    pairs.merges.clear();
    pairs.tokens.resize(256);
    pairs.types.resize(256);
    const std::string letters = letters_of_bytes(cut.text);
    std::string joined;
    for (const char32_t c : code_points(letters)) {  // one merge after another, from the left
      const std::string letter = utf8_of(std::u32string(1, c));
      if (!joined.empty())
        pairs.merges.push_back(joined + " " + letter);
      joined += letter;
      if (joined.size() > letter.size())
        pairs.tokens.push_back(joined);
    }
    pairs.types.resize(pairs.tokens.size(), 1);
    for (const auto& [pre, count] : cut.tokens) {
      INFO(pre << " cuts " << cut.text);
      const auto ids =
          open_tokenizer(write("cuts.gguf", pairs.gguf(pre).bytes()))->encode(cut.text);
      CHECK((ids.size() == 1) == (count == 1));
    }
  }
}

TEST_CASE("a table of rewritten characters is written as it was read") {
  const std::string bytes =
      test::raw(std::uint32_t(8)) + "index of a tree" + std::string("a\0bc\0", 5);
  CHECK(Charsmap(bytes, "here").bytes() == bytes);
  CHECK(Charsmap().bytes().empty());
}

TEST_CASE("add_bos_token of a GGUF file puts BOS before a document") {
  const Pairs pairs;
  const auto plain = open_tokenizer(write("plain.gguf", pairs.gguf("qwen2").bytes()));
  CHECK(plain->encode("abc", {.frame = true}).ids == std::vector{257});
  test::GgufBytes gguf = pairs.gguf("qwen2");
  gguf.key("tokenizer.ggml.add_bos_token", 7, std::string(1, '\1'));
  const auto framed = open_tokenizer(write("framed.gguf", gguf.bytes()));
  CHECK(framed->encode("abc", {.frame = true}).ids == std::vector{258, 257});
}

TEST_CASE("scored pieces of a GGUF file: blank in front, bytes for the unknown") {
  const auto plain = open_tokenizer(write("scored.gguf", scored().bytes()));
  CHECK(plain->encode("ab ab") == std::vector{263, 263});
  CHECK(plain->encode("abz") == std::vector{263, 3 + 'z'});
  CHECK(plain->encode("ab", {.frame = true}).ids == std::vector{1, 263});
  test::GgufBytes bare = scored();
  bare.key("tokenizer.ggml.add_space_prefix", 7, std::string(1, '\0'));
  const auto unprefixed = open_tokenizer(write("bare.gguf", bare.bytes()));
  CHECK(unprefixed->encode("ab ab") == std::vector{262, 263});
}

TEST_CASE("GGUF tokenizers that cannot be read are refused by name") {
  const Pairs pairs;
  const auto refused = [](const test::GgufBytes& gguf, const std::string& why) {
    const fs::path path = write("refused.gguf", gguf.bytes());
    CHECK_THROWS_WITH(open_tokenizer(path), Catch::Contains(why));
  };
  refused(pairs.gguf("unheard-of"), "unheard-of");
  Pairs twice;
  twice.tokens[257] = "ab";
  refused(twice.gguf("qwen2"), "twice");
  Pairs types;
  types.types.pop_back();
  refused(types.gguf("qwen2"), "token_type");
  Pairs merges;
  merges.merges = {"ab"};
  refused(merges.gguf("qwen2"), "no pair");
  test::GgufBytes other;
  other.text("tokenizer.ggml.model", "rwkv");
  other.texts("tokenizer.ggml.tokens", {"a"});
  refused(other, "rwkv");
  test::GgufBytes none;
  none.u32("general.alignment", 32);
  refused(none, "holds no tokenizer");
  CHECK(tokenizer_file(write("none.gguf", none.bytes())).empty());
}
