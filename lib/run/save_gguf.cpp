#include "lib/run/save_gguf.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/config_like.h"
#include "lib/family/family.h"
#include "lib/family/gguf_export.h"
#include "lib/family/gguf_model.h"
#include "lib/files/file.h"
#include "lib/run/run_tokenizer.h"
#include "lib/tokenizer/open.h"
#include "lib/tokenizer/write_gguf.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

// What tokenizers cut in different ways.
constexpr std::array probes = {
    "The quick brown fox, 12345 times: it's here, we've seen 3.14!",
    "  two  blanks\tand\n\nlines\r\n  end ",
    "na\xC3\xAFve caf\xC3\xA9 \xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E \xD0\xBF\xD1\x80\xD0\xB8 "
    "\xF0\x9F\x99\x82 x\xC2\xB2",
    "def f(x):\n    return x**2  # CamelCase snake_case HTTPServer"};

// The text of chat_template.jinja, or of tokenizer_config.json; empty = none.
std::string chat_template(const fs::path& folder) {
  constexpr Index largest = 64 << 20;
  if (fs::exists(folder / "chat_template.jinja"))
    return read_file(folder / "chat_template.jinja", largest);
  const fs::path config = folder / "tokenizer_config.json";
  if (!fs::exists(config))
    return "";
  const Json json = read_json(config, {.bytes = largest, .python_words = true});
  const auto found = json.is_object() ? json.find("chat_template") : json.end();
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

void write_ids(GgufKeyWriter& keys, const SpecialIds& ids) {
  const std::pair<const char*, int> named[] = {
      {"bos", ids.bos}, {"eos", ids.eos}, {"padding", ids.pad}, {"unknown", ids.unknown}};
  for (const auto& [name, id] : named) {
    if (id >= 0)
      keys.u32(concat("tokenizer.ggml.", name, "_token_id"), std::uint32_t(id));
  }
}

void write_tokenizer(GgufKeyWriter& keys, const GgufTokenizer& t, const std::string& chat) {
  keys.text("tokenizer.ggml.model", t.model);
  keys.text("tokenizer.ggml.pre", t.pre);
  keys.texts("tokenizer.ggml.tokens", t.tokens);
  keys.wholes("tokenizer.ggml.token_type", t.types);
  if (!t.scores.empty())
    keys.reals("tokenizer.ggml.scores", t.scores);
  if (t.model == "gpt2")
    keys.texts("tokenizer.ggml.merges", t.merges);
  else
    keys.flag("tokenizer.ggml.add_space_prefix", t.space_prefix);
  if (t.model == "t5")
    keys.flag("tokenizer.ggml.remove_extra_whitespaces", t.remove_extra_blanks);
  if (!t.charsmap.empty())
    keys.raw_bytes("tokenizer.ggml.precompiled_charsmap", t.charsmap);
  write_ids(keys, t.ids);
  keys.flag("tokenizer.ggml.add_bos_token", t.add_bos);
  keys.flag("tokenizer.ggml.add_eos_token", t.add_eos);
  if (!chat.empty())
    keys.text("tokenizer.chat_template", chat);
}

// As many tokens as the embedding has rows.
void fill_up(GgufTokenizer& t, int vocabulary) {
  if (t.tokens.size() > std::size_t(vocabulary)) {
    throw Error(Exit::input, concat("the tokenizer has ", t.tokens.size(), " tokens and the model ",
                                    vocabulary, " rows for them"));
  }
  constexpr int unused = 5;
  for (std::size_t id = t.tokens.size(); id < std::size_t(vocabulary); ++id) {
    t.tokens.push_back(concat("[PAD", id, "]"));
    t.types.push_back(unused);
    if (!t.scores.empty())
      t.scores.push_back(-1000);
  }
}

// What the model's files say of texts, or, where they say nothing that GGUF has, a sentence why.
void add_tokenizer(GgufExport& out, const LoadedModel& from, const ModelConfig& config,
                   std::vector<std::string>& notes) {
  const auto tokenizer = tokenizer_of(from);
  const fs::path folder = from.checkpoint.path;
  if (tokenizer) {
    try {
      GgufTokenizer t = gguf_tokenizer(*tokenizer, folder);
      fill_up(t, config.vocabulary);
      return write_tokenizer(out.keys, t, chat_template(folder));
    } catch (const Error& e) {
      notes.push_back(concat(e.what(), "; the file has none, and takes ids alone"));
    }
  }
  out.keys.text("tokenizer.ggml.model", "none");
  SpecialIds ids;
  if (fs::is_directory(folder))
    ids = special_ids(folder);
  write_ids(out.keys, ids);
}

// The file against the model it was made of, and its tokenizer against the model's.
void check(const fs::path& path, const ModelConfig& config, const LoadedModel& from,
           std::vector<std::string>& notes) {
  const GgufModel back = open_gguf(path);
  std::ranges::copy(back.notes, std::back_inserter(notes));
  if (const std::string other = gguf_difference(config, back.published.config); !other.empty()) {
    throw Error(
        Exit::usage,
        concat("a GGUF file cannot say what this model computes: it would be read as ", other))
        .hint("-o FOLDER keeps everything");
  }
  const auto tokenizer = tokenizer_of(from);
  if (!tokenizer || tokenizer_file(path).empty())
    return;
  const auto read = open_tokenizer(path);
  for (const char* probe : probes) {
    if (read->encode(probe) != tokenizer->encode(probe)) {
      notes.push_back(concat("the tokenizer in the file gives other ids for ", in_quotes(probe)));
      return;
    }
  }
}

// Removed where it is not given its name.
struct Temporary {
  fs::path path;
  ~Temporary() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
};

// Of a model that turns by three axes what it is for text, whose place is the same on all.
ModelConfig text_alone(ModelConfig c) {
  c.rope_axes.clear();
  return c;
}

const GgmlType& type_named(const std::string& name) {
  const auto all = ggml_types();
  const auto found = std::ranges::find(all, name, &GgmlType::name);
  if (found == all.end())
    throw Error(Exit::bug, concat("there is no type ", name));
  return *found;
}

}  // namespace

SavedGguf save_gguf(const fs::path& path, Decoder<float>& model, const LoadedModel& from,
                    const std::string& type) {
  const ModelConfig config = text_alone(model.config());
  std::string family = fit_like(config, from.family).family;
  if (rules_of(family).whole)  // llama.cpp keeps encoders in a file of their own
    family = fit_of(config).family;
  GgufExport out = gguf_export(model, family, path.stem().string(), type_named(type));
  SavedGguf saved{.architecture = *gguf_architecture_of(family), .notes = out.notes};
  if (out.narrow > 0) {
    saved.notes.push_back(
        concat(out.narrow, " tensors are F16: their rows are no whole blocks of ", type));
  }
  if (!model.config().rope_axes.empty()) {
    saved.notes.push_back(
        "the file turns heads by one position a row: it is the model for text alone");
  }
  add_tokenizer(out, from, config, saved.notes);
  fs::path beside = path;
  beside.replace_filename(concat(".", path.stem().string(), ".part.gguf"));
  const Temporary temporary{beside};
  write_gguf(temporary.path, out.keys, out.entries);
  check(temporary.path, config, from, saved.notes);
  fs::rename(temporary.path, path);
  return saved;
}

}  // namespace moe
