#include "lib/study/runner.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <list>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"
#include "lib/study/json_cells.h"
#include "lib/study/measure.h"
#include "lib/study/process.h"
#include "lib/study/timing.h"

namespace moe {

void StudyObserver::planned(int, int) {}
void StudyObserver::started(const Unit&, const Words&) {}
void StudyObserver::finished(const Unit&, const UnitState&) {}
void StudyObserver::timing(int, int) {}
bool StudyObserver::wants_stop() {
  return false;
}

namespace {

namespace fs = std::filesystem;
using Status = UnitState::Status;

constexpr const char* status_words[] = {"missing", "running", "done", "failed"};
constexpr const char* log_file = "log.txt";
constexpr auto nap = std::chrono::milliseconds(15);

void write_state(const fs::path& folder, const UnitState& s) {
  write_json(folder / unit_file, {{"status", status_words[int(s.status)]},
                                  {"commands", s.commands},
                                  {"finished", s.finished},
                                  {"seconds", s.seconds},
                                  {"cpu_seconds", s.cpu_seconds},
                                  {"peak_bytes", s.peak_bytes},
                                  {"why", s.why}});
}

// What the program said last that begins like an error: "moe: ...".
std::string last_sentence(const fs::path& log) {
  std::ifstream in(log, std::ios::binary);
  std::string out;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("moe: "))
      out = line.substr(5);
  }
  return out;
}

bool begins_with(const std::vector<Words>& all, const std::vector<Words>& part) {
  return part.size() <= all.size() && std::equal(part.begin(), part.end(), all.begin());
}

bool lies_below(const fs::path& path, const fs::path& folder) {
  const std::string inside = fs::absolute(path)
                                 .lexically_normal()
                                 .lexically_relative(fs::absolute(folder).lexically_normal())
                                 .string();
  return !inside.empty() && inside != "." && !inside.starts_with("..");
}

// What a command that was cut short may have left where its result belongs.
void clear_result(const Words& words, const fs::path& folder) {
  for (const char* option : {"-o", "--output", "--trace"}) {
    const fs::path result = option_of(words, option);
    if (result.empty() || !lies_below(result, folder))
      continue;
    fs::remove_all(result);
    fs::remove_all(result.string() + ".part");
  }
}

// A unit that is being run.
class Job {
 public:
  Job(const Unit& unit, UnitState state, const std::string& program, int threads)
      : unit_(unit), state_(std::move(state)), program_(program), threads_(threads) {}

  const Unit& unit() const {
    return unit_;
  }
  const UnitState& state() const {
    return state_;
  }

  void begin() {
    again_ = state_.status == Status::running;
    fs::create_directories(unit_.folder);
    state_.status = Status::running;
    state_.commands = unit_.commands;
    state_.why.clear();
    write_state(unit_.folder, state_);
  }

  // Starts the next command; false where there is none left.
  bool start(StudyObserver& observer) {
    if (state_.finished >= int(unit_.commands.size()))
      return false;
    Words words = unit_.commands[std::size_t(state_.finished)];
    const std::string run = option_of(words, "-o");
    resuming_ = again_ && is_training(words) && fs::exists(fs::path(run) / "run.json");
    if (resuming_)
      words = {"train", "--resume", run};
    else
      clear_result(words, unit_.folder);
    observer.started(unit_, words);
    std::vector<std::pair<std::string, std::string>> environment;
    if (threads_ > 0)
      environment.emplace_back("MOE_THREADS", concat(threads_));
    process_.emplace(program_, words, unit_.folder / log_file, environment);
    return true;
  }

  // Whether the command has ended. What follows is up to proceed().
  bool has_ended() {
    ended_ = process_->ended();
    if (ended_)
      process_.reset();
    return ended_.has_value();
  }

  // Takes the command's end into account; true where another one may start. A command that was
  // asked to stop leaves the unit as it is.
  bool proceed(bool stopping) {
    const int code = ended_->code;
    const bool asked = stopping && (code < 0 || code >= 128);
    if (asked)
      return false;
    state_.seconds += ended_->seconds;
    state_.cpu_seconds += ended_->cpu_seconds;
    state_.peak_bytes = std::max(state_.peak_bytes, ended_->peak_bytes);
    again_ = false;
    if (resuming_ && (code == int(Exit::input) || code == int(Exit::usage))) {
      // nothing to go on from: from the start
      resuming_ = false;
      return !stopping;
    }
    if (code != 0) {
      fail(reason(code));
      return false;
    }
    ++state_.finished;
    if (has_nothing_to_trace())
      state_.finished = int(unit_.commands.size());
    if (state_.finished == int(unit_.commands.size()))
      state_.status = Status::done;
    write_state(unit_.folder, state_);
    return state_.status != Status::done && !stopping;
  }

  void fail(const std::string& why) {
    state_.status = Status::failed;
    state_.why = why;
    write_state(unit_.folder, state_);
  }
  void ask_to_stop() const {
    if (process_)
      process_->ask_to_stop();
  }

 private:
  // What comes next is the study's own look at the routing of a run that has none.
  bool has_nothing_to_trace() const {
    if (state_.finished != unit_.asked || state_.finished >= int(unit_.commands.size()))
      return false;
    const Words& next = unit_.commands[std::size_t(state_.finished)];
    return next[0] == "trace" && !logs_experts(fs::path(next[1]) / "metrics.jsonl");
  }
  std::string reason(int code) const {
    const Words& words = unit_.commands[std::size_t(state_.finished)];
    const std::string verb = concat("moe ", words[0]);
    if (code == -SIGKILL)
      return concat(verb, " was killed, as a machine without memory left does");
    if (code < 0)
      return concat(verb, " was ended by signal ", -code);
    const std::string said = last_sentence(unit_.folder / log_file);
    return concat(verb, ": ", said.empty() ? concat("exit code ", code) : said);
  }

  Unit unit_;
  UnitState state_;
  std::string program_;
  int threads_;
  bool again_ = false;     // the unit was cut short in its next command
  bool resuming_ = false;  // the command that runs goes on with a training run
  std::optional<Process> process_;
  std::optional<Ended> ended_;
};

class Runner {
 public:
  Runner(const Study& s, const fs::path& folder, const StudyRunOptions& o, StudyObserver& observer)
      : study_(s), folder_(folder), options_(o), observer_(observer), start_(clock_seconds()) {}

  StudyProgress go() {
    take_stock();
    observer_.planned(progress_.units, int(waiting_.size()));
    while (!jobs_.empty() || (!waiting_.empty() && !stopping())) {
      start_what_fits();
      if (!look())
        std::this_thread::sleep_for(nap);
    }
    const bool whole = !stopping() && progress_.done + progress_.failed == progress_.units;
    if (whole && study_.timing.rounds > 0)
      measure_times();
    return progress_;
  }

 private:
  bool stopping() {
    progress_.stopped = progress_.stopped || observer_.wants_stop();
    progress_.out_of_time = progress_.out_of_time ||
                            (options_.budget > 0 && clock_seconds() - start_ > options_.budget);
    return progress_.stopped || progress_.out_of_time;
  }

  int threads() const {
    return options_.jobs > 1 ? std::max(1, machine_cores() / options_.jobs) : 0;
  }

  // What is done already, and what is left.
  void take_stock() {
    for (Unit& u : units_of(study_, folder_)) {
      ++progress_.units;
      UnitState state = read_state_of(u);
      if (!begins_with(u.commands, state.commands)) {
        if (!options_.force) {
          throw Error(Exit::usage, concat("'", u.name(), "' in ", u.folder.string(),
                                          " was run with other commands than the study has now"))
              .hint("--force runs it again; or another -o, which keeps both")
              .safe("nothing was changed");
        }
        fs::remove_all(u.folder);
        state = {};
      }
      if (state.status == Status::failed && options_.retry) {
        fs::remove_all(u.folder);
        state = {};
      }
      const bool grown = state.finished < int(u.commands.size());
      if (state.status == Status::failed || (state.status == Status::done && !grown)) {
        settle(u, state);
        continue;
      }
      if (state.status == Status::done)
        state.status = Status::missing;  // its new commands begin afresh
      waiting_.emplace_back(u, state, options_.program, threads());
    }
  }

  void settle(const Unit& u, const UnitState& state) {
    (state.status == Status::done ? progress_.done : progress_.failed) += 1;
    if (u.arm.empty())
      shared_[u.seed] = state;
  }

  // What the unit needs of its seed: missing while that runs.
  Status shared_status(const Unit& u) const {
    if (u.arm.empty() || study_.shared.empty())
      return Status::done;
    const auto at = shared_.find(u.seed);
    return at == shared_.end() ? Status::missing : at->second.status;
  }

  void start_what_fits() {
    for (auto job = waiting_.begin(); job != waiting_.end();) {
      if (int(jobs_.size()) >= options_.jobs || stopping())
        return;
      const Status shared = shared_status(job->unit());
      if (shared == Status::missing) {
        ++job;
        continue;
      }
      job->begin();
      if (shared == Status::failed) {
        job->fail(concat("what its seed shares failed: ", shared_.at(job->unit().seed).why));
        report(*job);
      } else if (job->start(observer_)) {
        const auto next = std::next(job);
        jobs_.splice(jobs_.end(), waiting_, job);
        job = next;
        continue;
      }
      job = waiting_.erase(job);
    }
  }

  void report(const Job& job) {
    settle(job.unit(), job.state());
    observer_.finished(job.unit(), job.state());
  }

  // Whether something ended.
  bool look() {
    const bool stop = stopping();
    if (stop && !asked_) {
      for (const Job& job : jobs_)
        job.ask_to_stop();
      asked_ = true;
    }
    bool any = false;
    for (auto job = jobs_.begin(); job != jobs_.end();) {
      if (!job->has_ended()) {
        ++job;
        continue;
      }
      any = true;
      if (job->proceed(stopping()) && job->start(observer_)) {
        ++job;
        continue;
      }
      if (job->state().status != Status::running)
        report(*job);
      job = jobs_.erase(job);
    }
    return any;
  }

  void measure_times() {
    for (int round = 1; round <= study_.timing.rounds && !stopping(); ++round) {
      const fs::path folder = folder_ / "timing" / concat("round-", round);
      if (!fs::exists(folder / "whole")) {
        observer_.timing(round, study_.timing.rounds);
        fs::remove_all(folder);
        fs::create_directories(folder);
        for (const Unit& u : timing_units(study_, folder_, round)) {
          if (stopping() || !time_unit(u))
            break;
        }
        if (stopping())
          return;
        write_file(folder / "whole", "");
      }
      progress_.rounds = round;
    }
  }

  // One arm of a round, on its own; false where it was stopped. What fails has no time.
  bool time_unit(const Unit& u) {
    const double before = machine_cpu_seconds();
    Job job(u, {}, options_.program, threads());
    job.begin();
    while (job.start(observer_)) {
      while (!job.has_ended()) {
        if (stopping())
          job.ask_to_stop();
        std::this_thread::sleep_for(nap);
      }
      if (!job.proceed(stopping()))
        break;
    }
    if (job.state().status == Status::done)
      write_timing(u.folder, machine_cpu_seconds() - before);
    return job.state().status != Status::running;
  }

  const Study& study_;
  fs::path folder_;
  StudyRunOptions options_;
  StudyObserver& observer_;
  double start_;
  bool asked_ = false;  // what runs was asked to stop
  StudyProgress progress_;
  std::list<Job> waiting_, jobs_;
  std::map<std::uint64_t, UnitState> shared_;
};

}  // namespace

UnitState read_state_of(const Unit& u) {
  UnitState out;
  const fs::path file = u.folder / unit_file;
  if (!fs::exists(file))
    return out;
  const Json j = read_json(file);
  try {
    const auto status = j.at("status").get<std::string>();
    const auto* const at = std::ranges::find(status_words, status);
    if (at == std::end(status_words))
      throw Error(Exit::input, status);
    out.status = Status(at - std::begin(status_words));
    out.commands = j.at("commands").get<std::vector<Words>>();
    out.finished = j.at("finished").get<int>();
    out.seconds = j.at("seconds").get<double>();
    out.cpu_seconds = j.at("cpu_seconds").get<double>();
    out.peak_bytes = j.at("peak_bytes").get<Index>();
    out.why = j.at("why").get<std::string>();
  } catch (const std::exception&) {
    throw Error(Exit::input, concat(in_quotes(file), " is not what moe study writes"))
        .hint(concat("remove ", u.folder.string(), " to run it again"));
  }
  return out;
}

StudyProgress run_study(const Study& s, const fs::path& folder, const StudyRunOptions& o,
                        StudyObserver& observer) {
  return Runner(s, folder, o, observer).go();
}

UnitState run_unit(const Unit& u, const std::string& program, StudyObserver& observer) {
  Job job(u, {}, program, 0);
  job.begin();
  while (job.start(observer)) {
    while (!job.has_ended()) {
      if (observer.wants_stop())
        job.ask_to_stop();
      std::this_thread::sleep_for(nap);
    }
    if (!job.proceed(observer.wants_stop()))
      break;
  }
  return job.state();
}

}  // namespace moe
