#include "lib/run/end_ids.h"

#include <nlohmann/json.hpp>
#include <set>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"

namespace moe {
namespace {

void add(const std::filesystem::path& file, std::set<int>& ids) {
  const Json json = read_json(file, {.python_words = true});
  if (!json.is_object() || !json.contains("eos_token_id") || json["eos_token_id"].is_null())
    return;
  const Json& said = json["eos_token_id"];
  for (const Json& id : said.is_array() ? said : Json::array({said})) {
    const bool whole = id.is_number_unsigned() && id.get<std::uint64_t>() < (1u << 31);
    // -1 stands for none in some published files
    if (!whole && !(id.is_number_integer() && id.get<std::int64_t>() == -1)) {
      throw Error(Exit::input, concat(in_quotes(file), " has ", id.dump().substr(0, 40),
                                      " as eos_token_id, which is not a token id"))
          .hint("one id, or a list of ids");
    }
    if (whole)
      ids.insert(id.get<int>());
  }
}

}  // namespace

std::vector<int> end_ids(const std::filesystem::path& folder) {
  std::set<int> ids;
  for (const char* name : {"config.json", "generation_config.json"}) {
    if (std::filesystem::exists(folder / name))
      add(folder / name, ids);
  }
  return {ids.begin(), ids.end()};
}

}  // namespace moe
