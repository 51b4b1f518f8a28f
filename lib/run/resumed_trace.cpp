#include "lib/run/resumed_trace.h"

#include <optional>

#include "lib/checkpoint/folder.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/run/this_machine.h"
#include "lib/trace/disk.h"
#include "lib/trace/rebuild.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

fs::path part_of(const std::string& trace) {
  return trace + ".part";
}

// What a .part file holds for a run.
struct Recorded {
  bool readable = false;
  std::uint64_t rows = 0;
  std::vector<TraceStep> steps;
};

Recorded recorded(const std::string& trace, const RunState& state) {
  const fs::path part = part_of(trace);
  std::optional<MostRows> most;
  try {
    if (fs::exists(part))
      most.emplace(part);
  } catch (const Error& e) {
    if (e.code() != Exit::input)
      throw;  // what cannot be read today may be read tomorrow
  }
  if (!most)
    return {};
  const TraceReader& reader = most->reader();
  const std::string& id = reader.header().run_id;
  if (!id.empty() && !state.run_id.empty() && id != state.run_id) {
    throw Error(Exit::input, concat(in_quotes(part), " is the trace of another run"))
        .hint("--trace FILE records into another file, --trace none into no file")
        .safe("it was not touched");
  }
  return {true, reader.tokens(), reader.steps()};
}

// The rows that the state names are there, and are those of the steps up to it.
bool agree(const Recorded& r, const RunState& state) {
  if (r.rows < state.trace_rows)
    return false;
  for (const TraceStep& s : r.steps) {
    if (s.step > state.step)
      return s.token_start == state.trace_rows;
  }
  return r.rows == state.trace_rows;
}

// The newest older checkpoint with rows of the same trace that are still there.
std::optional<ResumePoint> older_point(const fs::path& run, const ResumePoint& newest,
                                       const Recorded& r) {
  for (const std::int64_t step : checkpoint_steps(run)) {
    const fs::path folder = run / checkpoint_name(step);
    if (step >= newest.state.step || !fs::exists(folder / "state.json") ||
        !checkpoint_problem(folder).empty())
      continue;
    RunState state = read_state(folder);
    if (state.trace == newest.state.trace && state.trace_rows > 0 && agree(r, state)) {
      state.train.steps = newest.state.train.steps;
      return ResumePoint{.checkpoint = folder, .state = std::move(state)};
    }
  }
  return std::nullopt;
}

// Moves the file to a name that is free.
fs::path keep_aside(const fs::path& part) {
  fs::path aside = part.string() + ".old";
  for (int n = 2; fs::exists(aside); ++n)
    aside = concat(part.string(), ".old-", n);
  {
    const WriteLock alone(part);
    rename_durably(part, aside);
    if (fs::exists(journal_of(part)))
      rename_durably(journal_of(part), journal_of(aside));
  }
  return aside;
}

void refuse_elsewhere(const fs::path& run, const std::string& trace) {
  if (lies_in(trace, run) || is_of_this_machine(run))
    return;
  throw Error(Exit::input,
              concat("the run records into ", in_quotes(fs::path(trace)),
                     ", outside of its folder, and was not begun on this machine by this user"))
      .hint(concat("--trace ", trace,
                   " says that the file may be written, --trace none goes on "
                   "without a trace"))
      .safe("nothing was changed");
}

// The trace begins anew: what is under its name is kept.
void begin_trace(ResumePoint& p, const std::string& lacking) {
  const fs::path part = part_of(p.state.trace);
  const std::string kept =
      fs::exists(part) ? concat(", and what is there is kept as ", in_quotes(keep_aside(part)))
                       : "";
  p.said.push_back(concat(lacking, ": a new trace begins with step ", p.state.step + 1, kept));
  p.state.trace_rows = 0;
  p.new_trace = true;
}

// The trace lacks rows that the checkpoint names.
ResumePoint without_rows(const fs::path& run, ResumePoint p, const Recorded& r) {
  const fs::path part = part_of(p.state.trace);
  const std::string there =
      fs::exists(part) ? concat(" holds ", r.rows, " of the ") : " is not there with the ";
  const std::string lacking = concat(in_quotes(part), there, p.state.trace_rows,
                                     " rows that the checkpoint of step ", p.state.step, " names");
  if (auto older = older_point(run, p, r)) {
    older->said = std::move(p.said);
    older->said.push_back(concat(lacking, ": going on from that of step ", older->state.step,
                                 ", which it agrees with"));
    return std::move(*older);
  }
  if (p.state.step < p.state.train.steps) {
    begin_trace(p, lacking);
    return p;
  }
  p.said.push_back(concat(lacking,
                          ", and no step is left to be recorded: moe recover keeps what "
                          "is there"));
  p.state.trace.clear();
  p.state.trace_rows = 0;
  return p;
}

// A file that was asked for now.
void record_into(ResumePoint& p, const fs::path& run, const std::string& asked) {
  const std::string path = fs::absolute(asked).string();
  refuse_existing(asked, false);
  if (path != p.state.trace && !fs::exists(part_of(path)) && p.state.trace_rows > 0) {
    p.said.push_back(concat("the trace ", in_quotes(fs::path(path)), " begins with step ",
                            p.state.step + 1, "; ", in_quotes(part_of(p.state.trace)),
                            " stays as it is"));
    p.state.trace_rows = 0;
  }
  p.state.trace = path;
  if (!lies_in(path, run))
    write_machine(run);
}

}  // namespace

bool lies_in(const fs::path& file, const fs::path& folder) {
  const fs::path inner = fs::weakly_canonical(file);
  const fs::path outer = fs::weakly_canonical(folder / "");
  const fs::path way = inner.lexically_relative(outer);
  return !way.empty() && *way.begin() != "..";
}

ResumePoint resume_point(const fs::path& run, ResumePoint p, const std::string& asked) {
  if (asked == "none") {
    if (!p.state.trace.empty()) {
      p.said.push_back(concat("from here on no step is recorded; ",
                              in_quotes(fs::path(p.state.trace)), " stays as it is"));
    }
    p.state.trace.clear();
    p.state.trace_rows = 0;
  } else if (!asked.empty()) {
    record_into(p, run, asked);
  }
  if (p.state.trace.empty())
    return p;
  const bool unfinished = fs::exists(part_of(p.state.trace));
  const bool done = p.state.step >= p.state.train.steps;
  if (!unfinished && (done || fs::exists(p.state.trace)))
    return p;
  refuse_elsewhere(run, p.state.trace);
  const Recorded r = recorded(p.state.trace, p.state);
  if (p.state.trace_rows == 0 && !r.readable)
    p.new_trace = true;  // there is nothing of it yet
  else if (!agree(r, p.state))
    return without_rows(run, std::move(p), r);
  return p;
}

}  // namespace moe
