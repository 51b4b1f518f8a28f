#include "lib/study/measure.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/curves/spikes.h"
#include "analysis/curves/training_log.h"
#include "analysis/metric/definitions.h"
#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/study/json_cells.h"

namespace moe {

const Registry<MeasureName>& measures() {
  static const Registry<MeasureName> all("measure", {
#define MEASURE(name, about, examples) {#name, about, examples, nullptr},
#include "lib/study/measures.def"
#undef MEASURE
                                                    });
  return all;
}

namespace {

namespace fs = std::filesystem;
constexpr double none = std::numeric_limits<double>::quiet_NaN();

Reduce reduction(Spec& spec, const char* key) {
  static const std::vector<std::string> names = {"mean", "most", "least", "first", "last"};
  const std::string given = spec.choice(key, names);
  return Reduce(std::ranges::find(names, given) - names.begin());
}

[[noreturn]] void refuse_name(const std::string& name) {
  std::vector<std::string> names = measures().names();
  for (const Definition& d : definitions())
    names.emplace_back(d.id);
  const std::string near = nearest(name, names);
  throw Error(Exit::usage, concat("nothing measures '", name, "'"))
      .hint(concat(near.empty() ? "" : concat("'", near, "'? "), join(measures().names()),
                   ", or any metric id of docs/metrics.md"));
}

// The last training losses, and the loss of the last validation.
double mean_of_last(const TrainingLog& log, int count) {
  double sum = 0;
  int n = 0;
  for (auto p = log.points.rbegin(); p != log.points.rend() && n < count; ++p) {
    if (p->figure != "loss")
      continue;
    sum += p->value;
    ++n;
  }
  return n > 0 ? sum / n : none;
}

double last_validation(const TrainingLog& log, const std::string& domain) {
  double last = none;
  for (const LogPoint& p : log.points) {
    if (p.figure == "valid_loss" && p.domain == domain)
      last = p.value;
  }
  return last;
}

double share_of(const TrainingLog& log, const std::string& part) {
  std::vector<std::string> known;
  for (const auto& [name, seconds] : log.step_times) {
    if (name == part)
      return seconds / log.step_times[0].second;
    known.push_back(name);
  }
  if (known.empty()) {
    throw Error(Exit::usage, concat("'", log.name, "' was not profiled"))
        .hint("--profile in the train command of the study");
  }
  throw Error(Exit::usage, concat("no part of a step is called '", part, "'"))
      .hint(concat("there are ", join({known.begin() + 1, known.end()})));
}

double first_step_below(const TrainingLog& log, double loss) {
  for (const LogPoint& p : log.points) {
    if (p.figure == "valid_loss" && p.domain.empty() && p.value <= loss)
      return double(p.step);
  }
  return std::numeric_limits<double>::infinity();
}

}  // namespace

Measure::Measure(const std::string& text) {
  Spec spec(text);
  name_ = spec.name();
  title_ = name_;
  if (!is_of_losses(spec) && !is_of_run(spec) && !is_of_probes(spec) && !is_of_tables(spec))
    refuse_name(name_);
  spec.done();
}

bool Measure::is_of_losses(Spec& spec) {
  unit_ = "nats";
  if (name_ == "loss") {
    kind_ = Kind::loss;
    domain_ = spec.get("domain", "");
    title_ = domain_.empty() ? "validation loss" : concat("validation loss, ", domain_);
  } else if (name_ == "train_loss") {
    kind_ = Kind::train_loss;
    last_ = spec.get("last", 1, 1);
    title_ = "training loss";
  } else if (name_ == "steps_to_loss") {
    kind_ = Kind::steps_to_loss;
    at_ = spec.get("at", none);
    title_ = concat("steps to a validation loss of ", at_);
    unit_ = "steps";
    if (std::isnan(at_))
      throw Error(Exit::usage, "steps_to_loss does not say which loss")
          .hint("steps_to_loss:at=2.5");
  } else if (name_ == "loss_spikes") {
    kind_ = Kind::loss_spikes;
    at_ = spec.get("deviations", spike_deviations, 1.0);
    title_ = "loss spikes";
    unit_.clear();
  } else {
    unit_.clear();
    return false;
  }
  run_ = spec.get("run", "run");
  return true;
}

bool Measure::is_of_run(Spec& spec) {
  if (name_ == "log") {
    kind_ = Kind::log;
    run_ = spec.get("run", "run");
    figure_ = spec.get("figure", "");
    layers_ = reduction(spec, "layers");
    experts_ = reduction(spec, "experts");
    last_ = spec.get("last", 1, 1);
    title_ = figure_;
    if (figure_.empty())
      throw Error(Exit::usage, "log does not say which figure").hint("log:figure=gradient_norm");
  } else if (name_ == "parameters" || name_ == "active_parameters") {
    kind_ = Kind::run_number;
    run_ = spec.get("run", "run");
    title_ = name_ == "parameters" ? "parameters" : "active parameters";
  } else if (name_ == "peak_memory") {
    kind_ = Kind::memory;
    title_ = "peak memory";
    unit_ = "MiB";
  } else if (name_ == "step_time" || name_ == "tokens_per_second") {
    kind_ = Kind::time;
    title_ = name_ == "step_time" ? "time of a step" : "training speed";
    unit_ = name_ == "step_time" ? "s" : "tokens/s";
  } else {
    return false;
  }
  return true;
}

bool Measure::is_of_probes(Spec& spec) {
  if (name_ == "noise_scale") {
    kind_ = Kind::noise_scale;
    by_expert_ = spec.choice("of", {"model", "experts"}) == "experts";
    if (by_expert_) {
      layers_ = reduction(spec, "layers");
      experts_ = reduction(spec, "experts");
    }
    last_ = spec.get("last", 0, 0);
    title_ = by_expert_ ? "gradient noise scale of experts" : "gradient noise scale";
    unit_ = "tokens";
  } else if (name_ == "time_share") {
    kind_ = Kind::time_share;
    figure_ = spec.get("part", "");
    title_ = concat("share of ", figure_, " in the time of a step");
    if (figure_.empty())
      throw Error(Exit::usage, "time_share does not say of which part")
          .hint("time_share:part=routing; docs/probes.md lists the parts");
  } else {
    return false;
  }
  run_ = spec.get("run", "run");
  return true;
}

bool Measure::is_of_tables(Spec& spec) {
  if (name_ == "cell") {
    kind_ = Kind::cell;
    file_ = spec.get("file", "");
    row_ = spec.get("row", "");
    layers_ = reduction(spec, "rows");
  } else if (find_definition(name_)) {
    kind_ = Kind::metric;
    file_ = spec.get("file", report_file);
    layers_ = reduction(spec, "layers");
  } else {
    return false;
  }
  table_ = spec.get("table", "");
  column_ = spec.get("column", "");
  if (kind_ == Kind::cell && (file_.empty() || column_.empty())) {
    throw Error(Exit::usage, "cell does not say which file and column")
        .hint("cell:file=eval.json,table=loss,column=loss");
  }
  if (kind_ == Kind::cell)
    title_ = column_;
  return true;
}

bool Measure::is_time() const {
  return kind_ == Kind::time;
}

bool Measure::needs_report() const {
  return kind_ == Kind::metric && file_ == report_file;
}

// Where the number would stand.
fs::path Measure::source(const fs::path& folder) const {
  switch (kind_) {
    case Kind::memory:
      return folder / unit_file;
    case Kind::time:
      return folder / timing_file;
    case Kind::cell:
    case Kind::metric:
      return folder / file_;
    default:
      return folder / run_ / "metrics.jsonl";
  }
}

double Measure::value(const fs::path& folder) const {
  if (!fs::exists(source(folder)))
    return none;
  switch (kind_) {
    case Kind::loss:
      return last_validation(read_training_log(folder / run_), domain_);
    case Kind::train_loss:
      return mean_of_last(read_training_log(folder / run_), last_);
    case Kind::steps_to_loss:
      return first_step_below(read_training_log(folder / run_), at_);
    case Kind::loss_spikes:
      return double(loss_spikes(read_training_log(folder / run_), at_).size());
    case Kind::log:
      return logged(folder / run_ / "metrics.jsonl", figure_, layers_, experts_, last_);
    case Kind::noise_scale:
      return noise_of(folder / run_ / "metrics.jsonl", by_expert_, layers_, experts_, last_);
    case Kind::time_share:
      return share_of(read_training_log(folder / run_), figure_);
    case Kind::run_number:
      return number_of(folder / run_ / "run.json", name_);
    case Kind::memory:
      return number_of(folder / unit_file, "peak_bytes") / double(1 << 20);
    case Kind::time:
      return number_of(folder / timing_file, name_);
    case Kind::cell:
      return cell_of(folder / file_, {table_, column_, "", row_, layers_});
    case Kind::metric:
      return cell_of(folder / file_, {table_, column_, name_, "", layers_});
  }
  return none;
}

}  // namespace moe
