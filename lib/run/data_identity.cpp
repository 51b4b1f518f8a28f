#include "lib/run/data_identity.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/files/json.h"

namespace moe {
namespace {

// What differs between two domains, as a sentence; "" where nothing does.
std::string difference(const Json& before, const Json& now) {
  for (const char* key : {"train_tokens", "valid_tokens"}) {
    if (before.at(key) != now.at(key)) {
      return fmt::format(
          "had {} {} and has {}", before.at(key).dump(),
          std::string(key) == "train_tokens" ? "training tokens" : "validation tokens",
          now.at(key).dump());
    }
  }
  return before.value("xxh3", "") == now.value("xxh3", "") ? ""
                                                           : "has other text of the same length";
}

[[noreturn]] void refuse(const std::filesystem::path& folder, const std::string& why) {
  throw Error(Exit::input, fmt::format("the data are not those that the run {} began with: {}",
                                       in_quotes(folder), why))
      .hint("bring the data back; --data-changed accept goes on with these, as another run")
      .safe("the run was not touched");
}

}  // namespace

Json data_identity(const Corpus& corpus) {
  const DatasetInfo& info = corpus.info();
  Json out = Json::array();
  for (std::size_t d = 0; d < info.domains.size(); ++d) {
    Json domain = {{"domain", info.domains[d]},
                   {"train_tokens", info.train_tokens[d]},
                   {"valid_tokens", info.valid_tokens[d]}};
    if (info.content_hash[d] != 0)
      domain["xxh3"] = fmt::format("{:016x}", info.content_hash[d]);
    out.push_back(std::move(domain));
  }
  return out;
}

void require_same_data(const std::filesystem::path& folder, const Corpus& corpus) {
  const Json run = read_json(folder / "run.json");
  if (!run.contains("data_identity"))
    return;
  const Json& before = run["data_identity"];
  const Json now = data_identity(corpus);
  if (before.size() != now.size())
    refuse(folder, fmt::format("{} domains became {}", before.size(), now.size()));
  for (std::size_t d = 0; d < now.size(); ++d) {
    const std::string name = now[d].at("domain");
    if (before[d].at("domain") != name)
      refuse(folder,
             fmt::format("domain {} became {}", before[d].at("domain").dump(), in_quotes(name)));
    if (const std::string what = difference(before[d], now[d]); !what.empty())
      refuse(folder, fmt::format("domain {} {}", in_quotes(name), what));
  }
}

void accept_data(const std::filesystem::path& folder, const Corpus& corpus) {
  Json run = read_json(folder / "run.json");
  run["data_identity"] = data_identity(corpus);
  write_json(folder / "run.json", run);
}

}  // namespace moe
