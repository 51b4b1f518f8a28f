// What a run wrote while it trained: run.json and metrics.jsonl, read without the model.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace moe {

// One number of a run at one step.
struct LogPoint {
  std::int64_t step = 0;
  std::string figure;  // "loss", "load_cv", ...: a row of figures()
  std::string domain;  // of losses by domain; "" = all
  int layer = -1;      // absolute number; -1 = of the whole model
  double value = 0;
};

struct TrainingLog {
  std::string name;   // of the folder
  std::string spec;   // model, data and schedule; the same for runs that differ in the seed
  std::string model;  // for people: "tiny, router softmax:k=2"
  std::uint64_t seed = 0;
  std::vector<LogPoint> points;  // by step
  // of a run with --profile: seconds of a step and of its parts, in the mean over its steps but
  // those of the first line, where there are others; "seconds" first
  std::vector<std::pair<std::string, double>> step_times;
  std::vector<std::string> warnings;  // that the run wrote, and what of the file cannot be read
};

// The gradient noise scale of logged steps, in tokens: the sum of their `trace` by that of their
// `square` (lib/model/noise.h); infinite where no signal is left, NaN where
// there was no gradient at all.
double noise_scale(double trace, double square);
inline constexpr int noise_window = 20;  // logged steps that a point of a curve takes together

bool is_run_folder(const std::filesystem::path&);  // it has a run.json and a metrics.jsonl

// Throws Error(input) where one of the two cannot be read. A last line that was cut (of a run that
// goes on, or was killed) is left out and named.
TrainingLog read_training_log(const std::filesystem::path& folder);

struct LogFigure {
  const char *name, *title, *unit, *meaning;
};
// What logs hold, in the order of a report: loss, valid_loss, load_cv, ...
const std::vector<LogFigure>& log_figures();

}  // namespace moe
