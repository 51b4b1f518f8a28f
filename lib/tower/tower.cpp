#include "lib/tower/tower.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tower/families.h"

namespace moe {

template <class S>
const Registry<MakeTowers<S>>& tower_families() {
  static const Registry<MakeTowers<S>> all("family of encoders", {
#define TOWER(name, about, make) {#name, about, #name, &make<S>},
#include "lib/tower/towers.def"
#undef TOWER
                                                                 });
  return all;
}

namespace {

std::string type_of(const Json& config) {
  const auto type = config.is_object() ? config.find("model_type") : config.end();
  return type != config.end() && type->is_string() ? type->get<std::string>() : "";
}

}  // namespace

bool has_towers(const Json& config) {
  if (tower_families<float>().find(type_of(config)) == nullptr)
    return false;
  // a language model alone may be of the same type
  const char* whole[] = {"text_config", "thinker_config", "mm_image_tower"};
  return std::ranges::any_of(whole, [&](const char* key) { return config.contains(key); });
}

template <class S>
Towers<S> open_towers(const std::filesystem::path& folder, Backend<S>& backend) {
  const std::filesystem::path file = folder / "config.json";
  const Json config = read_json(file, {.python_words = true});
  const std::string type = type_of(config);
  if (!has_towers(config)) {
    throw Error(Exit::input, concat("'", file.string(), "' is of the type '", type,
                                    "', whose encoders of pictures and sounds cannot be read"))
        .hint("those that can: " + join(tower_families<S>().names()));
  }
  TowerTensors<S> tensors(backend, folder);
  const TowerConfig c{ConfigReader(config, file.string()), folder};
  Towers<S> out = tower_families<S>().at(type).make(c, tensors);
  out.family = type;
  return out;
}

std::vector<TowerPart> tower_sizes(const Json& config, const std::filesystem::path& folder) {
  if (!has_towers(config))
    return {};
  TowerTensors<float> tensors;
  const std::string file = (folder / "config.json").string();
  const TowerConfig c{ConfigReader(config, file, ReadFor::sizes), folder};
  tower_families<float>().at(type_of(config)).make(c, tensors);
  return tensors.parts();
}

template const Registry<MakeTowers<float>>& tower_families();
template const Registry<MakeTowers<double>>& tower_families();
template Towers<float> open_towers(const std::filesystem::path&, Backend<float>&);
template Towers<double> open_towers(const std::filesystem::path&, Backend<double>&);

}  // namespace moe
