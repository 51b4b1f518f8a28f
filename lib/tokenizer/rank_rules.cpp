#include "lib/tokenizer/rank_rules.h"

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"
#include "lib/tokenizer/fields.h"
#include "lib/tokenizer/pattern.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

RankRules from_file(const fs::path& path) {
  const Json json = read_json(path);
  const Fields f(json, path.native(), "the file");
  RankRules out{.pattern = f.text("pattern"), .guard = f.flag("guard_25000", false)};
  if (!f.has("special_tokens"))
    return out;
  const Json& special = f.at("special_tokens");
  const Fields all(special, path.native(), "the list special_tokens");
  for (const auto& [text, id] : special.items())
    out.special.emplace_back(text, int(all.whole(text.c_str())));
  return out;
}

// The ids and texts of `added_tokens_decoder` in tokenizer_config.json.
void add_configured(const TokenizerConfig& config, RankRules& out) {
  if (config.json.empty())
    return;
  const Json json = parse_json(config.json, "tokenizer_config.json");
  const Fields f(json, "tokenizer_config.json", "the file");
  if (!f.has("added_tokens_decoder") || !f.at("added_tokens_decoder").is_object())
    return;
  for (const auto& [id, token] : f.at("added_tokens_decoder").items()) {
    if (id.empty() || id.size() > 8 || id.find_first_not_of("0123456789") != id.npos)
      throw f.error(concat("has the token id ", in_quotes(id), ", which is none"));
    const Fields t(token, "tokenizer_config.json", "an added token");
    out.special.emplace_back(t.text("content"), std::stoi(id));
  }
}

void add_extras(RankRules& out, int next) {
  for (int i = 0; i < 205; ++i)
    out.special.emplace_back(concat("<|extra_", i, "|>"), next++);
}

RankRules qwen(const TokenizerConfig&, int tokens) {
  RankRules out{.pattern = std::string(known_pattern("qwen2"))};
  for (const char* name : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"})
    out.special.emplace_back(name, tokens++);
  add_extras(out, tokens);
  return out;
}

RankRules hunyuan(const TokenizerConfig&, int tokens) {
  RankRules out{.pattern = std::string(known_pattern("qwen2"))};
  for (const char* name : {"<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"})
    out.special.emplace_back(name, tokens++);
  add_extras(out, tokens);
  return out;
}

RankRules kimi(const TokenizerConfig& config, int) {
  RankRules out{.pattern = std::string(known_pattern("kimi")), .guard = true};
  add_configured(config, out);
  return out;
}

struct Family {
  std::string_view tokenizer_class, model_type;
  RankRules (*rules)(const TokenizerConfig&, int tokens);
};

// Which published code goes with a folder: both names are those of its files.
constexpr Family kFamilies[] = {{"QWenTokenizer", "qwen", qwen},
                                {"HYTokenizer", "hunyuan", hunyuan},
                                {"HYTokenizer", "hunyuan_v1_moe", hunyuan},
                                {"TikTokenTokenizer", "kimi_k2", kimi},
                                {"TikTokenTokenizer", "kimi_k25", kimi},
                                {"TikTokenTokenizer", "kimi_vl", kimi}};

}  // namespace

RankRules rank_rules(const fs::path& file, const TokenizerConfig& config, int tokens) {
  const fs::path special = file.parent_path() / "special.json";
  if (fs::exists(special))
    return from_file(special);
  for (const Family& family : kFamilies) {
    if (config.tokenizer_class == family.tokenizer_class ||
        (config.tokenizer_class.empty() && config.model_type == family.model_type))
      return family.rules(config, tokens);
  }
  const std::string named =
      config.tokenizer_class.empty()
          ? "no tokenizer_config.json beside it names a class that we know"
          : concat("its class '", config.tokenizer_class, "' is not one that we know");
  throw Error(Exit::input, concat(in_quotes(file),
                                  " holds ranks but neither their pattern nor special "
                                  "tokens, and ",
                                  named))
      .hint(
          "use the folder's tokenizer.json, or put a special.json beside the file: {\"pattern\": "
          "\"...\", \"special_tokens\": {\"<|endoftext|>\": 100257}}");
}

}  // namespace moe
