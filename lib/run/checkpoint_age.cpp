#include "lib/run/checkpoint_age.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/run/run_folder.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

bool is_run(const fs::path& given, const LoadedModel& loaded) {
  return loaded.state && fs::exists(given / "run.json") &&
         loaded.checkpoint.path.lexically_normal() != given.lexically_normal();
}

// The last step that has a line in metrics.jsonl; -1 = none. Of a long file only the end is read.
Index last_logged_step(const fs::path& metrics) {
  constexpr std::streamoff most = 1 << 20;
  std::ifstream in(metrics, std::ios::binary | std::ios::ate);
  if (!in)
    return -1;
  in.seekg(std::max<std::streamoff>(0, std::streamoff(in.tellg()) - most));
  Index last = -1;
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (j.is_object() && j.contains("step") && j["step"].is_number_integer())
      last = std::max(last, j["step"].get<Index>());
  }
  return last;
}

}  // namespace

std::string checkpoint_taken(const fs::path& given, const LoadedModel& loaded) {
  if (!is_run(given, loaded))
    return "";
  const Index horizon = loaded.state->train.steps;
  return concat(loaded.checkpoint.path.filename().string(), " of ", given.string(), ", step ",
                loaded.checkpoint.step, horizon > 0 ? concat(" of ", horizon) : "");
}

std::vector<std::string> checkpoint_warnings(const fs::path& given, const LoadedModel& loaded) {
  if (!loaded.state)
    return {};
  std::vector<std::string> out;
  const Index step = loaded.checkpoint.step;
  if (step == 0 && loaded.state->train.steps > 0) {
    out.push_back(concat("'", loaded.checkpoint.path.string(),
                         "' is of step 0: its weights are those the run began with, and it has "
                         "learnt nothing yet"));
  }
  const Index logged = is_run(given, loaded) ? last_logged_step(given / "metrics.jsonl") : -1;
  if (logged > step) {
    out.push_back(concat("the newest checkpoint of '", given.string(), "' is of step ", step,
                         ", and its metrics.jsonl goes on to step ", logged,
                         ": the run still trains, or was stopped between two checkpoints"));
  }
  return out;
}

}  // namespace moe
