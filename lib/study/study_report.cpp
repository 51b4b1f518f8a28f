#include "lib/study/study_report.h"

#include <algorithm>
#include <cmath>
#include <regex>

#include "analysis/curves/curves.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"
#include "lib/study/runner.h"
#include "lib/study/units.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
using statistics::Estimate;

constexpr int figures_after_point = 4;

// Column by column of estimates, a row each.
struct EstimateCells {
  std::vector<double> value, low, high;
  void add(const Estimate& e) {
    const bool exact = e.low == e.high;
    value.push_back(e.n > 0 ? e.value : NAN);
    low.push_back(exact ? NAN : e.low);
    high.push_back(exact ? NAN : e.high);
  }
  Column column(const std::string& name, const std::string& unit,
                const std::string& meaning) const {
    return {.name = name,
            .unit = unit,
            .meaning = meaning,
            .cells = value,
            .digits = figures_after_point,
            .low = low,
            .high = high};
  }
};

std::string repetitions_of(const Measured& m) {
  return m.is_time ? "rounds" : "seeds";
}

Table picture_of(const Study& s, const Outcome& o) {
  const std::string& wanted = s.picture.empty() ? o.measures[0].name : s.picture;
  const auto at = std::ranges::find(o.measures, wanted, &Measured::name);
  const auto m = std::size_t(at - o.measures.begin());
  std::vector<std::string> names;
  EstimateCells cells;
  for (const ArmComparison& c : o.comparisons[m]) {
    names.push_back(c.arm);
    cells.add(c.value);
  }
  Table t{.id = "picture",
          .title = concat(at->title, " by arm"),
          .reading = concat("The mean over ", repetitions_of(*at), " with its 95 % interval."),
          .chart = Chart::bars,
          .section = "answer"};
  t.columns = {{.name = "arm", .cells = names},
               cells.column(at->title, at->unit, "mean over repetitions")};
  return t;
}

Table measure_table(const Study& s, const Measured& m, const std::vector<ArmComparison>& all) {
  std::vector<std::string> names, told;
  std::vector<double> p;
  std::vector<std::int64_t> n;
  EstimateCells value, difference;
  for (const ArmComparison& c : all) {
    names.push_back(c.arm);
    value.add(c.value);
    n.push_back(c.value.n);
    difference.add(c.difference);
    p.push_back(c.difference.n > 1 ? c.difference.p : NAN);
    told.push_back(c.arm == s.baseline ? "baseline" : c.stands_out ? "yes" : "no");
  }
  Table t{.id = concat("measure_", m.name),
          .title = m.title,
          .reading = concat(
              m.is_time ? "Ratios" : "Differences", " from ", s.baseline, " are paired by ",
              m.is_time ? "round" : "seed", ", with 95 % intervals; p is Holm's over the arms. ",
              "Few repetitions make wide intervals: they hold Student's and the bootstrap's."),
          .section = "arms"};
  t.columns = {{.name = "arm", .cells = names},
               value.column(m.title, m.unit, "mean over repetitions"),
               difference.column(m.is_time ? "ratio" : "difference", m.is_time ? "x" : m.unit,
                                 concat("paired with ", s.baseline)),
               {.name = "p", .meaning = "Holm-adjusted", .cells = p, .digits = 3},
               {.name = "differs", .meaning = "p below 0.05", .cells = told},
               {.name = repetitions_of(m), .cells = n}};
  return t;
}

Table claims_table(const Outcome& o) {
  std::vector<std::string> says, holds, verdict;
  std::vector<std::int64_t> needed;
  EstimateCells cells;
  std::vector<double> bound, level;
  for (const ClaimVerdict& v : o.verdicts) {
    says.push_back(v.claim.says);
    holds.push_back(v.claim.holds);
    verdict.emplace_back(word_of(v.answer));
    cells.add(v.estimate);
    bound.push_back(v.bound);
    level.push_back(v.level);
    needed.push_back(v.answer == Answer::open ? v.needed : 0);
  }
  Table t{.id = "claims",
          .title = "Claims",
          .reading =
              "The interval is the one that decides, at the level of Holm's correction over "
              "all claims. Repetitions needed: 0 = decided, or more than 1000.",
          .section = "answer"};
  t.columns = {{.name = "claim", .cells = says},
               {.name = "holds if", .cells = holds},
               cells.column("estimate", "", "of the left side, or of left less right"),
               {.name = "bound", .cells = bound},
               {.name = "level", .meaning = "of the interval", .cells = level},
               {.name = "needed", .meaning = "repetitions that would decide it", .cells = needed},
               {.name = "verdict", .cells = verdict}};
  return t;
}

// Curves of the training runs, seeds of an arm as one band.
std::vector<Table> curves_of(const Study& s, const fs::path& folder) {
  std::vector<TrainingLog> logs;
  for (const Unit& u : units_of(s, folder)) {
    if (u.arm.empty() || !is_run_folder(u.folder / "run"))
      continue;
    if (read_state_of(u).status != UnitState::Status::done)
      continue;
    TrainingLog log = read_training_log(u.folder / "run");
    log.name = u.arm;
    log.spec = u.arm;
    // speed depends on what else ran meanwhile, and is measured by rounds
    std::erase_if(log.points, [](const LogPoint& p) {
      return p.figure == "tokens_per_second" || p.figure == "lr";
    });
    log.step_times.clear();
    logs.push_back(std::move(log));
  }
  if (logs.empty())
    return {};
  std::vector<Table> out;
  for (Table& t : training_curves(logs).tables) {
    if (t.id == "training_outcome" || t.columns.size() > 9)
      continue;
    static const std::regex others(" and [0-9]+ other seeds?");
    for (Column& column : t.columns)
      column.name = std::regex_replace(column.name, others, "");
    t.reading +=
        concat(t.reading.empty() ? "" : " ",
               "Lines are means over seeds; bands go from the lowest to the highest seed.");
    t.section = "curves";
    out.push_back(std::move(t));
  }
  return out;
}

Table run_table(const Study& s, const fs::path& folder) {
  std::vector<std::string> arms, commands;
  std::vector<std::int64_t> order;
  for (const Unit& u : units_of(s, folder)) {
    if (u.seed != s.seeds[0])
      continue;
    for (const Words& words : u.commands) {
      std::string line = "moe";
      for (const std::string& w : words)
        line += concat(" ", shell_quoted(w));
      arms.push_back(u.arm.empty() ? "(shared)" : u.arm);
      commands.push_back(line);
    }
  }
  Table t{.id = "commands",
          .title = "What was run",
          .reading = concat("The command lines of the first of ", s.seeds.size(), " seeds."),
          .section = "how it was run",
          .detail = true};
  t.columns = {{.name = "arm", .cells = arms}, {.name = "command", .cells = commands}};
  return t;
}

void add_words(Report& r, const Study& s, const std::string& again) {
  r.facts.emplace_back("question", s.question);
  std::string seeds;
  for (const std::uint64_t seed : s.seeds)
    seeds += concat(seeds.empty() ? "" : ", ", seed);
  r.facts.emplace_back("seeds", seeds);
  for (const auto& [name, value] : s.set.all())
    r.facts.emplace_back(name, value);
  if (!s.toy.empty())
    r.facts.emplace_back("what this size can show", s.toy);
  if (!s.literature.empty())
    r.facts.emplace_back("found at scale", s.literature);
  r.facts.emplace_back("run again", again);
}

}  // namespace

Report study_report(const Study& s, const Outcome& o, const fs::path& folder,
                    const std::string& again) {
  Report r{.title = s.question};
  add_words(r, s, again);
  for (const ClaimVerdict& v : o.verdicts) {
    r.findings.push_back({concat("“", v.claim.says, "” ", v.sentence, "."),
                          {},
                          v.answer == Answer::open ? Priority::too_few : Priority::told});
  }
  r.warnings = o.warnings;
  for (const FailedUnit& f : o.failed)
    r.warnings.push_back(concat(f.name, " failed: ", f.why));
  r.tables.push_back(picture_of(s, o));
  if (!o.verdicts.empty())
    r.tables.push_back(claims_table(o));
  for (std::size_t m = 0; m < o.measures.size(); ++m)
    r.tables.push_back(measure_table(s, o.measures[m], o.comparisons[m]));
  for (Table& t : curves_of(s, folder))
    r.tables.push_back(std::move(t));
  r.tables.push_back(run_table(s, folder));
  return r;
}

}  // namespace moe
