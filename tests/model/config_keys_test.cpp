// No key of a published configuration that changes what its class computes is ignored: every key of
// every family with another value, and what the class did then (tests/peers/record_config_keys.py).
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "lib/core/error.h"
#include "lib/family/families.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

// The model that a configuration says; nothing where it is refused.
std::string model_of(const Json& config) {
  try {
    return to_full_spec(config_from_json(config).config);
  } catch (const Error& e) {
    CHECK(e.code() == Exit::input);
    return "";
  }
}

// The configuration with another value at "rope_parameters.rope_theta".
Json changed(Json config, const std::string& path, const Json& value) {
  Json* inside = &config;
  const std::vector<std::string> keys = split(path, '.');
  for (std::size_t i = 0; i + 1 < keys.size(); ++i)
    inside = &(*inside)[keys[i]];
  (*inside)[keys.back()] = value;
  if (keys.back() == "rope_type" && value == "linear" && !inside->contains("factor"))
    (*inside)["factor"] = 2.5;
  return config;
}

}  // namespace

TEST_CASE("no key that changes what a class computes is ignored") {
  const fs::path folder = fs::path(MOE_SOURCE_DIR) / "tests/model";
  const Json record = read_json(folder / "config_keys.json").at("families");
  int counted = 0;
  std::set<std::string> seen;
  for (const auto& [family, keys] : record.items()) {
    const Json config = read_json(folder / "families" / (family + ".json")).at("config");
    const std::string usual = model_of(config);
    REQUIRE_FALSE(usual.empty());
    seen.insert(family);
    for (const auto& [path, found] : keys.items()) {
      if (!found.at("changes").get<bool>())
        continue;
      INFO(family << ": " << path << " = " << found.at("value"));
      CHECK(model_of(changed(config, path, found.at("value"))) != usual);
      ++counted;
    }
  }
  CHECK(counted > 800);
  for (const Family& f : families()) {
    INFO(f.name);
    CHECK((f.verified != Verified::by_class || seen.contains(std::string(f.name))));
  }
}
