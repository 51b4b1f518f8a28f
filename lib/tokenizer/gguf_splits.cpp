// The table of splits. Names that share a split are separate rows: what else they say differs. A
// name whose split is not one of ours is refused, since a wrong split gives wrong ids silently.
#include "lib/tokenizer/gguf_splits.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/tokenizer/pattern.h"

namespace moe {
namespace {

using Json = nlohmann::json;

Json byte_level(bool split) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", split}};
}

Json split(std::string_view expression) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", expression}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json sequence(Json steps) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

Json gpt2(std::string_view) {
  return byte_level(true);
}

// One of the known patterns.
Json pattern(std::string_view known) {
  return sequence(Json::array({split(known_pattern(known)), byte_level(false)}));
}

Json single_digits() {
  return {{"type", "Digits"}, {"individual_digits", true}};
}

Json digits_then_gpt2(std::string_view) {
  return sequence(Json::array({single_digits(), byte_level(true)}));
}

// Numbers by three, Chinese and Japanese runs, then the rest.
Json deepseek_v3(std::string_view known) {
  return sequence(
      Json::array({split(R"(\p{N}{1,3})"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                   split(known_pattern(known)), byte_level(false)}));
}

// The letters that have a case, as the published tokenizer.json of DeepSeek's first models lists
// them.
constexpr std::string_view kCasedLetters =
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293"
    "\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c"
    "\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5"
    "\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59"
    "\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc"
    "\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107"
    "\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee"
    "\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e"
    "\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943";

// Lines, words, signs and runs of Chinese, Japanese or Korean, each split off with one blank before
// it; then digit by digit.
Json deepseek(const std::string& words, const std::string& signs, bool blanks_at_end) {
  Json steps = Json::array({split("[\r\n]"), split(words), split(signs)});
  if (blanks_at_end)
    steps.push_back(split("\\s+$"));
  steps.push_back(split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"));
  steps.push_back(single_digits());
  steps.push_back(byte_level(false));
  return sequence(std::move(steps));
}

Json deepseek_llm(std::string_view) {
  return deepseek(concat("\\s?[", kCasedLetters, "]+"),
                  "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", true);
}

Json deepseek_coder(std::string_view) {
  return deepseek("\\s?\\p{L}+", "\\s?\\p{P}+", false);
}

// Everything but blanks and marks that end a clause.
constexpr std::string_view kClause = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+";

Json clauses(std::string_view) {
  return sequence(Json::array({split(kClause), byte_level(false)}));
}

Json clauses_and_digits(std::string_view) {
  return sequence(Json::array({split(kClause), single_digits(), byte_level(false)}));
}

// Runs of signs, then as GPT-2, then numbers by three from the left.
Json falcon(std::string_view) {
  return sequence(Json::array({split("[\\p{P}\\$\\+<=>\\^~\\|`]+"), split(known_pattern("gpt2")),
                               split("[0-9][0-9][0-9]"), byte_level(false)}));
}

// As Llama 3, with single digits, and signs without the line end behind them.
Json seed_coder(std::string_view) {
  return sequence(
      Json::array({split(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                         R"( ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)"),
                   byte_level(false)}));
}

struct Row {
  std::string_view name;
  Json (*make)(std::string_view known);
  std::string_view known;
  GgufSplit more = {};
};

constexpr GgufSplit kLlama = {.whole_first = true, .add_bos = true};
constexpr GgufSplit kWhole = {.whole_first = true, .add_bos = false};

constexpr Row kRows[] = {{"gpt-2", gpt2, ""},
                         {"olmo", gpt2, ""},
                         {"mpt", gpt2, ""},
                         {"phi-2", gpt2, ""},
                         {"exaone4", gpt2, ""},
                         {"llama-bpe", pattern, "llama3", kLlama},
                         {"llama3", pattern, "llama3", kLlama},
                         {"llama-v3", pattern, "llama3", kLlama},
                         {"falcon3", pattern, "llama3", kLlama},
                         {"lfm2", pattern, "llama3", kLlama},
                         {"dbrx", pattern, "llama3"},
                         {"smaug-bpe", pattern, "llama3"},
                         {"chatglm-bpe", pattern, "llama3"},
                         {"glm4", pattern, "llama3", kWhole},
                         {"glm5", pattern, "llama3", kWhole},
                         {"qwen2", pattern, "qwen2"},
                         {"hunyuan", pattern, "qwen2"},
                         {"megrez", pattern, "qwen2"},
                         {"grok-2", pattern, "qwen2"},
                         {"solar-open", pattern, "qwen2"},
                         {"stablelm2", pattern, "qwen2"},
                         {"qwen35", pattern, "qwen35"},
                         {"deepseek-v3", deepseek_v3, "deepseek-v3"},
                         {"hunyuan-dense", deepseek_v3, "deepseek-v3"},
                         {"gpt-4o", pattern, "o200k"},
                         {"llama4", pattern, "o200k"},
                         {"minimax-m2", pattern, "o200k"},
                         {"kanana2", pattern, "o200k"},
                         {"tekken", pattern, "tekken", kLlama},
                         {"starcoder", digits_then_gpt2, ""},
                         {"refact", digits_then_gpt2, ""},
                         {"command-r", digits_then_gpt2, ""},
                         {"smollm", digits_then_gpt2, ""},
                         {"codeshell", digits_then_gpt2, ""},
                         {"exaone", digits_then_gpt2, ""},
                         {"bailingmoe", pattern, "bailing"},
                         {"bailingmoe2", pattern, "bailing"},
                         {"llada-moe", pattern, "bailing"},
                         {"kimi-k2", pattern, "kimi"},
                         {"deepseek-llm", deepseek_llm, ""},
                         {"deepseek-coder", deepseek_coder, ""},
                         {"joyai-llm", deepseek_v3, "deepseek-v3"},
                         {"deepseek-r1-qwen", pattern, "qwen2"},
                         {"kormo", pattern, "qwen2"},
                         {"falcon-h1", pattern, "llama3", kLlama},
                         {"midm-2.0", pattern, "llama3", kLlama},
                         {"jais", gpt2, ""},
                         {"trillion", gpt2, ""},
                         {"granite-docling", gpt2, ""},
                         {"gigachat", gpt2, ""},
                         {"a.x-4.0", gpt2, ""},
                         {"mellum", gpt2, ""},
                         {"minerva-7b", digits_then_gpt2, ""},
                         {"seed-coder", seed_coder, ""},
                         {"falcon", falcon, ""},
                         {"bloom", clauses, ""},
                         {"poro-chat", clauses, ""},
                         {"gpt3-finnish", clauses, ""},
                         {"viking", clauses_and_digits, ""}};

}  // namespace

Json gguf_pre_tokenizer(std::string_view name, std::string_view source, GgufSplit& more) {
  const auto* row = std::ranges::find(kRows, name, &Row::name);
  if (row == std::end(kRows)) {
    std::vector<std::string> known;
    for (const Row& each : kRows)
      known.emplace_back(each.name);
    throw Error(Exit::input, concat(in_quotes(source), ": the split ", in_quotes(name),
                                    " of tokenizer.ggml.pre is not known"))
        .hint("known: " + join(known));
  }
  more = row->more;
  return row->make(row->known);
}

namespace {

// What a pre-tokenizer does, step by step, in one text: two that cut alike have the same.
std::string steps_of(const Json& pre) {
  const std::string type = pre.is_object() ? pre.value("type", "") : "";
  if (type == "Sequence") {
    std::string out;
    for (const Json& step : pre.value("pretokenizers", Json::array()))
      out += steps_of(step);
    return out;
  }
  if (type == "Split" && pre.contains("pattern")) {
    const Json& p = pre.at("pattern");
    return concat("split ", p.value("Regex", p.value("String", "")), " ", pre.value("behavior", ""),
                  pre.value("invert", false) ? " inverted" : "", "\n");
  }
  if (type == "Digits")
    return concat("digits ", pre.value("individual_digits", false), "\n");
  if (type != "ByteLevel")
    return concat("?", type, "\n");
  const std::string own =
      pre.value("use_regex", true) ? steps_of(split(known_pattern("gpt2"))) : std::string();
  return concat(own, "bytes", pre.value("add_prefix_space", true) ? " after a blank" : "", "\n");
}

}  // namespace

std::string gguf_split_name(const Json& pre_tokenizer, bool whole_first) {
  const std::string wanted = steps_of(pre_tokenizer);
  for (const Row& row : kRows) {
    if (row.more.whole_first == whole_first && steps_of(row.make(row.known)) == wanted)
      return std::string(row.name);
  }
  return "";
}

}  // namespace moe
