#include "lib/checkpoint/shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <regex>

namespace moe {
namespace fs = std::filesystem;
namespace {

constexpr int most_shards = 100'000;

}  // namespace

ShardFiles shards_by_name(const fs::path& folder) {
  static const std::regex named("model-([0-9]{1,6})-of-([0-9]{1,6})\\.safetensors");
  std::map<int, std::string> there;
  std::size_t digits = 5;
  int count = 0;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().native();
    std::smatch m;
    if (!std::regex_match(name, m, named))
      continue;
    count = std::max(count, std::stoi(m[2]));
    digits = std::size_t(m[1].length());
    there[std::stoi(m[1])] = name;
  }
  ShardFiles out;
  for (int i = 1; !there.empty() && i <= std::min(count, most_shards); ++i) {
    if (const auto at = there.find(i); at != there.end())
      out.there.push_back(at->second);
    else
      out.missing.push_back(
          fmt::format("model-{:0{}}-of-{:0{}}.safetensors", i, digits, count, digits));
  }
  return out;
}

bool has_safetensors(const fs::path& folder) {
  std::error_code none;
  return fs::exists(folder / "model.safetensors", none) ||
         fs::exists(folder / "model.safetensors.index.json", none) ||
         !shards_by_name(folder).there.empty();
}

}  // namespace moe
