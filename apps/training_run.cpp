#include "apps/training_run.h"

#include <fmt/format.h>

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
#include "lib/model/edit.h"
#include "lib/model/recorder.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

class TrainingRun {
 public:
  TrainingRun(fs::path folder, RunState state, Decoder<float>& model, const Tokenizer& tokenizer)
      : folder_(std::move(folder)), state_(std::move(state)), model_(model), tokenizer_(tokenizer), trainer_(model, state_.train, comm_),
        corpus_(state_.data, tokenizer, state_.train.seed), valid_(validation_specs(state_.data), tokenizer, state_.train.seed),
        log_(folder_ / "metrics.jsonl", trainer_.done()) {}

  Trainer& trainer() { return trainer_; }
  int go();

 private:
  void record(const Batch&, const Decoder<float>::Tape&, Index step);
  void open_trace();
  std::vector<DomainLoss> validate();
  void save();
  std::string figures(const StepResult&) const;
  int stopped(int signal);

  fs::path folder_;
  RunState state_;
  Decoder<float>& model_;
  const Tokenizer& tokenizer_;
  Solo comm_;
  Trainer trainer_;
  Corpus corpus_, valid_;
  MetricsLog log_;
  std::optional<TraceWriter> trace_;
  TraceFields fields_;
};

void TrainingRun::open_trace() {
  if (state_.trace.empty()) return;
  fields_ = trace_fields(model_);
  fields_.prediction = false;
  TraceHeader header = trace_header(model_);
  describe_source(header, state_.options, folder_.string(), tokenizer_, corpus_, state_.train.seed);
  TraceWriterOptions options{.fields = fields_};
  if (trainer_.done() > 0) options.resume_rows = std::int64_t(state_.trace_rows);
  trace_.emplace(state_.trace, header, options);
}

void TrainingRun::record(const Batch& batch, const Decoder<float>::Tape& tape, Index step) {
  if (!trace_ || (step - 1) % state_.trace_every != 0) return;
  BatchRows rows(batch, token_flag::train, tokenizer_.boundary());
  int n = 0;
  for (const auto& block : tape.block)
    if (block.moe) rows.layer(n++, *block.moe, fields_);
  trace_->step({.step = step, .phase = Phase::train});
  rows.append(*trace_);
}

// Loss, balance of the worst layer, dead experts, dropped choices: what a person wants to see early.
std::string TrainingRun::figures(const StepResult& r) const {
  double worst = 0, dropped = 0, chosen = 0;
  int dead = 0;
  for (const LayerStep& l : r.layer) {
    const LoadFigures f = load_figures(l.counts);
    worst = std::max(worst, f.maxvio);
    dead += f.dead;
    for (std::size_t e = 0; e < l.counts.size(); ++e) chosen += double(l.counts[e]), dropped += double(l.counts[e] - l.kept[e]);
  }
  std::string out = fmt::format("loss {:.3f}  {} tok/s", r.loss, count_text(log_.tokens_per_second()));
  if (!r.layer.empty()) out += fmt::format("  worst MaxVio {:.2f}  dead {}  dropped {:.1f} %", worst, dead, chosen > 0 ? 100 * dropped / chosen : 0);
  return out;
}

std::vector<DomainLoss> TrainingRun::validate() {
  return evaluate(model_, valid_, {.tokens = state_.eval_tokens, .sequences = int(state_.train.sequences), .length = int(state_.train.length)});
}

void TrainingRun::save() {
  state_.step = trainer_.done();
  state_.steps_with_gradient = trainer_.steps_with_gradient();
  if (trace_) {
    trace_->commit(trainer_.done());
    state_.trace_rows = trace_->safe_rows();
  }
  const TokenizerFiles files{tokenizer_.id(), tokenizer_.tokenizer_json(), tokenizer_.tokenizer_config_json(), tokenizer_.boundary()};
  const fs::path saved = save_checkpoint(folder_, model_, &trainer_, state_, files);
  prune(folder_, int(state_.keep), saved);
}

int TrainingRun::stopped(int signal) {
  save();
  note(fmt::format("stopped at step {} of {}, saved; go on with: moe train --resume {}", trainer_.done(), state_.train.steps, folder_.string()));
  return 128 + signal;
}

int TrainingRun::go() {
  catch_stop_signals();
  open_trace();
  const Index horizon = state_.train.steps;
  Progress progress("step", double(horizon), "step");
  progress.start_at(double(trainer_.done()));
  const auto next = [&](std::uint64_t n) { return corpus_.train(n, int(state_.train.sequences), int(state_.train.length)); };
  while (trainer_.done() < horizon) {
    const Index step = trainer_.done() + 1;
    const bool logs = step % state_.log_every == 0 || step == 1 || step == horizon;
    const StepResult r = trainer_.step(next, logs, [&](const Batch& b, const Decoder<float>::Tape& t) { record(b, t, step); });
    log_.count(state_.train.tokens_per_step());
    if (logs) log_.step(r, model_, trainer_);
    progress.update(double(step), figures(r));
    if ((state_.eval_every > 0 && step % state_.eval_every == 0) || step == horizon) {
      const auto losses = validate();
      log_.validation(step, losses);
      progress.line(fmt::format("step {}  validation loss {:.4f}{}", step, mean_loss(losses), per_domain_text(losses)));
    }
    if (state_.save_every > 0 && step % state_.save_every == 0 && step != horizon) save();
    if (const int signal = stop_signal()) return stopped(signal);
  }
  save();
  if (trace_) trace_->finish();
  note(fmt::format("{} steps, {} tokens in {}; {}", horizon, count_text(double(horizon * state_.train.tokens_per_step())), duration_text(progress.seconds()), folder_.string()));
  return 0;
}

void write_run_json(const fs::path& folder, const RunState& s, const ModelConfig& config) {
  const ModelCost cost = cost_of(config, s.train.sequences * s.train.length);
  write_json(folder / "run.json", {{"format", "moe-run"}, {"version", 1}, {"moe", version_short()}, {"command", command_line()}, {"created_utc", now_utc()},
                                   {"options", nlohmann::json::parse(s.options)}, {"model", s.model}, {"data", s.data}, {"tokenizer", s.tokenizer},
                                   {"seed", s.train.seed}, {"steps", s.train.steps}, {"parameters", cost.parameters}, {"active_parameters", cost.active_parameters}});
}

RunState state_of(const ModelConfig& config, const RunOptions& o) {
  RunState s;
  s.train = o.train;
  s.train.length = o.length > 0 ? o.length : config.context;
  if (s.train.length > config.context) throw Error(Exit::usage, concat("--length ", s.train.length, " is more than the model's context of ", config.context)).hint(concat("--length ", config.context, ", or --model ...:context=", s.train.length));
  s.data = o.data, s.tokenizer = o.tokenizer, s.device = o.device.device, s.options = o.options;
  s.trace = o.trace, s.trace_every = o.trace_every;
  s.save_every = o.save_every, s.keep = o.keep, s.eval_every = o.eval_every, s.log_every = o.log_every, s.eval_tokens = o.eval_tokens;
  return s;
}

void say_what(const ModelConfig& config, const RunState& s) {
  const ModelCost c = cost_of(config, s.train.sequences * s.train.length);
  note(fmt::format("{}: {} parameters, {} active a token; {} steps of {} tokens; seed {}", config.preset, count_text(double(c.parameters)),
                   count_text(double(c.active_parameters)), s.train.steps, s.train.tokens_per_step(), s.train.seed));
}

}  // namespace

int start_run(const ModelConfig& given, const RunOptions& o) {
  const fs::path folder = o.folder;
  if (fs::exists(folder) && !(fs::is_directory(folder) && fs::is_empty(folder)) && !o.force)
    throw Error(Exit::usage, concat("'", o.folder, "' exists")).hint(concat("moe train --resume ", o.folder, " to go on, --force to replace it, or another -o")).safe("it was not touched");
  if (!o.trace.empty()) refuse_existing(o.trace, o.force);
  const auto tokenizer = make_tokenizer(o.tokenizer);
  ModelConfig config = given;
  RunState state = state_of(config, o);
  const Corpus corpus(state.data, *tokenizer, state.train.seed);  // refused before anything is made
  if (!o.init.empty() && config.vocabulary != corpus.info().vocabulary)
    throw Error(Exit::usage, concat("'", o.init, "' has a vocabulary of ", config.vocabulary, " and the tokenizer ", o.tokenizer, " one of ", corpus.info().vocabulary)).hint("the tokenizer the checkpoint was trained with");
  config.vocabulary = corpus.info().vocabulary;
  for (const std::string& n : corpus.info().notes) note(n);
  if (corpus.split() == Split::valid) throw Error(Exit::usage, "--data says split=valid, and training on the validation split would spoil it").hint("leave split= out");
  state.data = corpus.specs();
  const auto device = open_device(o.device);
  Decoder<float> model(config, *device);
  model.initialise(state.train.seed);
  if (!o.init.empty()) copy_weights(*load_model(o.init, *device).model, model);
  state.model = to_spec(model.config());
  if (o.force && fs::exists(folder / "run.json")) fs::remove_all(folder);  // only ever a run of ours
  const RunLock lock(folder);
  write_run_json(folder, state, model.config());
  say_what(model.config(), state);
  return TrainingRun(folder, state, model, *tokenizer).go();
}

int resume_run(const std::string& folder, Index horizon, const DeviceOptions& device_options) {
  const RunLock lock(folder);
  const auto device = open_device(device_options);
  LoadedModel loaded = load_model(folder, *device);
  for (const std::string& n : loaded.checkpoint.notes) warning(n);
  if (!loaded.state) throw Error(Exit::input, concat("'", loaded.checkpoint.path.string(), "' has no state.json: it can be used, but not resumed")).hint("moe train starts a new run");
  RunState state = *loaded.state;
  if (horizon >= 0 && horizon != state.train.steps) {
    warning(fmt::format("the horizon changes from {} to {} steps: the learning rate follows the new one", state.train.steps, horizon));
    state.train.steps = horizon;
  }
  if (state.step >= state.train.steps) {
    note(fmt::format("{} is done: step {} of {}", folder, state.step, state.train.steps));
    return 0;
  }
  const auto tokenizer = make_tokenizer(state.tokenizer);
  TrainingRun run(folder, state, *loaded.model, *tokenizer);
  load_training(loaded, run.trainer());
  note(fmt::format("going on from step {} of {}", state.step, state.train.steps));
  return run.go();
}

int dry_run(const ModelConfig& config, const RunOptions& o) {
  const RunState s = state_of(config, o);
  const ModelCost c = cost_of(config, s.train.sequences * s.train.length);
  const double total = 3 * c.flops_per_token_forward * double(s.train.tokens_per_step());
  Table t{.id = "cost", .title = "What this run would take", .reading = "Backward counts twice the forward FLOPs (multiply-add = 2). Memory is what moe itself allocates for one step; nothing was built."};
  std::vector<std::string> what, value;
  const auto row = [&](const char* name, std::string text) { what.emplace_back(name), value.push_back(std::move(text)); };
  row("parameters", fmt::format("{} ({})", c.parameters, count_text(double(c.parameters))));
  row("active parameters a token", fmt::format("{} ({})", c.active_parameters, count_text(double(c.active_parameters))));
  row("of them in experts", fmt::format("{}", c.expert_parameters));
  row("FLOPs a token, forward", count_text(c.flops_per_token_forward));
  row("FLOPs a step", count_text(total));
  row("tokens a step", fmt::format("{}", s.train.tokens_per_step()));
  row("tokens in all", count_text(double(s.train.tokens_per_step() * s.train.steps)));
  row("memory: weights", bytes_text(double(c.weight_bytes)));
  row("memory: gradients and moments", bytes_text(double(c.optimizer_bytes)));
  row("memory: activations", bytes_text(double(c.activation_bytes)));
  row("memory in all", bytes_text(double(c.weight_bytes + c.optimizer_bytes + c.activation_bytes)));
  row("disk: one checkpoint", bytes_text(double(c.weight_bytes) * 3));
  row("disk: checkpoints kept", bytes_text(double(c.weight_bytes) * 3 * double(s.keep + 1)));
  t.columns = {{.name = "what", .cells = what}, {.name = "value", .cells = value}};
  Report report{.title = fmt::format("{}: dry run", config.preset)};
  report.tables.push_back(t);
  write_report(report, {});
  return 0;
}

}  // namespace moe
