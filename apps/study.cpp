// moe study: a question, its arms, and a verdict.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

#include "analysis/report/render.h"
#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/output.h"
#include "apps/study_plan.h"
#include "apps/study_text.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/checkpoint/run_lock.h"
#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/study/builtin.h"
#include "lib/study/compare_studies.h"
#include "lib/study/process.h"
#include "lib/study/runner.h"
#include "lib/study/study_report.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr const char* this_program = "/proc/self/exe";

struct Options {
  std::vector<std::string> words;  // FILE or NAME; compare A B; with --arm the command
  std::vector<std::string> arms, measures, set;
  std::string folder, budget;
  int jobs = 1, seeds = 0;
  bool dry = false, quick = false, print = false, force = false, retry = false;
};

// "loss,load_cv:layers=most": a comma parts measures where what follows is no option of one.
std::vector<std::string> measures_of(const std::vector<std::string>& given) {
  std::vector<std::string> out;
  for (const std::string& list : given) {
    for (const std::string& part : split_list(list, ",")) {
      const bool is_option = part.find('=') < part.find(':');
      if (is_option && !out.empty())
        out.back() += "," + part;
      else
        out.push_back(part);
    }
  }
  return out.empty() ? std::vector<std::string>{"loss"} : out;
}

// Seconds of "90s", "30m", "2h", "45".
double seconds_of(const std::string& text) {
  double factor = 1;
  std::string number = text;
  const std::string unit = text.empty() ? "" : text.substr(text.size() - 1);
  if (unit == "s" || unit == "m" || unit == "h") {
    factor = unit == "s" ? 1 : unit == "m" ? 60 : 3600;
    number.pop_back();
  }
  char* end = nullptr;
  const double v = std::strtod(number.c_str(), &end);
  if (number.empty() || *end != 0 || !(v > 0) || !std::isfinite(v))
    throw Error(Exit::usage, concat("--budget '", text, "' is no time")).hint("90s, 30m or 2h");
  return v * factor;
}

std::vector<std::pair<std::string, std::string>> settings_of(const Options& o) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const std::string& s : o.set) {
    const std::size_t at = s.find('=');
    if (at == s.npos || at == 0)
      throw Error(Exit::usage, concat("--set '", s, "' does not say NAME=VALUE"))
          .hint("--set steps=1000");
    out.emplace_back(s.substr(0, at), s.substr(at + 1));
  }
  return out;
}

Study study_from(const Options& o) {
  if (!o.arms.empty()) {
    if (o.words.empty())
      throw Error(Exit::usage, "--arm varies a command line, and none is given")
          .hint("moe study --arm \"router=softmax:k=1|softmax:k=2\" -o s -- train --data zipf");
    if (o.quick || !o.set.empty())
      throw Error(Exit::usage, "--quick and --set are for studies in files")
          .hint("--steps in the command line behind --");
    std::string command;
    for (const std::string& w : o.words)
      command += concat(command.empty() ? "" : " ", shell_quoted(w));
    return study_of_line(command, o.arms, measures_of(o.measures), o.seeds);
  }
  if (o.words.size() != 1)
    throw Error(Exit::usage, "a study is one file or one name")
        .hint("moe study balance -o runs/balance; moe list studies");
  if (!o.measures.empty())
    throw Error(Exit::usage, "--measure is for --arm: a study in a file lists its own")
        .hint("measures = [...] in the file");
  const StudySource source = study_source(o.words[0]);
  return parse_study(source.text, source.name,
                     {.quick = o.quick, .set = settings_of(o), .seeds = o.seeds});
}

class StudyTerminal final : public StudyObserver {
 public:
  void planned(int units, int left) override {
    left_ = left;
    if (left > 0)
      progress_.emplace("study", double(left), "part");
    if (left > 0 && left < units)
      note(concat(units - left, " of ", units, " parts are done already"));
  }
  void started(const Unit& u, const Words& words) override {
    if (progress_)
      progress_->update(double(finished_), concat(u.name(), ": ", words[0]));
  }
  void finished(const Unit& u, const UnitState& state) override {
    ++finished_;
    if (progress_ && state.status == UnitState::Status::failed)
      progress_->line(concat(u.name(), " failed: ", state.why));
    if (progress_)
      progress_->update(double(finished_), u.name());
    if (finished_ >= left_)
      progress_.reset();
  }
  void timing(int round, int rounds) override {
    note(concat("timing, round ", round, " of ", rounds));
  }
  bool wants_stop() override {
    return stop_signal() != 0;
  }
  void end() {
    progress_.reset();
  }

 private:
  std::optional<Progress> progress_;
  int left_ = 0, finished_ = 0;
};

// A folder that is not empty and is none of a study stays as it is.
void refuse_other_folder(const fs::path& folder) {
  const bool is_study = fs::exists(folder / "arms") || fs::exists(folder / "shared") ||
                        fs::exists(folder / "study.json");
  const bool holds =
      fs::exists(folder) && (!fs::is_directory(folder) ||
                             std::ranges::any_of(fs::directory_iterator(folder), [](const auto& e) {
                               return e.path().filename() != "lock";
                             }));
  if (holds && !is_study) {
    throw Error(Exit::usage, concat("'", folder.string(), "' exists and is no study"))
        .hint("another -o")
        .safe("it was not touched");
  }
}

void write_files(const Study& s, const Outcome& outcome, const fs::path& folder) {
  const Report report = study_report(s, outcome, folder, command_line());
  write_file(folder / "study.html", renderers().at("html").make(report, {}));
  write_file(folder / "study.csv", study_csv(s, outcome));
  write_file(folder / "study.json", study_json(s, outcome));
  write_study_h5(folder / "study.h5", s, outcome);
}

int run(const Study& s, const Options& o) {
  if (o.folder.empty())
    throw Error(Exit::usage, "-o is missing: where should the study be kept?")
        .hint(concat("moe study ", s.name, " -o runs/", s.name));
  const fs::path folder = o.folder;
  const double budget = o.budget.empty() ? 0 : seconds_of(o.budget);
  refuse_other_folder(folder);
  const RunLock lock(folder);
  catch_stop_signals();
  StudyTerminal terminal;
  const StudyProgress progress = run_study(s, folder,
                                           {.program = this_program,
                                            .jobs = o.jobs,
                                            .budget = budget,
                                            .force = o.force,
                                            .retry = o.retry},
                                           terminal);
  terminal.end();
  const Outcome outcome = outcome_of(s, folder);
  write_files(s, outcome, folder);
  const Style style = Style::of(stdout);
  fmt::print("{}", study_text(s, outcome, std::min(terminal_width(stdout), 160), style));
  std::fflush(stdout);
  note(concat("wrote study.html, study.csv, study.h5 and study.json in ", o.folder));
  if (progress.stopped) {
    note(concat("stopped with ", progress.done, " of ", progress.units,
                " parts done; the same command goes on"));
    return 128 + stop_signal();
  }
  if (progress.out_of_time)
    note(concat("the budget of ", o.budget, " is used up; the same command goes on"));
  return progress.failed == progress.units ? 1 : 0;
}

int compare(const Options& o) {
  if (o.words.size() != 3)
    throw Error(Exit::usage, "two studies are compared").hint("moe study compare runs/a runs/b");
  OutputOptions out;
  out.file = o.folder;
  out.force = o.force;
  check_output(out);
  write_report(compared_studies(o.words[1], o.words[2]), out);
  return 0;
}

int study(const Options& o) {
  if (o.words.empty() && o.arms.empty())
    throw Error(Exit::usage, "which study? A file or a name is missing")
        .hint("moe list studies; moe study balance --dry-run");
  if (o.arms.empty() && o.words[0] == "compare")
    return compare(o);
  if (o.print) {
    fmt::print("{}", study_source(o.words.at(0)).text);
    return 0;
  }
  const Study s = study_from(o);
  if (!s.waits_for.empty())
    throw Error(Exit::environment, concat("the study ", s.name, " cannot be run: ", s.waits_for))
        .hint(concat("moe study ", s.name, " --print shows what it will ask"));
  if (o.dry) {
    catch_stop_signals();
    StudyTerminal terminal;
    return plan_study(s, o.jobs, o.budget.empty() ? 0 : seconds_of(o.budget), this_program,
                      terminal);
  }
  return run(s, o);
}

}  // namespace

Run study_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("study", o->words,
                 "a file, or a name of moe list studies; compare DIR1 DIR2; with --arm, behind --: "
                 "the command line that is varied");
  cli.add_option("-o,--output", o->folder,
                 "where the study is kept: one that is there goes on; with compare: the report")
      .type_name("FOLDER");
  cli.add_flag("--dry-run", o->dry,
               "say what would be run, and from a short probe the time and memory it takes");
  cli.add_option("--jobs", o->jobs, "parts run at once; the cores are shared among them")
      .show_default()
      .check(whole(1, 1024));
  cli.add_option("--budget", o->budget, "stop after so long, with what is there: 90s, 30m, 2h")
      .type_name("TIME");
  cli.add_flag("--quick", o->quick, "the small values of the study's [quick]: seconds, for a try");
  cli.add_option("--set", o->set, "a variable of the study, NAME=VALUE; may be given again")
      .repeatable()
      .type_name("TEXT");
  cli.add_option("--seeds", o->seeds, "seeds 1 to N in the place of the study's").check(whole(1));
  cli.add_option("--arm", o->arms,
                 "a study of one line: OPTION=VALUE|VALUE of the command behind --; given again, "
                 "a grid")
      .repeatable()
      .type_name("TEXT");
  cli.add_option("--measure", o->measures,
                 "with --arm: what is compared, separated by commas: loss, train_loss, any metric "
                 "id, ... (moe list measures) [default: loss]")
      .repeatable()
      .type_name("LIST");
  cli.add_flag("--print", o->print, "print the study's file, to begin one of your own");
  cli.add_flag("--retry", o->retry, "run again what failed");
  cli.add_flag("--force", o->force, "run again what was run with other commands");
  return [o] {
    return study(*o);
  };
}

}  // namespace moe
