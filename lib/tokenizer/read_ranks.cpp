// Files of ranks: tiktoken's lines "base64 rank", and Mistral's tekken.json. Two neighbours merge
// where their bytes together are a token, the lowest rank first; a piece that is a token is taken
// at once. As a table of pairs: every cut of every token into two tokens.
#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"
#include "lib/tokenizer/base64.h"
#include "lib/tokenizer/fields.h"
#include "lib/tokenizer/pipeline.h"
#include "lib/tokenizer/read.h"
#include "lib/tokenizer/unicode.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

using Json = nlohmann::json;

struct RankedToken {
  std::string bytes;
  std::int64_t rank;
};

// The model over tokens whose ids are rank + `first`.
void add_model(const std::vector<RankedToken>& tokens, std::int64_t first,
               const TokenizerFile& file, Stages& out) {
  WholePieces whole;
  for (const RankedToken& token : tokens) {
    if (token.bytes.empty() || !whole.emplace(token.bytes, int(token.rank + first)).second) {
      throw Error(Exit::input, concat(in_quotes(file.name), ": the token of rank ", token.rank,
                                      token.bytes.empty() ? " is empty" : " is there twice"))
          .hint("fetch the file again");
    }
    out.vocabulary.add(token.bytes, token.rank + first, file.name);
  }
  std::vector<int> bytes;
  for (int b = 0; b < 256; ++b) {
    const auto found = whole.find(std::string(1, char(b)));
    if (found == whole.end()) {
      throw Error(Exit::input, concat(in_quotes(file.name), " has no token for the byte ", b))
          .hint("a file of ranks holds all 256 bytes");
    }
    bytes.push_back(found->second);
  }
  MergeTable table(tokens.size() * 2);
  for (const RankedToken& token : tokens) {
    const std::string_view text = token.bytes;
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = whole.find(text.substr(0, cut));
      const auto right = left == whole.end() ? left : whole.find(text.substr(cut));
      if (right != whole.end()) {
        table.add(left->second, right->second, std::uint32_t(token.rank), int(token.rank + first));
      }
    }
  }
  out.model = make_byte_bpe(std::move(bytes), std::move(table), std::move(whole));
  out.decodes_bytes = true;
}

std::vector<RankedToken> read_lines(const TokenizerFile& file) {
  std::vector<RankedToken> out;
  std::string_view rest = file.bytes;
  for (std::int64_t line = 1; !rest.empty(); ++line) {
    std::string_view text = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), text.size() + 1));
    if (text.ends_with('\r'))
      text.remove_suffix(1);
    if (text.empty())
      continue;
    const std::size_t blank = text.find(' ');
    const std::string_view digits = blank == text.npos ? "" : text.substr(blank + 1);
    std::int64_t rank = -1;
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    if (code != std::errc() || end != digits.data() + digits.size() || rank < 0) {
      throw Error(Exit::input, concat(in_quotes(file.name), " line ", line, ": ",
                                      in_quotes(text.substr(0, 60)), " is no token with its rank"))
          .hint("a line is base64, a blank and a number: aGVsbG8= 15339");
    }
    out.push_back({from_base64(text.substr(0, blank), file.name), rank});
  }
  return out;
}

constexpr std::size_t kGuardedText = 400'000, kGuardedRun = 25'000;  // characters

// str.isspace() of Python
bool is_python_space(char32_t c) {
  return (classes_of(c) & char_class::space) || (c >= 0x1C && c <= 0x1F);
}

// Kimi's and Llama 3's published code cuts a text every 400,000 characters, and runs of blanks or
// of anything else after 25,000: ids at the cuts depend on it.
Spans guard_spans(std::string_view text) {
  Spans out;
  std::size_t characters = 0;
  std::size_t run = 0;
  bool blank = false;
  std::uint32_t begin = 0;
  for (std::uint32_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_at(text.data() + at);
    const bool now = is_python_space(c.code);
    const bool fresh = characters == 0;
    run = fresh ? 1 : now == blank ? run + 1 : 1;
    const bool full = characters == kGuardedText;
    if (full || run > kGuardedRun) {
      out.push_back({begin, at});
      begin = at;
      run = 1;
    }
    characters = full ? 1 : characters + 1;
    blank = now;
    at += std::uint32_t(c.bytes);
  }
  out.push_back({begin, std::uint32_t(text.size())});
  return out;
}

void add_special(const std::vector<std::pair<std::string, int>>& special, Stages& out) {
  std::vector<AddedToken> all;
  for (const auto& [text, id] : special)
    all.push_back({.content = text, .id = id, .special = true});
  out.added = AddedTokens(std::move(all), nullptr);
}

int special_id(const Stages& stages, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (const AddedToken* found = name.empty() ? nullptr : stages.added.find(name))
      return found->id;
  }
  return -1;
}

void add_special_ids(const TokenizerFile& file, Stages& out) {
  const TokenizerConfig& c = file.config;
  out.special.bos = special_id(out, {c.bos, "[BOS]", "<|startoftext|>", "<s>"});
  out.special.eos = special_id(out, {c.eos, "[EOS]", "<|endoftext|>", "</s>"});
  out.special.pad = special_id(out, {c.pad, "[PAD]", "<|pad|>", "<pad>"});
  out.special.unknown = special_id(out, {c.unknown, "<unk>"});
  if (out.special.eos >= 0)
    out.special.ends = {out.special.eos};
}

std::unique_ptr<Stages> new_stages(const TokenizerFile& file) {
  auto out = std::make_unique<Stages>();
  out->id = file.id;
  out->config_json = file.config.json;
  return out;
}

// The names that special ids of a tekken.json have where the file does not give them.
std::string tekken_special(std::int64_t id) {
  static constexpr std::string_view names[] = {"<unk>",
                                               "<s>",
                                               "</s>",
                                               "[INST]",
                                               "[/INST]",
                                               "[AVAILABLE_TOOLS]",
                                               "[/AVAILABLE_TOOLS]",
                                               "[TOOL_RESULTS]",
                                               "[/TOOL_RESULTS]",
                                               "[TOOL_CALLS]",
                                               "[IMG]",
                                               "<pad>",
                                               "[IMG_BREAK]",
                                               "[IMG_END]",
                                               "[PREFIX]",
                                               "[MIDDLE]",
                                               "[SUFFIX]",
                                               "[SYSTEM_PROMPT]",
                                               "[/SYSTEM_PROMPT]",
                                               "[TOOL_CONTENT]"};
  return id < std::int64_t(std::size(names)) ? std::string(names[id])
                                             : concat("<SPECIAL_", id, ">");
}

std::vector<std::pair<std::string, int>> tekken_specials(const Fields& top, std::int64_t count) {
  std::map<int, std::string> names;
  if (top.has("special_tokens")) {
    for (const Json& item : top.list("special_tokens")) {
      const Fields f(item, top.source(), "a special token");
      names[int(f.whole("rank"))] = f.text("token_str");
    }
  } else {
    for (std::int64_t id = 0; id < std::min<std::int64_t>(count, 20); ++id)
      names[int(id)] = tekken_special(id);
  }
  std::vector<std::pair<std::string, int>> out;
  for (int id = 0; id < count; ++id)
    out.emplace_back(names.count(id) ? names[id] : concat("<SPECIAL_", id, ">"), id);
  return out;
}

}  // namespace

std::unique_ptr<Tokenizer> read_ranks(const TokenizerFile& file, const RankRules& rules) {
  auto out = new_stages(file);
  add_model(read_lines(file), 0, file, *out);
  add_special(rules.special, *out);
  out->pre.steps = make_split(rules.pattern, file.name, true);
  if (rules.guard)
    out->guard = guard_spans;
  out->bare = SpecialText::text;
  add_special_ids(file, *out);
  return std::make_unique<Pipeline>(std::move(out));
}

std::unique_ptr<Tokenizer> read_tekken(const TokenizerFile& file) {
  const Json json = parse_json(file.bytes, file.name, {.bytes = Index(256) << 20});
  const Fields top(json, file.name, "the file");
  const Fields config(top.at("config"), file.name, "the config");
  const std::int64_t special = config.whole("default_num_special_tokens");
  const std::int64_t size = config.whole("default_vocab_size");
  const Json& vocab = top.list("vocab");
  if (special < 2 || special > 100'000 || size < special ||
      size - special > std::int64_t(vocab.size())) {
    throw config.error(concat("asks for ", size, " tokens, ", special,
                              " of them special, and the file has ", vocab.size()));
  }
  auto out = new_stages(file);
  std::vector<RankedToken> tokens;
  for (std::size_t i = 0; i < std::size_t(size - special); ++i) {
    const Fields f(vocab[i], file.name, concat("entry ", i, " of the vocabulary"));
    tokens.push_back({from_base64(f.text("token_bytes"), file.name), f.whole("rank")});
  }
  add_model(tokens, special, file, *out);
  add_special(tekken_specials(top, special), *out);
  out->pre.steps = make_split(config.text("pattern"), file.name, true);
  // text never gives special ids, in a frame or without one
  out->bare = out->framed = SpecialText::text;
  add_special_ids(file, *out);
  if (out->special.bos >= 0)
    out->post.before = {out->special.bos};
  return std::make_unique<Pipeline>(std::move(out));
}

}  // namespace moe
