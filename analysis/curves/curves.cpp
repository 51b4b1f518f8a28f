#include "analysis/curves/curves.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "analysis/curves/spikes.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t most_rows = 100;

struct Group {  // runs of one spec
  std::string name;
  std::vector<const TrainingLog*> runs;
};

std::vector<Group> groups_of(const std::vector<TrainingLog>& logs) {
  std::vector<Group> out;
  std::map<std::string, std::size_t> known;
  for (const TrainingLog& log : logs) {
    const auto [at, fresh] = known.try_emplace(log.spec, out.size());
    if (fresh)
      out.push_back({log.name, {}});
    out[at->second].runs.push_back(&log);
  }
  for (Group& g : out) {
    if (g.runs.size() > 1)
      g.name +=
          concat(" and ", g.runs.size() - 1, g.runs.size() == 2 ? " other seed" : " other seeds");
  }
  return out;
}

// Steps cut into stretches: each holds a point of every run that logs evenly.
struct Stretches {
  std::int64_t width = 1, last = 0;
  std::size_t count() const {
    return std::size_t((last + width - 1) / width);
  }
  std::size_t of(std::int64_t step) const {
    return std::size_t(std::max<std::int64_t>(0, (step - 1) / width));
  }
};

using Key = std::pair<std::string, std::string>;  // figure and domain

std::set<std::int64_t> steps_with(const TrainingLog& log, const Key& key) {
  std::set<std::int64_t> out;
  for (const LogPoint& p : log.points) {
    if (p.figure == key.first && p.domain == key.second)
      out.insert(p.step);
  }
  return out;
}

Stretches stretches_of(const std::vector<TrainingLog>& logs, const Key& key) {
  Stretches out;
  std::size_t rows = most_rows;
  for (const TrainingLog& log : logs) {
    const auto steps = steps_with(log, key);
    if (steps.empty())
      continue;
    rows = std::min(rows, steps.size());
    out.last = std::max(out.last, *steps.rbegin());
  }
  const auto count = std::int64_t(std::max<std::size_t>(1, rows));
  out.width = std::max<std::int64_t>(1, (out.last + count - 1) / count);
  return out;
}

// The mean of a run in every stretch; figures by layer are means over layers, counts of experts
// sums.
std::vector<double> curve(const TrainingLog& log, const Key& key, const Stretches& s) {
  std::map<std::int64_t, std::pair<double, int>> by_step;
  for (const LogPoint& p : log.points) {
    if (p.figure != key.first || p.domain != key.second || !std::isfinite(p.value))
      continue;
    auto& [sum, n] = by_step[p.step];
    sum += p.value;
    n = key.first == "dead_experts" ? 1 : n + 1;
  }
  std::vector<double> sum(s.count(), 0);
  std::vector<double> n(s.count(), 0);
  for (const auto& [step, value] : by_step) {
    sum[s.of(step)] += value.first / value.second;
    n[s.of(step)] += 1;
  }
  for (std::size_t i = 0; i < sum.size(); ++i)
    sum[i] = n[i] > 0 ? sum[i] / n[i] : none;
  return sum;
}

Column column_of(const Group& g, const LogFigure& f, const Key& key, const Stretches& s) {
  Column out{.name = g.name + (key.second.empty() ? "" : ", " + key.second),
             .unit = f.unit,
             .meaning = f.meaning,
             .cells = std::vector<double>(s.count(), 0),
             .metric = std::string("training_") + f.name,
             .digits = 4};
  auto& mean = std::get<std::vector<double>>(out.cells);
  std::vector<double> low(s.count(), none);
  std::vector<double> high(s.count(), none);
  std::vector<double> runs(s.count(), 0);
  for (const TrainingLog* log : g.runs) {
    const std::vector<double> one = curve(*log, key, s);
    for (std::size_t i = 0; i < one.size(); ++i) {
      if (std::isnan(one[i]))
        continue;
      mean[i] += one[i];
      runs[i] += 1;
      low[i] = std::fmin(low[i], one[i]);  // of a number and none the number
      high[i] = std::fmax(high[i], one[i]);
    }
  }
  for (std::size_t i = 0; i < mean.size(); ++i)
    mean[i] = runs[i] > 0 ? mean[i] / runs[i] : none;
  if (g.runs.size() > 1) {
    out.low = low;
    out.high = high;
    out.extremes = true;
    out.meaning += "; the mean of the seeds, from the lowest to the highest of them";
  }
  return out;
}

Table table_of(const std::vector<TrainingLog>& logs, const std::vector<Group>& groups,
               const LogFigure& f, const std::vector<std::string>& domains) {
  const Stretches s = stretches_of(logs, {f.name, domains[0]});
  Table out{.id = concat("training_", f.name, domains[0].empty() ? "" : "_domains"),
            .title = concat(f.title, domains[0].empty() ? "" : " by domain"),
            .chart = Chart::lines,
            .section = "training"};
  if (s.width > 1)
    out.reading = concat("A row is the mean of ", s.width, " steps, the last of which it names.");
  std::vector<std::int64_t> last;
  for (std::size_t i = 0; i < s.count(); ++i)
    last.push_back(std::min(s.last, std::int64_t(i + 1) * s.width));
  out.columns.push_back({.name = "step", .cells = last});
  for (const Group& g : groups) {
    for (const std::string& d : domains)
      out.columns.push_back(column_of(g, f, {f.name, d}, s));
  }
  return out;
}

std::vector<std::string> domains_of(const std::vector<TrainingLog>& logs) {
  std::set<std::string> out;
  for (const TrainingLog& log : logs) {
    for (const LogPoint& p : log.points) {
      if (!p.domain.empty())
        out.insert(p.domain);
    }
  }
  return {out.begin(), out.end()};
}

bool has(const std::vector<TrainingLog>& logs, const char* figure) {
  return std::ranges::any_of(logs, [&](const TrainingLog& log) {
    return std::ranges::any_of(log.points, [&](const LogPoint& p) { return p.figure == figure; });
  });
}

std::int64_t last_step(const TrainingLog& log) {
  std::int64_t out = 0;
  for (const LogPoint& p : log.points)
    out = std::max(out, p.step);
  return out;
}

// The last validation of every run, beside one another: what a reader asks first.
Table outcome(const std::vector<TrainingLog>& logs) {
  std::vector<std::string> name;
  std::vector<std::int64_t> step, seed;
  std::vector<double> train, valid;
  std::vector<std::int64_t> spikes;
  for (const TrainingLog& log : logs) {
    name.push_back(log.name);
    seed.push_back(std::int64_t(log.seed));
    step.push_back(last_step(log));
    double last_train = none;
    double last_valid = none;
    for (const LogPoint& p : log.points) {
      if (p.figure == "loss")
        last_train = p.value;
      if (p.figure == "valid_loss" && p.domain.empty())
        last_valid = p.value;
    }
    spikes.push_back(std::int64_t(loss_spikes(log).size()));
    train.push_back(last_train);
    valid.push_back(last_valid);
  }
  Table out{.id = "training_outcome", .title = "Where the runs stand", .section = "training"};
  out.columns = {{.name = "run", .cells = name},
                 {.name = "seed", .cells = seed},
                 {.name = "step", .cells = step},
                 {.name = "training loss",
                  .unit = "nats",
                  .meaning = "of the last logged step alone, which is noisy",
                  .cells = train,
                  .metric = "training_loss",
                  .digits = 4},
                 {.name = "validation loss",
                  .unit = "nats",
                  .meaning = "of the last validation",
                  .cells = valid,
                  .metric = "training_valid_loss",
                  .digits = 4},
                 {.name = "spikes",
                  .meaning = "logged steps whose training loss stands out from the 20 before",
                  .cells = spikes,
                  .metric = "training_loss_spikes"}};
  return out;
}

// Where the time of a step goes, of the runs that were profiled.
std::optional<Table> times(const std::vector<TrainingLog>& logs) {
  std::vector<std::string> part;
  Table out{.id = "training_time", .title = "Where the time of a step goes", .section = "training"};
  out.reading =
      "Of runs with --profile, in the mean over their steps but those of the first line. Each "
      "moment belongs to one part; parts add up to the step.";
  for (const TrainingLog& log : logs) {
    if (log.step_times.empty())
      continue;
    if (part.empty()) {
      for (const auto& [name, seconds] : log.step_times)
        part.push_back(name == "seconds" ? "step" : name);
      out.columns.push_back({.name = "part", .cells = part});
    }
    std::vector<double> ms, share;
    for (const auto& [name, seconds] : log.step_times) {
      ms.push_back(1000 * seconds);
      share.push_back(100 * seconds / log.step_times[0].second);
    }
    const std::string of = logs.size() > 1 ? concat(", ", log.name) : "";
    out.columns.push_back({.name = "time" + of,
                           .unit = "ms",
                           .meaning = "of a step",
                           .cells = ms,
                           .metric = "training_part_time",
                           .digits = 3});
    out.columns.push_back({.name = "share" + of,
                           .unit = "%",
                           .meaning = "of the step's time",
                           .cells = share,
                           .metric = "training_part_share",
                           .digits = 1});
  }
  if (part.empty())
    return {};
  return out;
}

// The last validation losses of the runs of one spec.
struct Span {
  std::string name;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  std::size_t runs = 0;
};

double last_validation(const TrainingLog& log) {
  double last = none;
  for (const LogPoint& p : log.points) {
    if (p.figure == "valid_loss" && p.domain.empty())
      last = p.value;
  }
  return last;
}

// The lowest first; without those that were never validated.
std::vector<Span> spans_of(const std::vector<Group>& groups) {
  std::vector<Span> out;
  for (const Group& g : groups) {
    Span s{.name = g.name};
    for (const TrainingLog* log : g.runs) {
      const double last = last_validation(*log);
      if (std::isnan(last))
        continue;
      s.low = std::min(s.low, last);
      s.high = std::max(s.high, last);
      ++s.runs;
    }
    if (s.runs > 0)
      out.push_back(s);
  }
  std::ranges::sort(out, {}, &Span::low);
  return out;
}

Finding compared(const Span& best, const Span& other) {
  if (best.runs < 2 || other.runs < 2) {
    return {concat(best.name, " and ", other.name,
                   " cannot be ranked by their validation losses: without several seeds of each, "
                   "what chance gives is not known."),
            {},
            Priority::too_few};
  }
  const bool apart = best.high < other.low;
  return {concat(best.name, apart ? " ends below " : " does not end clearly below ", other.name,
                 ": the validation losses of its ", best.runs, " seeds and of the other's ",
                 other.runs, apart ? " do not overlap." : " overlap."),
          {},
          apart ? Priority::told : Priority::chance};
}

// Whether specs differ by more than their seeds do: only where there are seeds to say so.
void compare_groups(Report& r, const std::vector<Group>& groups) {
  const std::vector<Span> spans = spans_of(groups);
  for (std::size_t i = 1; i < spans.size(); ++i)
    r.findings.push_back(compared(spans[0], spans[i]));
}

}  // namespace

Report training_curves(const std::vector<TrainingLog>& logs) {
  const std::vector<Group> groups = groups_of(logs);
  Report r{.title = concat("Training of ",
                           logs.size() == 1 ? logs[0].name : concat(logs.size(), " runs"))};
  for (const TrainingLog& log : logs) {
    r.facts.emplace_back(log.name, concat(log.model, log.model.empty() ? "" : ", ", "seed ",
                                          log.seed, ", ", last_step(log), " steps"));
    for (const std::string& w : log.warnings)
      r.warnings.push_back(concat(log.name, ": ", w));
  }
  compare_groups(r, groups);
  r.tables.push_back(outcome(logs));
  if (const auto split = times(logs))
    r.tables.push_back(*split);
  const std::vector<std::string> domains = domains_of(logs);
  for (const LogFigure& f : log_figures()) {
    if (!has(logs, f.name))
      continue;
    r.tables.push_back(table_of(logs, groups, f, {""}));
    if (std::string_view(f.name) == "valid_loss" && domains.size() > 1)
      r.tables.push_back(table_of(logs, groups, f, domains));
  }
  return r;
}

}  // namespace moe
