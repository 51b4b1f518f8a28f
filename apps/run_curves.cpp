#include "apps/run_curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "analysis/curves/curves.h"
#include "apps/arguments.h"
#include "apps/terminal.h"
#include "apps/version.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr const char* event_file_name = "events.out.tfevents.0000000000.moe";

// A folder below `all` for each run, named as the run is; runs of one name get their whole path.
std::string folder_of(const TrainingLog& log, const std::vector<TrainingLog>& logs) {
  const auto name_of = [](const TrainingLog& l) {
    const fs::path path = fs::path(l.name).lexically_normal();
    return (path.has_filename() ? path.filename() : path.parent_path().filename()).string();
  };
  const std::string name = name_of(log);
  const auto same =
      std::ranges::count_if(logs, [&](const TrainingLog& l) { return name_of(l) == name; });
  if (same == 1)
    return name;
  std::string whole = fs::path(log.name).lexically_normal().string();
  std::ranges::replace(whole, '/', '_');
  return whole;
}

int write_events(const std::vector<TrainingLog>& logs, const OutputOptions& out) {
  if (out.to_screen()) {
    throw Error(Exit::usage, "event files are a folder: -o is missing")
        .hint("moe report runs/a -o events --format tensorboard, then tensorboard --logdir events");
  }
  refuse_existing(out.file, out.force);
  for (const TrainingLog& log : logs) {
    const fs::path folder = fs::path(out.file) / folder_of(log, logs);
    fs::create_directories(folder);
    write_file(folder / event_file_name, event_file(log));
  }
  note(fmt::format("wrote {} {} of event files to {}", logs.size(),
                   logs.size() == 1 ? "folder" : "folders", out.file));
  next_step("tensorboard --logdir " + out.file);
  return 0;
}

}  // namespace

bool are_runs(const std::vector<std::string>& paths) {
  const auto runs =
      std::ranges::count_if(paths, [](const std::string& p) { return is_run_folder(p); });
  if (runs > 0 && std::size_t(runs) < paths.size()) {
    throw Error(Exit::usage,
                "runs and traces were given together: a report is of runs or of traces")
        .hint("moe report runs/a runs/b, and moe report a.moetrace.h5 b.moetrace.h5");
  }
  return runs > 0;
}

int report_runs(const std::vector<std::string>& paths, const OutputOptions& out) {
  const bool events = out.format == "tensorboard";
  if (!events)
    check_output(out);
  std::vector<TrainingLog> logs;
  for (const std::string& path : paths)
    logs.push_back(read_training_log(path));
  if (events)
    return write_events(logs, out);
  const std::string format = format_for(out);
  if (format == "csv" || format == "json") {
    write_result(out.file, format == "csv" ? long_csv(logs) : long_json(logs), out.force);
    return 0;
  }
  Report r = training_curves(logs);
  r.facts.emplace_back("report by", "moe " + version_short());
  r.facts.emplace_back("report command", command_line());
  write_report(r, out);
  return 0;
}

}  // namespace moe
