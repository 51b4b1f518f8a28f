#include "apps/study_plan.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "analysis/report/utf8.h"
#include "apps/terminal.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/study/timing.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr int probe_steps = 4;
constexpr int default_steps = 2000;  // of moe train

// What one unit would take.
struct Part {
  std::string arm;
  double seconds = 0;
  Index peak_bytes = 0, steps = 0;
  std::string why;  // it failed
};

Index steps_of(const Words& words) {
  const std::string given = option_of(words, "--steps");
  return given.empty() ? default_steps : Index(std::atoll(given.c_str()));
}

// Training grows with its steps; what else a unit does is taken as it was in the probe.
Part part_of(const Unit& whole, const Unit& probe, const UnitState& state) {
  Part p{.arm = whole.arm.empty() ? "(shared)" : whole.arm,
         .seconds = state.seconds,
         .peak_bytes = state.peak_bytes,
         .why = state.why};
  if (state.status != UnitState::Status::done)
    return p;
  for (std::size_t c = 0; c < whole.commands.size(); ++c) {
    if (!is_training(whole.commands[c]))
      continue;
    std::vector<double> times = step_seconds(option_of(probe.commands[c], "-o"));
    std::ranges::sort(times);
    const Index more = steps_of(whole.commands[c]) - Index(times.size());
    p.steps += steps_of(whole.commands[c]);
    if (!times.empty())
      p.seconds += std::max<double>(0, double(more)) * times[times.size() / 2];
  }
  return p;
}

struct TemporaryFolder {
  fs::path path = fs::temp_directory_path() / concat("moe-study-", ::getpid());
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

// Seconds of all rounds of timing, from the arms' own.
double timing_seconds(const Study& s, const std::vector<Part>& parts) {
  double sum = 0;
  for (const Part& p : parts) {
    if (p.arm != "(shared)" && p.steps > 0)
      sum += p.seconds * double(s.timing.steps) / double(p.steps);
  }
  return sum * s.timing.rounds;
}

void print_plan(const Study& s, const std::vector<Part>& parts, int jobs, double total) {
  int wide = 3;
  for (const Part& p : parts)
    wide = std::max(wide, std::min(40, drawing::columns(p.arm)));
  fmt::print("{}\n\n  {:<{}}  {:>8}  {:>12}  {:>10}\n", s.question, "arm", wide, "steps",
             "a seed takes", "memory");
  Index memory = 0;
  for (const Part& p : parts) {
    memory = std::max(memory, p.peak_bytes);
    fmt::print("  {}  {:>8}  {:>12}  {:>10}{}\n",
               drawing::padded(drawing::clip(p.arm, wide, false), wide, false), p.steps,
               duration_text(p.seconds), bytes_text(double(p.peak_bytes)),
               p.why.empty() ? "" : concat("  fails: ", p.why));
  }
  fmt::print("\n{} arms x {} seeds{}: about {} on this machine{}, up to {} of memory\n",
             s.arms.size(), s.seeds.size(),
             s.timing.rounds > 0 ? concat(", and ", s.timing.rounds, " rounds of timing") : "",
             duration_text(total), jobs > 1 ? concat(" by ", jobs, " jobs") : "",
             bytes_text(double(memory) * jobs));
}

}  // namespace

int plan_study(const Study& s, int jobs, double budget, const std::string& program,
               StudyObserver& observer) {
  const TemporaryFolder folder;
  std::vector<Part> parts;
  bool fails = false;
  for (const Unit& whole : units_of(s, folder.path)) {
    if (whole.seed != s.seeds[0])
      continue;
    const Unit probe = probe_of(s, whole, folder.path / "probe", probe_steps);
    const UnitState state = run_unit(probe, program, observer);
    if (observer.wants_stop())
      return 128 + stop_signal();
    parts.push_back(part_of(whole, probe, state));
    fails = fails || !parts.back().why.empty();
  }
  double one = 0;
  for (const Part& p : parts)
    one += p.seconds;
  // jobs share the cores: what they gain is what single runs leave idle, which is not known here
  const double total = one * double(s.seeds.size()) + timing_seconds(s, parts);
  print_plan(s, parts, jobs, total);
  if (budget > 0 && total > budget) {
    fmt::print("The budget of {} does not suffice: it would end within seed {} of {}.\n",
               duration_text(budget), std::min<int>(int(s.seeds.size()), 1 + int(budget / one)),
               s.seeds.size());
  }
  return fails || (budget > 0 && total > budget) ? 1 : 0;
}

}  // namespace moe
