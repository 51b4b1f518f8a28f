#include "lib/study/timing.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/json.h"
#include "lib/files/lines.h"
#include "lib/study/measure.h"
#include "lib/study/process.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

// Tokens of a step, from the state in any checkpoint of the run.
double tokens_of_step(const fs::path& run) {
  for (const auto& entry : fs::directory_iterator(run)) {
    if (!fs::exists(entry.path() / "state.json"))
      continue;
    const Json train = read_json(entry.path() / "state.json").at("train");
    return train.at("sequences").get<double>() * train.at("length").get<double>() *
           train.at("accumulate").get<double>();
  }
  throw Error(Exit::input, concat("'", run.string(), "' holds no checkpoint"));
}

}  // namespace

std::vector<double> step_seconds(const fs::path& run) {
  const double tokens = tokens_of_step(run);
  std::vector<double> out;
  double before = 0;
  LineReader lines(run / "metrics.jsonl");
  for (std::string text; lines.next(text);) {
    const Json line = Json::parse(text, nullptr, false);
    if (!line.is_object() || !line.contains("tokens_per_second") ||
        !line["tokens_per_second"].is_number())
      continue;
    // the mean speed since the start gives the time since the start
    const double since =
        tokens * line.at("step").get<double>() / line["tokens_per_second"].get<double>();
    out.push_back(since - before);
    before = since;
  }
  return out;
}

void write_timing(const fs::path& folder, double cpu_seconds) {
  std::vector<double> times = step_seconds(folder / "run");
  if (times.size() <= std::size_t(warm_steps)) {
    throw Error(Exit::input, concat("'", folder.string(), "' has too few steps to be timed"))
        .hint("more steps in [timing]");
  }
  times.erase(times.begin(), times.begin() + warm_steps);
  std::ranges::sort(times);
  const double median = times[times.size() / 2];
  const Json unit = read_json(folder / unit_file);
  const double wall = unit.at("seconds").get<double>();
  const double own = unit.at("cpu_seconds").get<double>();
  const double others = std::max(0.0, cpu_seconds - own) / (wall * machine_cores());
  write_json(folder / timing_file, {{"step_time", median},
                                    {"tokens_per_second", tokens_of_step(folder / "run") / median},
                                    {"others", others}});
}

}  // namespace moe
