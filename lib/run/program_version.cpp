#include "lib/run/program_version.h"

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/json.h"

namespace moe {
namespace {

std::string number_of(const std::string& version) {
  return version.substr(0, version.find(' '));
}

}  // namespace

std::string check_program_version(const std::filesystem::path& folder, const std::string& version,
                                  bool accept) {
  const std::filesystem::path path = folder / "run.json";
  if (!std::filesystem::exists(path))
    return "";
  Json run = read_json(path);
  if (!run.contains("moe") || !run["moe"].is_string() || run["moe"] == version)
    return "";
  const std::string former = run["moe"].get<std::string>();
  if (number_of(former) == number_of(version)) {
    return concat("the run was begun by moe ", former, " and goes on with ", version,
                  ": where the builds differ in what they compute, so do its results from here on");
  }
  if (!accept) {
    throw Error(Exit::input, concat("the run '", folder.string(), "' was begun by moe ", former,
                                    " and this is ", version, ", which may compute other results"))
        .hint("--version-changed accept goes on with this version")
        .safe("nothing was changed");
  }
  run["moe"] = version;
  write_json(path, run);
  return "";
}

}  // namespace moe
