// The tokenizer in the keys `tokenizer.ggml.*` of a GGUF file. Byte-level BPE (`gpt2`) is written
// as the tokenizer.json that says the same, and read as one; `llama` and `t5` are sentencepiece's
// models with their pieces in arrays. The file says nothing of a normalizer for `gpt2`: llama.cpp
// has none there.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/gguf.h"
#include "lib/files/sha256.h"
#include "lib/tokenizer/gguf_splits.h"
#include "lib/tokenizer/read.h"
#include "lib/tokenizer/sentencepiece.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kPrefix = "tokenizer.";
constexpr const char* kModel = "tokenizer.ggml.model";

std::string ggml(const char* name) {
  return concat("tokenizer.ggml.", name);
}

std::string_view bytes_of(const GgufValue& value) {
  return {reinterpret_cast<const char*>(value.bytes.data()), value.bytes.size()};
}

// Name and hash of all that the file says of its tokenizer; the weights behind may be large.
std::string id_of(const GgufFile& file) {
  std::string all;
  for (const auto& [name, value] : file.keys()) {
    if (name.starts_with(kPrefix))
      all += concat(name, "=", bytes_of(value), "\n");
  }
  return concat(file.path().filename().string(), " sha256:", sha256_hex(all).substr(0, 16));
}

class Reader {
 public:
  explicit Reader(const GgufFile& file) : file_(file), tokens_(file.texts(ggml("tokens"))) {
    if (tokens_.empty())
      file_.refuse("its tokenizer has no tokens");
    read_types();
  }

  std::unique_ptr<Tokenizer> read() {
    const std::string model = file_.text(kModel);
    if (model == "gpt2")
      return byte_pairs();
    if (model == "llama" || model == "t5")
      return sentencepiece(model == "t5");
    file_.refuse(concat("a tokenizer of the model ", in_quotes(model), " is not read"),
                 "models that are read: gpt2, llama, t5");
  }

 private:
  void read_types() {
    types_.assign(tokens_.size(), PieceType::normal);
    if (!file_.has(ggml("token_type")))
      return;
    const std::vector<std::int64_t> all = file_.wholes(ggml("token_type"));
    check_length(all.size(), "token_type");
    for (std::size_t id = 0; id < all.size(); ++id) {
      // 0, "undefined", is what some writers leave for a plain token
      if (all[id] < 0 || all[id] > 6)
        file_.refuse(concat("token ", id, " has the unknown type ", all[id]), "types are 1 to 6");
      types_[id] = all[id] == 0 ? PieceType::normal : PieceType(all[id]);
    }
  }
  void check_length(std::size_t length, const char* name) const {
    if (length != tokens_.size()) {
      file_.refuse(concat("tokenizer.ggml.", name, " has ", length, " entries for ", tokens_.size(),
                          " tokens"));
    }
  }

  // `otherwise` where the key is missing and there is such a token
  int id(const char* name, int otherwise) const {
    const std::string key = ggml(name);
    const std::int64_t size = std::int64_t(tokens_.size());
    if (!file_.has(key))
      return otherwise < size ? otherwise : -1;
    const std::int64_t out = file_.whole(key);
    // all ones in 32 bits: none
    if (out == -1 || out == 0xFFFFFFFF)
      return -1;
    if (out < 0 || out >= size)
      file_.refuse(concat(key, " is ", out, ", and there are ", size, " tokens"));
    return int(out);
  }
  SpecialIds special(SpecialIds otherwise) const {
    SpecialIds out = {.bos = id("bos_token_id", otherwise.bos),
                      .eos = id("eos_token_id", otherwise.eos),
                      .pad = id("padding_token_id", otherwise.pad),
                      .unknown = id("unknown_token_id", otherwise.unknown),
                      .ends = {}};
    for (const int end : {out.eos, id("eot_token_id", -1)}) {
      if (end >= 0 && std::ranges::find(out.ends, end) == out.ends.end())
        out.ends.push_back(end);
    }
    return out;
  }
  std::string text(int id) const {
    return id < 0 ? "" : std::string(tokens_[std::size_t(id)]);
  }

  // tokenizer_config.json that says the same
  std::string config(const SpecialIds& s, bool add_bos, bool add_eos) const {
    Json out = {{"add_bos_token", add_bos}, {"add_eos_token", add_eos}};
    const std::pair<const char*, int> named[] = {
        {"bos_token", s.bos}, {"eos_token", s.eos}, {"pad_token", s.pad}, {"unk_token", s.unknown}};
    for (const auto& [name, id] : named) {
      if (id >= 0)
        out[name] = text(id);
    }
    if (const std::string chat = file_.text("tokenizer.chat_template", ""); !chat.empty())
      out["chat_template"] = chat;
    return out.dump(2, ' ', false, Json::error_handler_t::replace);
  }

  Json vocabulary() const {
    Json out = Json::object();
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      check_utf8(tokens_[id], "token", id);
      if (!out.emplace(tokens_[id], id).second)
        file_.refuse(concat("token ", id, " is there twice: ", in_quotes(tokens_[id])));
    }
    return out;
  }
  void check_utf8(std::string_view text, const char* what, std::size_t number) const {
    if (!is_valid_utf8(text))
      file_.refuse(concat(what, " ", number, " of its tokenizer is no UTF-8"));
  }
  // Pairs: the first blank behind the first character parts them.
  Json merges() const {
    Json out = Json::array();
    const std::vector<std::string_view> all = file_.texts(ggml("merges"));
    for (std::size_t i = 0; i < all.size(); ++i) {
      check_utf8(all[i], "merge", i);
      const std::size_t blank = all[i].find(' ', 1);
      if (blank == std::string_view::npos)
        file_.refuse(concat("merge ", i, " of its tokenizer is no pair: ", in_quotes(all[i])));
      out.push_back({all[i].substr(0, blank), all[i].substr(blank + 1)});
    }
    return out;
  }
  Json added() const {
    Json out = Json::array();
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      const bool control = types_[id] == PieceType::control;
      if ((!control && types_[id] != PieceType::user_defined) || tokens_[id].empty())
        continue;
      out.push_back({{"id", id},
                     {"content", tokens_[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", control}});
    }
    return out;
  }
  // What stands around a document.
  Json frame(int before, int after) const {
    const auto item = [](const char* kind, const std::string& id) {
      return Json{{kind, {{"id", id}, {"type_id", 0}}}};
    };
    Json single = Json::array({item("Sequence", "A")});
    Json tokens = Json::object();
    const auto describe = [&](int id) {
      tokens[text(id)] = {{"id", text(id)}, {"ids", {id}}, {"tokens", {text(id)}}};
      return item("SpecialToken", text(id));
    };
    if (before >= 0)
      single.insert(single.begin(), describe(before));
    if (after >= 0)
      single.push_back(describe(after));
    return {{"type", "TemplateProcessing"},
            {"single", single},
            {"pair", Json::array({item("Sequence", "A"), item("Sequence", "B")})},
            {"special_tokens", tokens}};
  }

  std::unique_ptr<Tokenizer> byte_pairs() const {
    GgufSplit more;
    const std::string source = file_.path().string();
    const Json pre = gguf_pre_tokenizer(file_.text(ggml("pre"), "default"), source, more);
    const SpecialIds ids = special({});
    const bool add_bos = file_.flag(ggml("add_bos_token"), more.add_bos) && ids.bos >= 0;
    const bool add_eos = file_.flag(ggml("add_eos_token"), false) && ids.eos >= 0;
    const Json model = {{"type", "BPE"},
                        {"ignore_merges", more.whole_first},
                        {"vocab", vocabulary()},
                        {"merges", merges()}};
    const Json byte_level = {{"type", "ByteLevel"}};
    const Json all = {{"version", "1.0"},
                      {"added_tokens", added()},
                      {"normalizer", nullptr},
                      {"pre_tokenizer", pre},
                      {"post_processor", frame(add_bos ? ids.bos : -1, add_eos ? ids.eos : -1)},
                      {"decoder", byte_level},
                      {"model", model}};
    TokenizerConfig config;
    config.ids = ids;
    config.add_bos = add_bos;
    config.add_eos = add_eos;
    config.json = this->config(ids, add_bos, add_eos);
    const std::string bytes = all.dump();
    return read_tokenizer_json(
        {.bytes = bytes, .name = source, .id = id_of(file_), .config = config});
  }

  // Ids that are missing are those of the library's own files.
  std::unique_ptr<Tokenizer> sentencepiece(bool t5) const {
    SentencePieceRules out;
    const std::string source = file_.path().string();
    const std::vector<double> scores = file_.reals(ggml("scores"));
    check_length(scores.size(), "scores");
    for (std::size_t id = 0; id < tokens_.size(); ++id)
      out.pieces.push_back({std::string(tokens_[id]), float(scores[id]), types_[id]});
    out.id = id_of(file_);
    out.unigram = t5;
    out.byte_fallback = std::ranges::find(types_, PieceType::byte) != types_.end();
    out.dummy_prefix = file_.flag(ggml("add_space_prefix"), true);
    out.remove_extra_blanks = file_.flag(ggml("remove_extra_whitespaces"), false);
    out.special = special(t5 ? SpecialIds{.bos = -1, .eos = 1, .pad = 0, .unknown = 2, .ends = {}}
                             : SpecialIds{.bos = 1, .eos = 2, .pad = -1, .unknown = 0, .ends = {}});
    out.add_bos = file_.flag(ggml("add_bos_token"), !t5) && out.special.bos >= 0;
    out.add_eos = file_.flag(ggml("add_eos_token"), t5) && out.special.eos >= 0;
    out.config_json = config(out.special, out.add_bos, out.add_eos);
    const auto map = file_.keys().find(ggml("precompiled_charsmap"));
    if (map != file_.keys().end() && !map->second.bytes.empty())
      out.charsmap = Charsmap(bytes_of(map->second), source);
    return make_sentencepiece(std::move(out), source);
  }

  const GgufFile& file_;
  std::vector<std::string_view> tokens_;
  std::vector<PieceType> types_;
};

}  // namespace

bool gguf_has_tokenizer(const std::filesystem::path& path) {
  const GgufFile file(path);
  return file.has(kModel) && file.text(kModel) != "none";
}

std::unique_ptr<Tokenizer> read_gguf_tokenizer(const std::filesystem::path& path) {
  const GgufFile file(path);
  return Reader(file).read();
}

}  // namespace moe
