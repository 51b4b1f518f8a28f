// Going on with a run: from which checkpoint, on which device, with which trace.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/files/any_bytes.h"
#include "lib/files/file.h"
#include "lib/model/config.h"
#include "lib/run/few_bits_experts.h"
#include "lib/run/leftovers.h"
#include "lib/run/program_version.h"
#include "lib/run/resumed_trace.h"
#include "lib/run/same_on_ranks.h"
#include "lib/run/start_run.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

void refuse_no_run(const std::string& folder) {
  if (!fs::is_directory(folder))
    throw Error(Exit::input, concat("there is no run '", folder, "'"));
  if (checkpoint_steps(folder).empty()) {
    throw Error(Exit::input, concat("'", folder,
                                    fs::exists(fs::path(folder) / "run.json")
                                        ? "' was stopped before its first checkpoint"
                                        : "' is not a run: it has no checkpoint-* folder"))
        .hint("moe train starts one; --force replaces a run");
  }
}

// The newest valid checkpoint, with the state that makes it one of a run.
ResumePoint newest_point(const std::string& folder, TrainingObserver& observer) {
  const Checkpoint newest = find_checkpoint(folder);
  for (const std::string& n : newest.notes)
    observer.warning(n);
  if (!fs::exists(newest.path / "state.json")) {
    throw Error(Exit::input, concat("'", newest.path.string(),
                                    "' has no state.json: it can be used, but not resumed"))
        .hint("moe train starts a new run");
  }
  return {.checkpoint = newest.path, .state = read_state(newest.path)};
}

void take_horizon(RunState& state, Index horizon, TrainingObserver& observer) {
  if (horizon < 0 || horizon == state.train.steps)
    return;
  observer.warning(concat("the horizon changes from ", state.train.steps, " to ", horizon,
                          " steps: the learning rate, and a temperature that moves, follow the "
                          "new one"));
  state.train.steps = horizon;
}

// The device that the run was on, unless another one is asked for.
Backend<float>& open_device(RunState& state, const std::string& asked, const RunContext& context,
                            TrainingObserver& observer) {
  if (!asked.empty() && asked != state.device) {
    observer.warning(concat("the run was on device ", state.device, " and goes on with ", asked,
                            ": its numbers from here on are those of the other one"));
    state.device = asked;
  }
  try {
    return context.device(state.device);
  } catch (const Error& e) {
    if (!asked.empty())
      throw;
    throw Error(e).hint(concat("the run was on device ", state.device,
                               "; --device cpu goes on with other roundings"));
  }
}

LoadedModel load_point(const ResumePoint& point, const RunContext& context_of_run,
                       Backend<float>& device, TrainingObserver& observer) {
  LoadedModel loaded = load_to_train(point.checkpoint, device);
  for (const std::string& n : loaded.checkpoint.notes)
    observer.warning(n);
  const Index context = loaded.model->config().context;
  if (point.state.train.length > context) {
    throw Error(Exit::input, concat("'", (point.checkpoint / "state.json").string(),
                                    "': the length of a sequence, ", point.state.train.length,
                                    ", is more than the model's context of ", context));
  }
  refuse_size(loaded.model->config(), point.state.train, context_of_run,
              few_bits_bytes(point.checkpoint, point.state.device));
  return loaded;
}

// From where, with which trace; nothing of the run was changed before.
ResumePoint point_of(const std::string& folder, const ResumeOptions& options,
                     TrainingObserver& observer) {
  ResumePoint point = newest_point(folder, observer);
  take_horizon(point.state, options.horizon, observer);
  point = resume_point(folder, std::move(point), options.trace);
  for (const std::string& sentence : point.said)
    observer.warning(sentence);
  clear_leftovers(folder);
  return point;
}

// Where a run goes on, as rank 0 found it.
struct Begin {
  ResumePoint point;
  bool recording = false;
  std::optional<RunLock> lock;
};

Begin begin_of(const std::string& folder, const ResumeOptions& options, const RunContext& context,
               TrainingObserver& observer) {
  refuse_no_run(folder);
  Begin out{.point = {}, .recording = false, .lock = std::optional<RunLock>(folder)};
  if (const std::string changed =
          check_program_version(folder, context.provenance.version, options.accept_changed_version);
      !changed.empty())
    observer.note(changed);
  out.point = point_of(folder, options, observer);
  const RunState& state = out.point.state;
  out.recording =
      out.point.new_trace || (!state.trace.empty() && fs::exists(state.trace + ".part"));
  if (!state.trace.empty() && !out.recording && fs::exists(state.trace)) {
    observer.warning(
        concat("the trace '", state.trace, "' is complete: steps from here on are not recorded"));
    out.point.state.trace.clear();
  }
  return out;
}

// The same on every rank: the others read the state that rank 0 chose.
Begin agreed(const std::string& folder, const ResumeOptions& options, const RunContext& context,
             TrainingObserver& observer) {
  if (!context.comm || context.comm->alone())
    return begin_of(folder, options, context, observer);
  constexpr About about{"where the run goes on"};
  if (context.comm->first()) {
    Begin mine = begin_of(folder, options, context, observer);
    const Json said = {{"checkpoint", escaped(mine.point.checkpoint.string())},
                       {"trace", escaped(mine.point.state.trace)},
                       {"steps", mine.point.state.train.steps},
                       {"rows", mine.point.state.trace_rows},
                       {"new", mine.point.new_trace},
                       {"recording", mine.recording}};
    context.comm->from_first(about, said.dump());
    return mine;
  }
  const Json said = Json::parse(context.comm->from_first(about, ""));
  Begin out;
  out.point.checkpoint = unescaped(said.at("checkpoint").get<std::string>());
  out.point.state = read_state(out.point.checkpoint);
  out.point.state.trace = unescaped(said.at("trace").get<std::string>());
  // as rank 0 took it: that of an older checkpoint may be another one
  said.at("steps").get_to(out.point.state.train.steps);
  said.at("rows").get_to(out.point.state.trace_rows);
  said.at("new").get_to(out.point.new_trace);
  said.at("recording").get_to(out.recording);
  return out;
}

}  // namespace

std::unique_ptr<TrainingRun> resume_run(const std::string& folder, const ResumeOptions& options,
                                        const RunContext& context, TrainingObserver& observer) {
  Begin begin = agreed(folder, options, context, observer);
  RunState& state = begin.point.state;
  if (state.step >= state.train.steps && !begin.recording) {
    observer.note(concat(folder, " is done: step ", state.step, " of ", state.train.steps));
    if (context.writes())
      prune(folder, int(state.keep));
    return nullptr;
  }
  Trainer::refuse_layout(state.train, context.ranks, context.size(),
                         experts_of(model_config(state.model)));
  refuse_few_bits(begin.point.checkpoint, state.train, context.ranks);
  const ProfileOptions profile =
      profile_of(context, state.step, state.train.steps, folder, observer);
  LoadedModel loaded = load_point(begin.point, context,
                                  open_device(state, options.device, context, observer), observer);
  auto tokenizer = training_tokenizer(loaded);
  auto kept = files_kept(loaded.checkpoint.path, *tokenizer);
  auto run = std::make_unique<TrainingRun>(
      TrainingRun::Setup{.folder = folder,
                         .state = std::move(state),
                         .model = std::move(loaded.model),
                         .tokenizer = std::move(tokenizer),
                         .kept = std::move(kept),
                         .lock = std::move(begin.lock),
                         .provenance = context.provenance,
                         .resumed = true,
                         .accept_changed_data = options.accept_changed_data,
                         .new_trace = begin.point.new_trace,
                         .comm = context.comm,
                         .ranks = context.ranks,
                         .profile = profile});
  load_training(loaded, run->trainer);
  require_same_run(context, run->setup.state, run->corpus);
  return run;
}

}  // namespace moe
