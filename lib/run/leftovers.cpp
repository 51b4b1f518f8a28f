#include "lib/run/leftovers.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "lib/checkpoint/folder.h"

namespace moe {

bool is_leftover(const std::filesystem::path& path) {
  static constexpr std::array ours = {".run.json.", ".metrics.jsonl.", ".machine.json."};
  const std::string name = path.filename().string();
  return name == "lock" ||
         (name.ends_with(".tmp") &&
          std::ranges::any_of(ours, [&](std::string_view s) { return name.starts_with(s); }));
}

void clear_leftovers(const std::filesystem::path& folder) {
  std::error_code ignored;  // what cannot be removed is only in the way of nobody
  std::vector<std::filesystem::path> left;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().filename() != "lock" && is_leftover(entry.path()))
      left.push_back(entry.path());
  }
  for (const auto& path : left)
    std::filesystem::remove(path, ignored);
  remove_unfinished_checkpoints(folder);
}

}  // namespace moe
