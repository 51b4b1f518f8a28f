#include "analysis/curves/training_log.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/profile.h"
#include "lib/core/text.h"

namespace moe {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

// Numbers that are none are written as words or null.
double number(const Json& v) {
  if (v.is_number())
    return v.get<double>();
  if (v.is_string() && v.get<std::string>() == "inf")
    return INFINITY;
  return std::nan("");
}

double number_at(const Json& object, const char* key) {
  const auto at = object.find(key);
  return at == object.end() ? std::nan("") : number(*at);
}

void add(TrainingLog& log, LogPoint point) {
  if (!std::isnan(point.value))
    log.points.push_back(std::move(point));
}

void add_layers(TrainingLog& log, std::int64_t step, const Json& layers) {
  static constexpr std::pair<const char*, const char*> named[] = {
      {"cv", "load_cv"},
      {"maxvio", "load_maxvio"},
      {"dead", "dead_experts"},
      {"dropped", "dropped"},
      {"router_entropy", "router_entropy"}};
  for (const Json& layer : layers) {
    const int number_of_layer = layer.value("layer", -1);
    for (const auto& [key, figure] : named) {
      add(log, {.step = step,
                .figure = figure,
                .domain = {},
                .layer = number_of_layer,
                .value = number_at(layer, key)});
    }
  }
}

// What lines add up to.
struct Sums {
  std::deque<std::pair<double, double>> noise;  // trace and square of the last lines
  std::vector<std::pair<std::string, double>> times, first_times;  // seconds of all steps
  double timed = 0, first_timed = 0;                               // steps
};

// The noise scale over the last lines, a point of a curve.
void add_noise(TrainingLog& log, Sums& sums, std::int64_t step, const Json& line) {
  const double trace = number_at(line, "noise_trace");
  const double square = number_at(line, "noise_square");
  if (!std::isfinite(trace) || !std::isfinite(square))
    return;
  sums.noise.emplace_back(trace, square);
  if (sums.noise.size() > std::size_t(noise_window))
    sums.noise.pop_front();
  double all_traces = 0;
  double all_squares = 0;
  for (const auto& [t, s] : sums.noise) {
    all_traces += t;
    all_squares += s;
  }
  add(log, {.step = step,
            .figure = "noise_scale",
            .domain = {},
            .value = noise_scale(all_traces, all_squares)});
}

void add_times(Sums& sums, const Json& line) {
  const auto at = line.find("profile");
  if (at == line.end())
    return;
  const double steps = number_at(*at, "steps");
  const bool first = sums.first_timed == 0;
  auto& times = first ? sums.first_times : sums.times;
  (first ? sums.first_timed : sums.timed) += steps;
  std::vector<const char*> names = {"seconds"};
  for (std::size_t p = 0; p < time_parts; ++p)
    names.push_back(name_of(TimePart(p)));
  times.resize(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    times[i].first = names[i];
    times[i].second += steps * number_at(*at, names[i]);
  }
}

void settle_times(TrainingLog& log, const Sums& sums) {
  log.step_times = sums.times.empty() ? sums.first_times : sums.times;
  const double steps = sums.times.empty() ? sums.first_timed : sums.timed;
  for (auto& [part, seconds] : log.step_times)
    seconds /= steps;
}

// Of all answers that a validation asked for; NaN where it asked none.
double exact_share(const Json& domains) {
  double asked = 0;
  double exact = 0;
  for (const auto& [domain, figures] : domains.items()) {
    const auto answers = figures.find("answers");
    if (answers == figures.end())
      continue;
    for (const auto& [question, counts] : answers->items()) {
      asked += number_at(counts, "asked");
      exact += number_at(counts, "exact");
    }
  }
  return asked > 0 ? exact / asked : std::nan("");
}

void add_line(TrainingLog& log, Sums& sums, const Json& line) {
  if (const auto at = line.find("warning"); at != line.end()) {
    log.warnings.push_back(at->get<std::string>());
    return;
  }
  const auto step = line.at("step").get<std::int64_t>();
  for (const char* figure : {"loss", "valid_loss", "gradient_norm", "lr", "tokens_per_second"}) {
    add(log, {.step = step, .figure = figure, .domain = {}, .value = number_at(line, figure)});
  }
  if (const auto at = line.find("domains"); at != line.end()) {
    for (const auto& [domain, loss] : at->items()) {
      add(log, {.step = step,
                .figure = "valid_loss",
                .domain = domain,
                .value = number_at(loss, "loss")});
    }
    add(log, {.step = step, .figure = "exact_answers", .domain = {}, .value = exact_share(*at)});
  }
  if (const auto at = line.find("layers"); at != line.end())
    add_layers(log, step, *at);
  add_noise(log, sums, step, line);
  add_times(sums, line);
}

Json json_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  Json out = Json::parse(in, nullptr, false);
  if (!in.good() && !in.eof())
    throw Error(Exit::input, concat("cannot read '", path.string(), "'"));
  if (out.is_discarded() || !out.is_object())
    throw Error(Exit::input, concat("'", path.string(), "' is no JSON object"));
  return out;
}

// Options that name places or the seed, and not what is trained.
constexpr const char* of_one_run[] = {"seed",   "output",     "threads",     "device",
                                      "trace",  "resume",     "force",       "keep",
                                      "config", "save-every", "save-minutes"};

void describe(TrainingLog& log, const Json& run) {
  Json options = run.value("options", Json::object());
  log.seed = run.value("seed", std::uint64_t{0});
  for (const char* key : of_one_run)
    options.erase(key);
  log.spec = concat(run.value("model", ""), options.dump());
  for (const char* key : {"model", "router", "balance", "dense"}) {
    const auto at = options.find(key);
    if (at == options.end() || (at->is_string() && at->get<std::string>().empty()))
      continue;
    const std::string text = at->is_string() ? at->get<std::string>() : at->dump();
    log.model += concat(log.model.empty() ? "" : ", ", key, " ", text);
  }
}

}  // namespace

double noise_scale(double trace, double square) {
  const bool nothing = trace == 0 && square == 0;
  if (std::isnan(trace) || std::isnan(square) || nothing)
    return std::nan("");
  return square > 0 ? std::max(0.0, trace / square) : INFINITY;
}

bool is_run_folder(const fs::path& folder) {
  return fs::exists(folder / "run.json") && fs::exists(folder / "metrics.jsonl");
}

TrainingLog read_training_log(const fs::path& folder) {
  TrainingLog log;
  log.name = folder.string();
  describe(log, json_file(folder / "run.json"));
  std::ifstream in(folder / "metrics.jsonl", std::ios::binary);
  int number_of_line = 0;
  Sums sums;
  for (std::string text; std::getline(in, text);) {
    ++number_of_line;
    const Json line = Json::parse(text, nullptr, false);
    try {
      if (line.is_discarded())
        throw Error(Exit::input, "no JSON");
      add_line(log, sums, line);
    } catch (const std::exception&) {
      if (in.peek() != std::ifstream::traits_type::eof()) {
        throw Error(Exit::input,
                    concat("line ", number_of_line, " of '", (folder / "metrics.jsonl").string(),
                           "' is not what moe train writes"));
      }
      log.warnings.push_back(concat("the last line, ", number_of_line,
                                    ", is not whole and is left out: the run goes on, or was "
                                    "killed"));
    }
  }
  settle_times(log, sums);
  if (log.points.empty())
    throw Error(Exit::input, concat("'", folder.string(), "' has not logged a step yet"))
        .hint("moe train --log-every 1 logs every step");
  return log;
}

const std::vector<LogFigure>& log_figures() {
  static const std::vector<LogFigure> all = {
      {"loss", "Training loss", "nats a token",
       "mean over the tokens of a step, without balance "
       "losses"},
      {"valid_loss", "Validation loss", "nats a token", "mean over held-out text"},
      {"exact_answers", "Exact answers", "share",
       "of the questions that held-out samples ask, all kinds together"},
      {"load_cv", "Load CV", "", "of a step's loads, the mean over layers; 0 = even"},
      {"load_maxvio", "MaxVio", "x mean",
       "how far the busiest expert lies above the mean in a step, the mean over layers"},
      {"dead_experts", "Experts without a token", "experts", "in a step, over all layers"},
      {"dropped", "Dropped by capacity", "share", "of a step's choices, the mean over layers"},
      {"router_entropy", "Router entropy", "nats", "of the scores, the mean over layers"},
      {"gradient_norm", "Gradient norm", "", "of all weights, before clipping"},
      {"noise_scale", "Gradient noise scale", "tokens",
       "the batch whose gradient is as much noise as signal, over the last 20 logged steps"},
      {"lr", "Learning rate", "", "of the step"},
      {"tokens_per_second", "Speed", "tokens/s", "since the line before"}};
  return all;
}

}  // namespace moe
