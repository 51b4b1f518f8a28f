#include "lib/run/kept_files.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "lib/family/families.h"
#include "lib/family/family.h"
#include "lib/files/file.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr Index largest = Index(256) << 20;

constexpr std::array of_tokenizers = {"added_tokens.json",
                                      "chat_template.jinja",
                                      "chat_template.json",
                                      "merges.txt",
                                      "sentencepiece.bpe.model",
                                      "special_tokens_map.json",
                                      "spiece.model",
                                      "tekken.json",
                                      "tiktoken.model",
                                      "tokenizer.json",
                                      "tokenizer.model",
                                      "tokenizer_config.json",
                                      "vocab.json",
                                      "vocab.txt"};
constexpr std::array of_models = {"generation_config.json", "preprocessor_config.json",
                                  "processor_config.json", "video_preprocessor_config.json"};
constexpr std::array beginnings = {"LICENSE", "LICENCE", "NOTICE", "USE_POLICY"};
// written anew, or of no use to the new model
constexpr std::array ours = {"MANIFEST.json", "config.json", "edit.json", "lock", "state.json"};
constexpr std::array of_weights = {".safetensors", ".index.json", ".bin", ".gguf", ".pt", ".pth"};

bool is_of_tokenizer(const std::string& name) {
  return std::ranges::find(of_tokenizers, name) != of_tokenizers.end() ||
         name.ends_with(".tiktoken");
}

// Code that auto_map of config.json or tokenizer_config.json names.
bool is_code(const std::string& name) {
  return name.ends_with(".py");
}

bool is_kept(const std::string& name) {
  return is_of_tokenizer(name) || is_code(name) ||
         std::ranges::find(of_models, name) != of_models.end() ||
         std::ranges::any_of(beginnings, [&](const char* s) { return name.starts_with(s); });
}

bool is_replaced(const std::string& name) {
  return name.starts_with('.') || std::ranges::find(ours, name) != ours.end() ||
         std::ranges::any_of(of_weights, [&](const char* s) { return name.ends_with(s); });
}

// Those of a model whose language is a part, as its class names them.
std::vector<NamedTensor> tensors_beside(const fs::path& folder, const Json& config) {
  std::vector<NamedTensor> out;
  const bool typed = config.is_object() && config.contains("model_type");
  const Json type = typed ? config["model_type"] : Json();
  if (!type.is_string() || !is_family(type) || names_of(type).beside.empty())
    return out;
  const std::vector<std::string>& beside = names_of(type).beside;
  const auto file = std::make_shared<const Tensors>(folder);
  for (const TensorInfo& t : file->list()) {
    const bool here = std::ranges::any_of(
        beside, [&](const std::string& start) { return t.name.starts_with(start); });
    if (here)
      out.emplace_back(t.name, t.dtype, t.dims,
                       [file, name = t.name, dims = t.dims] { return file->get(name, dims); });
  }
  return out;
}

// The folder that config.json names as that of an encoder; empty where it names none, or one that
// is not inside.
fs::path tower_folder(const Json& config) {
  const auto type = config.is_object() ? config.find("model_type") : config.end();
  if (type == config.end() || !type->is_string() || !is_family(*type))
    return {};
  const std::string key = names_of(*type).tower_key;
  if (key.empty() || !config.contains(key) || !config[key].is_string())
    return {};
  const fs::path named = config[key].get<std::string>();
  const bool leaves = std::ranges::any_of(named, [](const fs::path& p) { return p == ".."; });
  return named.is_absolute() || leaves ? fs::path() : named.lexically_normal();
}

std::vector<KeptCopy> copies_of(const fs::path& folder, const fs::path& inside) {
  std::vector<KeptCopy> out;
  if (inside.empty() || inside == "." || !fs::is_directory(folder / inside))
    return out;
  for (const auto& entry : fs::recursive_directory_iterator(folder / inside)) {
    if (entry.is_regular_file())
      out.push_back({entry.path().lexically_relative(folder).native(), entry.path()});
  }
  std::ranges::sort(out, {}, &KeptCopy::name);
  return out;
}

}  // namespace

bool KeptFiles::has(const std::string& name) const {
  return std::ranges::find(files, name, &KeptFile::name) != files.end();
}

KeptFiles kept_files(const fs::path& folder) {
  KeptFiles out;
  if (!fs::is_directory(folder))
    return out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().native();
    if (is_replaced(name))
      continue;
    if (entry.is_regular_file() && is_kept(name))
      out.files.push_back({name, read_file(entry.path(), largest)});
    else
      out.left.push_back(name);
  }
  std::ranges::sort(out.files, {}, &KeptFile::name);
  std::ranges::sort(out.left);
  if (const fs::path config = folder / "config.json"; fs::exists(config))
    out.config = std::make_shared<const Json>(read_json(config, {.python_words = true}));
  if (!out.config)
    return out;
  out.tensors = tensors_beside(folder, *out.config);
  const fs::path tower = tower_folder(*out.config);
  out.copies = copies_of(folder, tower);
  if (!out.copies.empty())
    std::erase(out.left, tower.begin()->native());
  return out;
}

KeptFiles without_tokenizer(KeptFiles kept) {
  std::erase_if(kept.files, [](const KeptFile& f) { return is_of_tokenizer(f.name); });
  return kept;
}

}  // namespace moe
