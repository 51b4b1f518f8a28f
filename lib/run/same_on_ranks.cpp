#include "lib/run/same_on_ranks.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "lib/checkpoint/manifest.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/any_bytes.h"
#include "lib/model/config.h"
#include "lib/run/data_identity.h"

namespace moe {
namespace {

// "/data/0/domain" as "data.0.domain", "/options/seed" as "--seed"
std::string called(std::string path) {
  constexpr std::string_view option = "/options.";
  if (path.empty())
    return path;
  std::ranges::replace(path.begin() + 1, path.end(), '/', '.');
  if (path.starts_with(option))
    return "--" + path.substr(option.size());
  return path.substr(1);
}

std::string value_at(const Json& flat, const std::string& path) {
  constexpr std::size_t most = 200;
  if (!flat.contains(path))
    return "nothing";
  const std::string text = flat[path].dump();
  return text.size() > most ? text.substr(0, most) + "..." : text;
}

void refuse_other(const Json& first, const Json& other, std::size_t rank) {
  const Json here = first.flatten();
  const Json there = other.flatten();
  std::set<std::string> paths;
  for (const Json* flat : {&here, &there}) {
    for (const auto& [path, value] : flat->items())
      paths.insert(path);
  }
  for (const std::string& path : paths) {
    if (here.contains(path) && there.contains(path) && here[path] == there[path])
      continue;
    throw Error(Exit::environment, concat("ranks are not those of one run: ", called(path), " is ",
                                          value_at(here, path), " on rank 0 and ",
                                          value_at(there, path), " on rank ", rank))
        .hint(
            "the same moe, the same options, and files with the same bytes under the same paths "
            "for all ranks");
  }
}

}  // namespace

void require_same_on_ranks(Comm& comm, About about, const Json& facts) {
  if (comm.alone())
    return;
  // names of files may be no UTF-8
  const std::string mine = facts.dump(-1, ' ', false, Json::error_handler_t::replace);
  const auto all = comm.gather<char>(about, std::span(mine));
  for (std::size_t r = 1; r < all.size(); ++r) {
    if (all[r] != all[0])
      refuse_other(Json::parse(all[0]), Json::parse(all[r]), r);
  }
}

void require_same_run(const RunContext& context, const RunState& state, const Corpus& corpus) {
  if (!context.comm || context.comm->alone())
    return;
  const RankOptions& ranks = context.ranks;
  Json run = state_json(state);
  run.erase("options");  // with threads and files, which may be each rank's own
  run.erase("device");
  run.erase("origin");  // below: where something else is the cause, that is said
  require_same_on_ranks(*context.comm, {"what a run computes with"},
                        {{"moe", context.provenance.version},
                         {"run", std::move(run)},
                         {"data", data_identity(corpus)},
                         {"ranks",
                          {{"zero", ranks.zero},
                           {"ep", ranks.expert_ranks},
                           {"move", ranks.move ? int(*ranks.move) : -1},
                           {"send", int(ranks.send)},
                           {"nodes", ranks.nodes}}},
                         {"weights", state.run_id}});
}

void require_same_reading(Comm& comm, const LoadedModel& loaded, const Corpus& corpus) {
  if (comm.alone())
    return;
  const std::filesystem::path& folder = loaded.checkpoint.path;
  Json facts = {{"checkpoint", escaped(folder.string())},
                {"model", to_spec(loaded.model->config())},
                {"data", data_identity(corpus)}};
  if (std::filesystem::exists(folder / manifest_name)) {
    for (const auto& [name, file] : read_manifest(folder).files)
      facts["files"][name] = {{"bytes", file.bytes}, {"xxh3", file.hash}};
  }
  require_same_on_ranks(comm, {"what ranks read"}, facts);
}

}  // namespace moe
