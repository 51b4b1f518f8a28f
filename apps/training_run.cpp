#include "apps/training_run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/arguments.h"
#include "apps/evaluation.h"
#include "apps/metrics_log.h"
#include "apps/provenance.h"
#include "apps/terminal.h"
#include "apps/version.h"
#include "lib/checkpoint/run_lock.h"
#include "lib/core/load.h"
#include "lib/edit/edit.h"
#include "lib/family/families.h"
#include "lib/model/copy_weights.h"
#include "lib/model/cost.h"
#include "lib/router/learns_from_text.h"
#include "lib/router/router.h"
#include "lib/run/recorder.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

class TrainingRun {
 public:
  TrainingRun(fs::path folder, RunState state, Decoder<float>& model, const Tokenizer& tokenizer,
              bool resumed, bool force = false)
      : folder_(std::move(folder)),
        state_(std::move(state)),
        model_(model),
        tokenizer_(tokenizer),
        resumed_(resumed),
        force_(force),
        trainer_(model, state_.train, comm_),
        corpus_(state_.data, tokenizer, state_.train.seed),
        valid_(validation_specs(state_.data), tokenizer, state_.train.seed),
        log_(folder_ / "metrics.jsonl", state_.step) {}

  Trainer& trainer() {
    return trainer_;
  }
  int go();
  void finish_trace();

 private:
  void step(Progress&);
  void record(const Batch&, const Decoder<float>::Tape&, Index step);
  void open_trace();
  void validate(Progress&);
  void save();
  void refuse_nonfinite() const;
  std::string kept() const;
  std::string figures(const StepResult&) const;
  int stopped(int signal);

  fs::path folder_;
  RunState state_;
  Decoder<float>& model_;
  const Tokenizer& tokenizer_;
  bool resumed_, force_;  // force: a trace that is there is replaced
  Solo comm_;
  Trainer trainer_;
  Corpus corpus_, valid_;
  MetricsLog log_;
  std::optional<TraceWriter> trace_;
  TraceFields fields_;
};

void TrainingRun::open_trace() {
  if (state_.trace.empty())
    return;
  fields_ = trace_fields(model_);
  fields_.prediction = false;
  TraceHeader header = trace_header(model_);
  describe_source(header, state_.options, folder_.string(), tokenizer_, corpus_, state_.train.seed);
  TraceWriterOptions options{.force = force_, .fields = fields_};
  if (resumed_)
    options.resume_rows = std::int64_t(state_.trace_rows);
  trace_.emplace(state_.trace, header, options);
}

void TrainingRun::record(const Batch& batch, const Decoder<float>::Tape& tape, Index step) {
  BatchRows rows(batch, token_flag::train, corpus_.boundary());
  int n = 0;
  for (const auto& block : tape.block) {
    if (block.moe)
      rows.layer(n++, *block.moe, fields_);
  }
  trace_->step({.step = step, .phase = Phase::train});
  rows.append(*trace_);
}

// Loss, balance of the worst layer, dead experts, dropped choices: what a person wants to see
// early.
std::string TrainingRun::figures(const StepResult& r) const {
  double worst = 0;
  double dropped = 0;
  double chosen = 0;
  int dead = 0;
  for (const LayerStep& l : r.layer) {
    const LoadFigures f = load_figures(l.counts);
    worst = std::max(worst, f.maxvio);
    dead += f.dead;
    for (std::size_t e = 0; e < l.counts.size(); ++e) {
      chosen += double(l.counts[e]);
      dropped += double(l.counts[e] - l.kept[e]);
    }
  }
  std::string out =
      fmt::format("loss {:.3f}  {} tok/s", r.loss, count_text(log_.tokens_per_second()));
  if (!r.layer.empty()) {
    out += fmt::format("  worst MaxVio {:.2f}  dead {}  dropped {:.1f} %", worst, dead,
                       chosen > 0 ? 100 * dropped / chosen : 0);
  }
  return out;
}

void TrainingRun::validate(Progress& progress) {
  const auto losses = evaluate(model_, valid_,
                               {.tokens = state_.eval_tokens,
                                .sequences = int(state_.train.sequences),
                                .length = int(state_.train.length)});
  log_.validation(trainer_.done(), losses);
  progress.line(fmt::format("step {}  validation loss {:.4f}{}", trainer_.done(), mean_loss(losses),
                            per_domain_text(losses)));
}

// What a person still has when the run stops on an error.
std::string TrainingRun::kept() const {
  const auto steps = checkpoint_steps(folder_);
  return steps.empty()
             ? "no checkpoint was written yet"
             : concat("the checkpoint of step ", steps.front(), " is kept in ", folder_.string());
}

// A checkpoint with a NaN in it would become the newest, and the good ones before it would be
// pruned.
void TrainingRun::refuse_nonfinite() const {
  for (const auto* p : model_.parameters()) {
    if (!std::isfinite(model_.backend().sum_squares(p->value()))) {
      throw Error(Exit::numeric, concat("step ", trainer_.done(), ": the weights of ", p->name(),
                                        " are not finite"))
          .hint("a smaller --lr, or a longer warm-up");
    }
  }
}

void TrainingRun::save() {
  refuse_nonfinite();
  state_.step = trainer_.done();
  state_.steps_with_gradient = trainer_.steps_with_gradient();
  if (trace_) {
    trace_->commit(trainer_.done());
    state_.trace_rows = trace_->safe_rows();
  }
  const fs::path saved = save_checkpoint(folder_, model_, &trainer_, state_,
                                         tokenizer_files(tokenizer_, corpus_.info().bare_ids));
  prune(folder_, int(state_.keep), saved);
}

int TrainingRun::stopped(int signal) {
  save();
  note(fmt::format("stopped at step {} of {}, saved; go on with: moe train --resume {}",
                   trainer_.done(), state_.train.steps, folder_.string()));
  return 128 + signal;
}

// One step and what is due after it.
void TrainingRun::step(Progress& progress) {
  const Index step = trainer_.done() + 1;
  const Index horizon = state_.train.steps;
  const bool logs = step % state_.log_every == 0 || step == 1 || step == horizon;
  const auto next = [&](std::uint64_t n) {
    return corpus_.train(n, int(state_.train.sequences), int(state_.train.length));
  };
  Trainer::Observe observe;
  if (trace_ && (step - 1) % state_.trace_every == 0) {
    observe = [&](const Batch& b, const Decoder<float>::Tape& t) {
      record(b, t, step);
    };
  }
  const StepResult r = trainer_.step(next, logs, observe);
  log_.count(state_.train.tokens_per_step());
  if (logs)
    log_.step(r, model_, trainer_);
  progress.update(double(step), figures(r));
  if ((state_.eval_every > 0 && step % state_.eval_every == 0) || step == horizon)
    validate(progress);
  if (state_.save_every > 0 && step % state_.save_every == 0 && step != horizon)
    save();
}

// A run that was killed between its last checkpoint and the end of its trace.
void TrainingRun::finish_trace() {
  open_trace();
  if (trace_)
    trace_->finish();
}

int TrainingRun::go() {
  catch_stop_signals();
  open_trace();
  const Index horizon = state_.train.steps;
  Progress progress("step", double(horizon), "step");
  progress.start_at(double(trainer_.done()));
  try {
    if (!resumed_)
      save();  // from here on there is always something to resume from
    while (trainer_.done() < horizon) {
      step(progress);
      if (const int signal = stop_signal(); signal && trainer_.done() < horizon)
        return stopped(signal);
    }
    if (horizon > 0)
      save();
  } catch (const Error& e) {
    throw Error(e).safe(kept());
  }
  if (trace_)
    trace_->finish();
  note(fmt::format("{} steps, {} tokens in {}; {}", horizon,
                   count_text(double(horizon * state_.train.tokens_per_step())),
                   duration_text(progress.seconds()), folder_.string()));
  return 0;
}

void write_run_json(const fs::path& folder, const RunState& s, const ModelConfig& config) {
  const ModelCost cost = cost_of(config, s.train.sequences * s.train.length);
  write_json(folder / "run.json", {{"format", "moe-run"},
                                   {"version", 1},
                                   {"moe", version_short()},
                                   {"command", command_line()},
                                   {"created_utc", now_utc()},
                                   {"options", nlohmann::json::parse(s.options)},
                                   {"model", s.model},
                                   {"data", s.data},
                                   {"tokenizer", s.tokenizer},
                                   {"seed", s.train.seed},
                                   {"steps", s.train.steps},
                                   {"parameters", cost.parameters},
                                   {"active_parameters", cost.active_parameters}});
}

void say_what(const ModelConfig& config, const RunState& s) {
  const ModelCost c = cost_of(config, s.train.sequences * s.train.length);
  note(fmt::format("{}: {} parameters, {} active a token; {} steps of {} tokens; seed {}",
                   config.preset, count_text(double(c.parameters)),
                   count_text(double(c.active_parameters)), s.train.steps,
                   s.train.tokens_per_step(), s.train.seed));
}

// What a start that was killed within its first milliseconds leaves: the lock, and a file of ours
// that was being written.
bool is_leftover(const fs::path& path) {
  const std::string name = path.filename().string();
  return name == "lock" || (name.ends_with(".tmp") && (name.starts_with(".run.json.") ||
                                                       name.starts_with(".metrics.jsonl.")));
}

void refuse_folder(const fs::path& folder, bool force) {
  if (!fs::exists(folder) || (fs::is_directory(folder) &&
                              std::ranges::all_of(fs::directory_iterator(folder), is_leftover))) {
    return;
  }
  const std::string name = folder.string();
  if (!fs::exists(folder / "run.json")) {
    throw Error(Exit::usage, concat("'", name, "' exists and is not a run of moe",
                                    force ? "; --force replaces runs only" : ""))
        .hint("another -o")
        .safe("it was not touched");
  }
  if (!force) {
    throw Error(Exit::usage, concat("the run '", name, "' exists"))
        .hint(
            concat("moe train --resume ", name, " to go on, --force to replace it, or another -o"))
        .safe("it was not touched");
  }
}

void refuse_trace(const ModelConfig& config, const RunOptions& o) {
  if (config.moe_layers() == 0)
    throw Error(Exit::usage, "a dense model has no routing to record").hint("leave --trace out");
  refuse_existing(o.trace, o.force);
  if (!o.force && fs::exists(o.trace + ".part")) {
    throw Error(
        Exit::usage,
        concat("'", o.trace, ".part' exists: a recording that was interrupted, or still runs"))
        .hint(concat("moe recover ", o.trace, ".part -o FILE keeps its rows; --force replaces it"));
  }
}

// A size that this machine cannot hold is said at once, not after minutes of swapping.
void refuse_size(const ModelConfig& config, const TrainOptions& t) {
  const ModelCost c = cost_of(config, t.sequences * t.length);
  const double need =
      double(c.weight_bytes) + double(c.optimizer_bytes) + double(c.activation_bytes);
  const double there = double(::sysconf(_SC_PHYS_PAGES)) * double(::sysconf(_SC_PAGESIZE));
  if (need > there) {
    throw Error(Exit::memory, fmt::format("training takes {} of memory and this machine has {}",
                                          bytes_text(need), bytes_text(there)))
        .hint("a smaller --model, or a smaller --batch; --dry-run says what takes how much");
  }
}

// How often each token id stands in the text of a run's first batches, a million tokens at most:
// for routers whose table balances it.
void learn_tables(Decoder<float>& model, const Corpus& corpus, const TrainOptions& t) {
  constexpr Index enough = 1'000'000;
  std::vector<std::int64_t> counts;
  for (auto* layer : model.moe_layers()) {
    auto* table = capability<LearnsFromText>(layer->router());
    if (!table)
      continue;
    const Index batches =
        std::min(t.steps * t.accumulate, std::max<Index>(1, enough / (t.sequences * t.length)));
    for (Index n = counts.empty() ? 0 : batches; n < batches; ++n) {
      counts.resize(std::size_t(model.config().vocabulary), 0);
      for (const int id : corpus.train(std::uint64_t(n), int(t.sequences), int(t.length)).token)
        ++counts[std::size_t(id)];
    }
    counts.resize(std::size_t(model.config().vocabulary), 0);
    table->learn(counts);
  }
}

// What a run holds; whatever else lies in the folder stays.
void clear_run(const fs::path& folder) {
  for (const auto step : checkpoint_steps(folder))
    fs::remove_all(folder / checkpoint_name(step));
  std::vector<fs::path> old = {folder / "metrics.jsonl"};
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename() != "lock" && is_leftover(entry.path()))
      old.push_back(entry.path());
  }
  for (const fs::path& path : old)
    fs::remove(path);
  fs::remove(folder / "run.json");
}

// Weights of a checkpoint, and what its reader should know: tensors left out, and a class that will
// not open what is written.
void start_from(const std::string& init, Decoder<float>& model) {
  const LoadedModel from = load_model(init, model.backend());
  for (const std::string& n : from.checkpoint.notes)
    warning(n);
  copy_weights(*from.model, model);
  const Fit fit = fit_of(model.config());
  if (from.family != "moe" && fit.family == "moe") {
    note(fmt::format("checkpoints of this run keep this program's own form, not that of {}: {}",
                     from.family, fit.reason));
  }
}

}  // namespace

RunState state_of(const ModelConfig& config, const RunOptions& o) {
  RunState s;
  s.train = o.train;
  s.train.length = o.length > 0 ? o.length : config.context;
  Schedule(s.train.schedule, s.train.steps);  // refused here, before anything is made
  if (s.train.length > config.context) {
    throw Error(Exit::usage, concat("--length ", s.train.length,
                                    " is more than the model's context of ", config.context))
        .hint(concat("--length ", config.context, ", or --model ...:context=", s.train.length));
  }
  s.data = o.data;
  s.tokenizer = o.tokenizer;
  s.device = o.device.device;
  s.options = o.options;
  s.trace = o.trace.empty() ? "" : fs::absolute(o.trace).string();
  s.trace_every = o.trace_every;
  s.save_every = o.save_every;
  s.keep = o.keep;
  s.eval_every = o.eval_every;
  s.log_every = o.log_every;
  s.eval_tokens = o.eval_tokens;
  return s;
}

int start_run(const ModelConfig& given, const RunOptions& o) {
  const fs::path folder = o.folder;
  refuse_folder(folder, o.force);
  if (!o.trace.empty())
    refuse_trace(given, o);
  if (given.moe_layers() > 0 &&
      router_facts(given.moe.router, given.moe.experts).needs_recorded_routes) {
    throw Error(Exit::usage,
                "a replay follows a trace token by token, and training draws batches and validates "
                "between them")
        .hint("moe eval or moe trace with --router replay:trace=FILE");
  }
  const auto tokenizer = make_tokenizer(o.tokenizer);
  ModelConfig config = given;
  RunState state = state_of(config, o);
  if (!o.init.empty())
    state.data = for_vocabulary(state.data, config.vocabulary);
  const Corpus corpus(state.data, *tokenizer, state.train.seed);  // refused before anything is made
  if (!o.init.empty() && config.vocabulary != corpus.info().vocabulary) {
    throw Error(Exit::usage,
                concat("'", o.init, "' has a vocabulary of ", config.vocabulary,
                       " and the tokenizer ", o.tokenizer, " one of ", corpus.info().vocabulary))
        .hint("the tokenizer the checkpoint was trained with");
  }
  config.vocabulary = corpus.info().vocabulary;
  for (const std::string& n : corpus.info().notes)
    note(n);
  if (corpus.split() == Split::valid) {
    throw Error(Exit::usage,
                "--data says split=valid, and training on the validation split would spoil it")
        .hint("leave split= out");
  }
  state.data = corpus.specs();
  refuse_size(config, state.train);
  const auto device = open_device(o.device);
  Decoder<float> model(config, *device);
  model.initialise(state.train.seed);
  learn_tables(model, corpus, state.train);
  if (!o.init.empty())
    start_from(o.init, model);
  state.model = to_spec(model.config());
  Parts(state.train.trained, state.train.lr_factor, model);  // refused before anything is made
  const RunLock lock(folder);
  clear_run(folder);
  write_run_json(folder, state, model.config());
  say_what(model.config(), state);
  return TrainingRun(folder, state, model, *tokenizer, false, o.force).go();
}

int write_initial(const ModelConfig& given, const RunOptions& o) {
  const auto refuse = [](const std::string& sentence, const std::string& hint) {
    throw Error(Exit::usage, sentence).hint(hint);
  };
  if (o.train.steps != 0) {
    refuse(concat("--save-dtype writes weights alone, and a run of ", o.train.steps,
                  " steps must be able to go on where it stopped"),
           "--steps 0; of a trained run: moe train --init RUN --steps 0 --save-dtype bf16 -o NEW");
  }
  if (!o.trace.empty())
    refuse("no step is made, so there is no routing to record", "leave --trace out");
  const fs::path folder = o.folder;
  refuse_folder(folder, o.force);
  const auto tokenizer = make_tokenizer(o.tokenizer);
  ModelConfig config = given;
  RunState state = state_of(config, o);
  if (!o.data.empty()) {
    const Corpus corpus(state.data, *tokenizer, state.train.seed);
    state.data = corpus.specs();
    config.vocabulary = corpus.info().vocabulary;
  }
  if (config.vocabulary < tokenizer->vocabulary()) {
    refuse(concat("the model has ", config.vocabulary, " token ids and the tokenizer ", o.tokenizer,
                  " ", tokenizer->vocabulary()),
           concat("--model ...:vocabulary=", tokenizer->vocabulary()));
  }
  const auto device = open_device(o.device);
  const bool drawn_later = o.init.empty() && config.moe.widths.empty() && config.moe.all_ffn();
  Decoder<float> model(config, *device, drawn_later ? Storage::elsewhere : Storage::own);
  model.initialise(state.train.seed);
  for (auto* layer : model.moe_layers()) {
    if (auto* table = capability<LearnsFromText>(layer->router()))
      table->learn(std::vector<std::int64_t>(std::size_t(config.vocabulary), 0));
  }
  bool bare = false;
  if (!o.init.empty()) {
    const LoadedModel from = load_model(o.init, *device);
    copy_weights(*from.model, model);
    bare = !has_tokenizer(from);
  }
  state.model = to_spec(model.config());
  const RunLock lock(folder);
  clear_run(folder);
  write_run_json(folder, state, model.config());
  const fs::path saved =
      save_checkpoint(folder, model, nullptr, state, tokenizer_files(*tokenizer, bare),
                      o.save_dtype == "bf16" ? DType::bf16 : DType::f32);
  note(fmt::format("{} parameters in {}: {}", count_text(double(cost_of(config, 1).parameters)),
                   o.save_dtype, saved.string()));
  return 0;
}

int resume_run(const std::string& folder, Index horizon, const DeviceOptions& device_options) {
  if (!fs::is_directory(folder))
    throw Error(Exit::input, concat("there is no run '", folder, "'"));
  if (checkpoint_steps(folder).empty()) {
    throw Error(Exit::input, concat("'", folder,
                                    fs::exists(fs::path(folder) / "run.json")
                                        ? "' was stopped before its first checkpoint"
                                        : "' is not a run: it has no checkpoint-* folder"))
        .hint("moe train starts one; --force replaces a run");
  }
  const RunLock lock(folder);
  const auto device = open_device(device_options);
  LoadedModel loaded = load_model(folder, *device);
  for (const std::string& n : loaded.checkpoint.notes)
    warning(n);
  if (!loaded.state) {
    throw Error(Exit::input, concat("'", loaded.checkpoint.path.string(),
                                    "' has no state.json: it can be used, but not resumed"))
        .hint("moe train starts a new run");
  }
  RunState state = *loaded.state;
  if (horizon >= 0 && horizon != state.train.steps) {
    warning(
        fmt::format("the horizon changes from {} to {} steps: the learning rate, and a temperature "
                    "that moves, follow the new one",
                    state.train.steps, horizon));
    state.train.steps = horizon;
  }
  const bool done = state.step >= state.train.steps;
  const bool recording = !state.trace.empty() && fs::exists(state.trace + ".part");
  if (done && !recording) {
    note(fmt::format("{} is done: step {} of {}", folder, state.step, state.train.steps));
    return 0;
  }
  const auto tokenizer = make_tokenizer(state.tokenizer);
  if (!state.trace.empty() && !recording && fs::exists(state.trace)) {
    warning(
        concat("the trace '", state.trace, "' is complete: steps from here on are not recorded"));
    state.trace.clear();
  }
  TrainingRun run(folder, state, *loaded.model, *tokenizer, true);
  load_training(loaded, run.trainer());
  if (done) {
    run.finish_trace();
    note(fmt::format("{} was done but for its trace; wrote {}", folder, state.trace));
    return 0;
  }
  note(fmt::format("going on from step {} of {}", state.step, state.train.steps));
  return run.go();
}

}  // namespace moe
