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

Json digits_then_gpt2(std::string_view) {
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  return sequence(Json::array({digits, byte_level(true)}));
}

// Numbers by three, Chinese and Japanese runs, then the rest.
Json deepseek_v3(std::string_view known) {
  return sequence(
      Json::array({split(R"(\p{N}{1,3})"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                   split(known_pattern(known)), byte_level(false)}));
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
                         {"kimi-k2", pattern, "kimi"}};

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
