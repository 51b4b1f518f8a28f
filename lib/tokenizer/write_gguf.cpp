#include "lib/tokenizer/write_gguf.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/tokenizer/gguf_splits.h"
#include "lib/tokenizer/open.h"
#include "lib/tokenizer/read.h"
#include "lib/tokenizer/sentencepiece.h"

namespace moe {
namespace {

using Json = nlohmann::json;

constexpr Index largest = Index(256) << 20;

[[noreturn]] void cannot(const std::string& why) {
  throw Error(Exit::input, concat("the tokenizer cannot be put into a GGUF file: ", why));
}

int type(PieceType t) {
  return int(t);
}

// Every id has a text: those that are missing stand for nothing.
void fill_gaps(GgufTokenizer& out) {
  for (std::size_t id = 0; id < out.tokens.size(); ++id) {
    if (out.tokens[id].empty()) {
      out.tokens[id] = concat("[PAD", id, "]");
      out.types[id] = type(PieceType::unused);
    }
  }
}

void put(GgufTokenizer& out, Json::const_reference id, const std::string& text, PieceType t) {
  if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= 100'000'000)
    cannot(concat("it has the id ", id.dump()));
  const auto at = id.get<std::size_t>();
  if (at >= out.tokens.size()) {
    out.tokens.resize(at + 1);
    out.types.resize(at + 1, type(PieceType::normal));
  }
  out.tokens[at] = text;
  out.types[at] = type(t);
}

// A pair of two pieces, or both in one text with a blank between.
std::string merge_text(const Json& merge) {
  if (merge.is_string())
    return merge.get<std::string>();
  return concat(merge.at(0).get<std::string>(), " ", merge.at(1).get<std::string>());
}

void check_normalizer(const Json& all) {
  const auto n = all.find("normalizer");
  if (n == all.end() || n->is_null() || n->value("type", "") == "NFC")
    return;
  cannot(concat("llama.cpp has no normalizer ", n->value("type", ""), " for byte-level BPE"));
}

GgufTokenizer byte_pairs(const Json& all) {
  const Json& model = all.at("model");
  if (model.value("type", "") != "BPE" || model.value("byte_fallback", false)) {
    cannot(concat("tokenizer.json holds a ", model.value("type", ""),
                  " model that is not byte-level BPE, and no tokenizer.model stands beside it"));
  }
  check_normalizer(all);
  GgufTokenizer out;
  out.model = "gpt2";
  for (const auto& [text, id] : model.at("vocab").items())
    put(out, id, text, PieceType::normal);
  if (all.contains("added_tokens")) {
    for (const Json& token : all.at("added_tokens")) {
      put(out, token.at("id"), token.at("content").get<std::string>(),
          token.value("special", false) ? PieceType::control : PieceType::user_defined);
    }
  }
  for (const Json& merge : model.at("merges"))
    out.merges.push_back(merge_text(merge));
  // without merges every byte is a token, however the text is cut
  out.pre = out.merges.empty() ? "gpt-2"
                               : gguf_split_name(all.value("pre_tokenizer", Json()),
                                                 model.value("ignore_merges", false));
  if (out.pre.empty())
    cannot("llama.cpp has no name for the way in which it cuts a text");
  return out;
}

GgufTokenizer pieces(const std::filesystem::path& file) {
  const std::string bytes = read_file(file, largest);
  const SentencePieceRules rules = sentencepiece_rules({.bytes = bytes, .name = file.string()});
  GgufTokenizer out;
  out.model = rules.unigram ? "t5" : "llama";
  out.pre = "default";
  out.space_prefix = rules.dummy_prefix;
  if (rules.unigram) {
    out.remove_extra_blanks = rules.remove_extra_blanks;
    out.charsmap = rules.charsmap.bytes();
  }
  for (const ScoredPiece& p : rules.pieces) {
    out.tokens.push_back(p.text);
    out.scores.push_back(p.score);
    out.types.push_back(type(p.type));
  }
  return out;
}

// Empty = none.
std::filesystem::path sentencepiece_file(const std::filesystem::path& folder) {
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
    if (std::filesystem::exists(folder / name))
      return folder / name;
  }
  return {};
}

bool is_byte_level(const Json& all) {
  if (!all.is_object())
    return false;
  const Json& model = all.at("model");
  return model.value("type", "BPE") == "BPE" && !model.value("byte_fallback", false);
}

void set_frame(const Tokenizer& tokenizer, GgufTokenizer& out) {
  out.ids = tokenizer.special();
  const std::vector<int> frame = tokenizer.encode("", {.frame = true}).ids;
  out.add_bos = out.ids.bos >= 0 && !frame.empty() && frame.front() == out.ids.bos;
  out.add_eos =
      out.ids.eos >= 0 && frame.size() > std::size_t(out.add_bos) && frame.back() == out.ids.eos;
}

}  // namespace

GgufTokenizer gguf_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& folder) {
  try {
    const std::filesystem::path model = sentencepiece_file(folder);
    const std::string json = tokenizer.tokenizer_json();
    const Json all = json.empty() ? Json() : Json::parse(json);
    GgufTokenizer out = !is_byte_level(all) && !model.empty() ? pieces(model)
                        : all.is_object()                     ? byte_pairs(all)
                                                              : GgufTokenizer{};
    if (out.model.empty())
      cannot("it is neither a tokenizer.json nor a tokenizer.model");
    fill_gaps(out);
    set_frame(tokenizer, out);
    return out;
  } catch (const Json::exception& e) {
    cannot(e.what());
  }
}

}  // namespace moe
