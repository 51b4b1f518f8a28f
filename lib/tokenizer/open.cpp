#include "lib/tokenizer/open.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/foreign.h"
#include "lib/files/gguf.h"
#include "lib/files/json.h"
#include "lib/files/sha256.h"
#include "lib/tokenizer/base64.h"
#include "lib/tokenizer/rank_rules.h"
#include "lib/tokenizer/read.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr Index kLargest = Index(256) << 20;

// A token of tokenizer_config.json is its text, or an object that holds it.
std::string token_text(const Json& config, const char* name) {
  const auto found = config.find(name);
  if (found == config.end())
    return "";
  if (found->is_string())
    return found->get<std::string>();
  return found->is_object() && found->contains("content") && (*found)["content"].is_string()
             ? (*found)["content"].get<std::string>()
             : "";
}

std::optional<bool> flag(const Json& config, const char* name) {
  const auto found = config.find(name);
  return found != config.end() && found->is_boolean() ? std::optional(found->get<bool>())
                                                      : std::nullopt;
}

std::string text(const Json& config, const char* name) {
  const auto found = config.find(name);
  return found != config.end() && found->is_string() ? found->get<std::string>() : "";
}

// An id, or the first of a list of them; all of them to `ends`.
int id_in(const Json& config, const char* name, std::vector<int>* ends) {
  const auto found = config.find(name);
  if (found == config.end())
    return -1;
  std::vector<int> ids;
  for (const Json& id : found->is_array() ? *found : Json::array({*found})) {
    if (id.is_number_unsigned() && id.get<std::uint64_t>() < (1u << 31))
      ids.push_back(id.get<int>());
  }
  for (const int id : ids) {
    if (ends && std::ranges::find(*ends, id) == ends->end())
      ends->push_back(id);
  }
  return ids.empty() ? -1 : ids[0];
}

// An object of a model's folder; empty where there is no such file.
Json object_of(const fs::path& path) {
  if (!fs::exists(path))
    return Json::object();
  Json json = read_json(path, {.python_words = true});
  return json.is_object() ? json : Json::object();
}

void read_ids(const Json& json, SpecialIds& out) {
  const auto take = [&](int& id, const char* name, std::vector<int>* ends) {
    const int found = id_in(json, name, ends);
    if (found >= 0)
      id = found;
  };
  take(out.bos, "bos_token_id", nullptr);
  take(out.eos, "eos_token_id", &out.ends);
  take(out.pad, "pad_token_id", nullptr);
}

SpecialIds ids_of(const Json& config, const fs::path& folder) {
  SpecialIds out;
  read_ids(config, out);
  read_ids(object_of(folder / "generation_config.json"), out);
  return out;
}

TokenizerConfig read_config(const fs::path& folder) {
  const Json config = object_of(folder / "config.json");
  TokenizerConfig out;
  out.ids = ids_of(config, folder);
  out.model_type = text(config, "model_type");
  const fs::path path = folder / "tokenizer_config.json";
  if (!fs::exists(path))
    return out;
  out.json = read_file(path, Index(64) << 20);
  const Json json = parse_json(out.json, path.native());
  out.bos = token_text(json, "bos_token");
  out.eos = token_text(json, "eos_token");
  out.pad = token_text(json, "pad_token");
  out.unknown = token_text(json, "unk_token");
  out.add_bos = flag(json, "add_bos_token");
  out.add_eos = flag(json, "add_eos_token");
  out.tokenizer_class = text(json, "tokenizer_class");
  return out;
}

// The first line is base64, a blank and a number.
bool looks_like_ranks(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, std::min<std::size_t>(bytes.find('\n'), 4096));
  const std::size_t blank = line.find(' ');
  return blank != line.npos && blank > 0 && is_base64(line.substr(0, blank)) &&
         line.find_first_not_of("0123456789\r", blank + 1) == line.npos;
}

bool looks_like_json(std::string_view bytes) {
  const std::size_t first = bytes.find_first_not_of(" \t\r\n");
  return first != bytes.npos && bytes[first] == '{';
}

std::unique_ptr<Tokenizer> read_by_content(const fs::path& path, const TokenizerFile& file) {
  if (looks_like_json(file.bytes)) {
    return file.bytes.find("\"default_num_special_tokens\"") != file.bytes.npos
               ? read_tekken(file)
               : read_tokenizer_json(file);
  }
  if (looks_like_ranks(file.bytes)) {
    const auto lines = std::ranges::count(file.bytes, '\n') + !file.bytes.ends_with('\n');
    return read_ranks(file, rank_rules(path, file.config, int(lines)));
  }
  // a message whose first field is a piece
  if (file.bytes.starts_with('\n'))
    return read_sentencepiece(file);
  refuse_foreign(path, "a tokenizer");
  throw Error(Exit::input, concat(in_quotes(path), " is no tokenizer that is read"))
      .hint(
          "a tokenizer.json, a sentencepiece .model, a file of tiktoken ranks, a tekken.json, a "
          "GGUF "
          "model, or a folder with one of them");
}

// A tokenizer.json that lacks the pattern of the tekken.json beside it was made by mistake from
// another model's.
bool lacks_pattern(const fs::path& json, const fs::path& tekken) {
  const Json config = read_json(tekken, {.bytes = kLargest});
  const auto found = config.find("config");
  if (found == config.end() || !found->is_object())
    return false;
  const std::string pattern = text(*found, "pattern");
  return !pattern.empty() &&
         read_file(json, kLargest).find(Json(pattern).dump()) == std::string::npos;
}

// "" = the GGUF model that the path means describes no tokenizer, or it means none.
fs::path gguf_tokenizer(const fs::path& path) {
  const auto gguf = gguf_file_of(path);
  return gguf && gguf_has_tokenizer(*gguf) ? *gguf : fs::path();
}

fs::path file_in_folder(const fs::path& folder) {
  const fs::path json = folder / "tokenizer.json";
  const fs::path tekken = folder / "tekken.json";
  if (fs::exists(json) && !(fs::exists(tekken) && lacks_pattern(json, tekken)))
    return json;
  for (const char* name : {"tekken.json", "tokenizer.model", "spiece.model",
                           "sentencepiece.bpe.model", "tiktoken.model"}) {
    if (fs::exists(folder / name))
      return folder / name;
  }
  fs::path out;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder, code)) {
    const bool ranks = entry.path().extension() == ".tiktoken";
    if (ranks && (out.empty() || entry.path() < out))
      out = entry.path();
  }
  return out.empty() ? gguf_tokenizer(folder) : out;
}

}  // namespace

fs::path tokenizer_file(const fs::path& path) {
  if (fs::is_directory(path))
    return file_in_folder(path);
  return gguf_file_of(path) ? gguf_tokenizer(path) : path;
}

SpecialIds special_ids(const fs::path& folder) {
  return ids_of(object_of(folder / "config.json"), folder);
}

std::shared_ptr<const Tokenizer> open_tokenizer(const fs::path& path) {
  const fs::path file = tokenizer_file(path);
  if (file.empty() && fs::is_directory(path)) {
    throw Error(Exit::input, concat("the folder ", in_quotes(path), " holds no tokenizer"))
        .hint("it should hold a tokenizer.json, tekken.json, tokenizer.model or *.tiktoken");
  }
  if (file.empty()) {
    throw Error(Exit::input, concat("the GGUF model ", in_quotes(path), " holds no tokenizer"))
        .hint("give the tokenizer of the model that it was made from");
  }
  if (gguf_file_of(file))
    return read_gguf_tokenizer(file);
  const std::string bytes = read_file(file, kLargest);
  return read_by_content(
      file, {.bytes = bytes,
             .name = file.string(),
             .id = concat(file.filename().string(), " sha256:", sha256_hex(bytes).substr(0, 16)),
             .config = read_config(file.parent_path())});
}

}  // namespace moe
