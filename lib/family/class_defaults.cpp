#include "lib/family/class_defaults.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"

namespace moe {
namespace {

// Types that take the class of another, for the keys at the top or, where there are any, below one.
struct Sharing {
  std::string_view type, of;
  const char* below = nullptr;
};
constexpr Sharing sharing[] = {
    {"kimi_k2", "deepseek_v3"},
    {"llama4", "llama4_text", "text_config"},
    {"qwen3_vl_moe", "qwen3_vl_moe_text", "text_config"},
    {"qwen3_omni_moe_thinker", "qwen3_omni_moe_text", "text_config"},
    {"qwen3_omni_moe", "qwen3_omni_moe_text", "thinker_config.text_config"},
    {"aria", "aria_text", "text_config"},
    {"ernie4_5_vl_moe", "ernie4_5_vl_moe_text", "text_config"},
    {"kimi_k25", "deepseek_v3", "text_config"},
    {"qwen3_5_moe", "qwen3_5_moe_text", "text_config"},
    {"interns1_pro", "interns1_pro_text", "text_config"}};

// The class puts its own rule there only where the file has none under either name.
bool has_rope_rule(const Json& config) {
  const auto given = [&](const char* key) {
    return config.contains(key) && !config[key].is_null() && !config[key].empty();
  };
  return given("rope_scaling") || given("rope_parameters");
}

void fill(Json& config, const Json& values) {
  for (const auto& [key, value] : values.items()) {
    if (key == "rope_parameters") {
      if (!has_rope_rule(config))
        config[key] = value;
    } else if (!config.contains(key) || (config[key].is_null() && value.is_object())) {
      config[key] = value;
    } else if (value.is_object() && config[key].is_object()) {
      fill(config[key], value);
    }
  }
}

// The object at "thinker_config.text_config", or where that is not there the last on the way.
Json* part_below(Json& config, const char* path) {
  Json* at = &config;
  for (const std::string& key : path ? split(path, '.') : std::vector<std::string>{}) {
    if (at->contains(key) && (*at)[key].is_object())
      at = &(*at)[key];
  }
  return at;
}

void rename(Json& config, const Json& other_names) {
  for (const auto& [other, key] : other_names.items()) {
    const auto name = key.get<std::string>();
    if (config.contains(other) && !config[other].is_null() && !config.contains(name))
      config[name] = config[other];
  }
}

}  // namespace

const std::vector<ClassDefaults>& class_defaults() {
  static const std::vector<ClassDefaults> all{
#define CLASS(type, name, values, other_names) {type, name, values, other_names},
#include "lib/family/class_defaults.def"
#undef CLASS
  };
  return all;
}

Json with_class_defaults(std::string_view type, const Json& given) {
  Json config = given;
  if (!config.is_object())
    return config;
  Json* keys = &config;
  const auto shared = std::ranges::find(sharing, type, &Sharing::type);
  if (shared != std::end(sharing)) {
    type = shared->of;
    keys = part_below(config, shared->below);
  }
  const auto found = std::ranges::find(class_defaults(), type, &ClassDefaults::type);
  if (found == class_defaults().end())
    return config;
  rename(*keys, Json::parse(found->other_names));
  fill(*keys, Json::parse(found->values));
  return config;
}

}  // namespace moe
