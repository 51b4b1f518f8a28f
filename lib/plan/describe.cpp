// From model_type to the reader of its sizes, and our own configurations.
#include "lib/plan/describe.h"

#include <nlohmann/json.hpp>

#include "lib/checkpoint/folder.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/family/class_defaults.h"
#include "lib/family/families.h"
#include "lib/family/family.h"
#include "lib/family/gguf_config.h"
#include "lib/plan/readers.h"
#include "lib/router/router.h"

namespace moe::plan {
namespace {

constexpr int most_experts = 1'000'000;

struct Type {
  std::string_view name;
  Architecture (*read)(const ConfigReader&, const std::string&);
};
constexpr Type types[] = {
#define TYPE(name, read) {name, read},
#include "lib/plan/types.def"
#undef TYPE
};

const Type* type_named(const std::string& name) {
  for (const Type& t : types) {
    if (t.name == name)
      return &t;
  }
  return nullptr;
}
bool is_known(const std::string& type) {
  return is_family(type) || type_named(type);
}

// Other names of the same layout.
std::string usual_name(const std::string& type) {
  static constexpr std::pair<std::string_view, std::string_view> same[] = {
      {"interns1_pro_text", "interns1_pro"},
      {"minimax_text_01", "minimax"},
      {"nllb_moe", "nllb-moe"},
      {"switch", "switch_transformers"}};
  for (const auto& [from, to] : same) {
    if (type == from)
      return std::string(to);
  }
  return type;
}

// By the reader with which the family is computed.
Architecture read_family(const ConfigReader& r, const std::string& type) {
  ModelConfig c;
  try {
    rules_of(type).read(r, c);
    if (c.moe.experts > most_experts) {
      r.refuse(concat("there are ", c.moe.experts, " experts, more than the ", most_experts,
                      " that are believed"));
    }
    check_sizes(c);
    Architecture a = architecture_of(c);
    if (!r.has("max_position_embeddings") && !r.has("max_seq_len"))
      a.context = 0;
    if (type == "deepseek_v3" || type == "kimi_k2")
      a.further_layers = r.whole("num_nextn_predict_layers", 0);
    return a;
  } catch (const Error& e) {
    if (e.code() == Exit::input)
      throw;
    r.refuse(e.what(), e.hint());
  }
}

// A class that always has a correction bias stores one of zeros for a router without.
void add_corrections(Architecture& a, const std::string& type) {
  if (!is_family(type) || !rules_of(type).names.always_corrected)
    return;
  for (LayerShape& l : a.layers) {
    if (l.feed && l.feed->is_moe())
      l.feed->correction_bias = true;
  }
}

Architecture describe_run(const ConfigReader& r, const std::string& name) {
  const std::string type = r.text("model_type", "");
  Architecture a = describe(model_config(r.in("moe_training").text("spec", "")), name);
  if (type != "moe")
    a.family = type;
  add_corrections(a, type);
  return a;
}

// The text part of a larger model, which may leave its type and whether its output is tied to the
// whole.
Architecture describe_text(const ConfigReader& r, const char* key, const std::string& name) {
  Json text = r.in(key).json();
  if (!is_known(usual_name(text.value("model_type", ""))))
    text["model_type"] = r.text("model_type", "");
  if (!text.contains("tie_word_embeddings") && r.has("tie_word_embeddings"))
    text["tie_word_embeddings"] = r.json()["tie_word_embeddings"];
  return describe(text, concat(r.file(), ", ", key), name);
}

}  // namespace

std::vector<std::string> known_types() {
  std::vector<std::string> out;
  for (const Family& f : families())
    out.emplace_back(f.name);
  for (const Type& t : types)
    out.emplace_back(t.name);
  return out;
}

Architecture describe(const ModelConfig& config, const std::string& name) {
  Architecture a = architecture_of(resolved(config));
  a.name = name;
  return a;
}

Architecture describe(const Json& j, const std::string& file, const std::string& name) {
  const ConfigReader r(j, file, ReadFor::sizes);
  if (!j.is_object())
    r.refuse("this is not an object");
  if (r.has("moe_training"))
    return describe_run(r, name);
  for (const char* key : {"text_config", "llm_config", "thinker_config"}) {
    if (r.has(key))
      return describe_text(r, key, name);
  }
  const std::string given = r.text("model_type", "");
  if (given.empty())
    r.refuse("model_type is missing", "a config.json of a published model says what it is");
  const std::string type = usual_name(given);
  if (!is_known(type)) {
    const std::string near = nearest(given, known_types());
    r.refuse(
        concat("model_type '", given, "' is none whose sizes are known"),
        concat(near.empty() ? "" : concat("'", near, "'; "), "there is ", join(known_types())));
  }
  const Json filled = with_class_defaults(type, j);
  const ConfigReader all(filled, file, ReadFor::sizes);
  Architecture a = is_family(type) ? read_family(all, type) : type_named(type)->read(all, type);
  a.name = name;
  a.family = given;
  return a;
}

Architecture describe_path(const std::string& path) {
  if (const auto gguf = gguf_file_of(path)) {
    std::vector<std::string> notes;  // of what is computed, which is nothing here
    return describe(gguf_config(GgufFile(*gguf), notes), gguf->string(), path);
  }
  std::filesystem::path file = path;
  if (std::filesystem::is_directory(file)) {
    if (!std::filesystem::exists(file / "config.json"))
      file = find_checkpoint(file).path;
    file /= "config.json";
  }
  return describe(read_json(file, {.python_words = true}), file.string(), path);
}

}  // namespace moe::plan
