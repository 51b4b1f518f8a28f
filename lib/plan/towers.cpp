#include "lib/plan/towers.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/checkpoint/folder.h"
#include "lib/tower/tower.h"

namespace moe::plan {

std::vector<TowerPart> towers_of_path(const std::string& path) {
  namespace fs = std::filesystem;
  fs::path file = path;
  if (fs::is_directory(file)) {
    if (!fs::exists(file / "config.json"))
      file = find_checkpoint(file).path;
    file /= "config.json";
  }
  if (file.extension() != ".json")
    return {};
  return tower_sizes(read_json(file, {.python_words = true}), file.parent_path());
}

std::vector<TowerPart> towers_of(const Json& config) {
  return tower_sizes(config, {});
}

}  // namespace moe::plan
