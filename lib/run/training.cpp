#include "lib/run/training.h"

#include "lib/run/data_identity.h"

#include <chrono>
#include <cmath>
#include <optional>

#include "lib/core/error.h"
#include "lib/run/origin.h"
#include "lib/run/recorder.h"

namespace moe {

void TrainingObserver::note(const std::string&) {}
void TrainingObserver::warning(const std::string&) {}
void TrainingObserver::started(Index, Index) {}
void TrainingObserver::stepped(const StepReport&) {}
void TrainingObserver::recorded(Index, std::uint64_t) {}
void TrainingObserver::validated(Index, const std::vector<DomainLoss>&) {}
void TrainingObserver::saved(Index, const std::filesystem::path&) {}
bool TrainingObserver::wants_stop() {
  return false;
}

namespace {

// The run's data; of a resumed run those that it began with, before anything of it is touched.
Corpus data_of(const TrainingRun::Setup& s) {
  Corpus corpus(s.state.data, *s.tokenizer, s.state.train.seed);
  if (s.resumed && s.accept_changed_data)
    accept_data(s.folder, corpus);
  else if (s.resumed)
    require_same_data(s.folder, corpus);
  return corpus;
}

}  // namespace

TrainingRun::TrainingRun(Setup s)
    : setup(std::move(s)),
      trainer(*setup.model, setup.state.train, comm),
      corpus(data_of(setup)),
      validation(validation_specs(setup.state.data), *setup.tokenizer, setup.state.train.seed),
      log(setup.folder / "metrics.jsonl", setup.state.step) {
  setup.provenance.options = setup.state.options;
  for (Corpus* data : {&corpus, &validation})
    data->begin_with(setup.model->config().start_token);
}

namespace {

namespace fs = std::filesystem;

// A step that is given up between two of its micro-batches. Nothing was changed by it yet.
struct GivenUp {};

class TrainingLoop {
 public:
  TrainingLoop(TrainingRun& run, TrainingObserver& observer)
      : run_(run),
        observer_(observer),
        folder_(run.setup.folder),
        state_(run.setup.state),
        model_(*run.setup.model),
        trainer_(run.trainer) {}

  TrainingResult go();

 private:
  void open_trace();
  void train_to_horizon();
  void step();
  Batch next(std::uint64_t number);
  void record(const Batch&, const Decoder<float>::Tape&, Index step);
  void validate();
  void save();
  bool save_is_due() const;  // by the clock: when one is made changes nothing that is computed
  void refuse_nonfinite() const;
  std::string kept() const;

  TrainingRun& run_;
  TrainingObserver& observer_;
  const fs::path& folder_;
  RunState& state_;
  Decoder<float>& model_;
  Trainer& trainer_;
  std::optional<TraceWriter> trace_;
  TraceFields fields_;
  std::uint64_t recorded_ = 0;  // rows of the trace up to the last step that was made
  TrainingResult result_;
  std::chrono::steady_clock::time_point saved_ = std::chrono::steady_clock::now();
};

void TrainingLoop::open_trace() {
  if (state_.trace.empty())
    return;
  fields_ = trace_fields(model_);
  fields_.prediction = false;
  TraceHeader header = trace_header(model_);
  describe_source(header, run_.setup.provenance, folder_.string(), *run_.setup.tokenizer,
                  run_.corpus, state_.train.seed);
  header.sequence_order = "mixed";  // training draws domains in turn
  describe_origin(header, state_);
  const bool replace = run_.setup.replace_trace || run_.setup.new_trace;
  // a commit that is on disk in part could take rows with it that a checkpoint names
  TraceWriterOptions options{.force = replace, .power = true, .fields = fields_};
  if (run_.setup.resumed && !run_.setup.new_trace)
    options.resume_rows = std::int64_t(state_.trace_rows);
  trace_.emplace(state_.trace, header, options);
  recorded_ = trace_->rows();
}

void TrainingLoop::record(const Batch& batch, const Decoder<float>::Tape& tape, Index step) {
  BatchRows rows(batch, token_flag::train, run_.corpus.boundary());
  int n = 0;
  for (std::size_t l = 0; l < tape.block.size(); ++l) {
    if (tape.block[l].moe)
      rows.layer(n++, *tape.block[l].moe, fields_, model_.config().in_encoder(int(l)));
  }
  trace_->step({.step = step, .phase = Phase::train});
  rows.append(*trace_);
  observer_.recorded(step, trace_->rows());
}

void TrainingLoop::validate() {
  const auto losses = evaluate(model_, run_.validation,
                               {.tokens = state_.eval_tokens,
                                .sequences = int(state_.train.sequences),
                                .length = int(state_.train.length)});
  run_.log.validation(trainer_.done(), losses);
  result_.validations.push_back({trainer_.done(), losses});
  observer_.validated(trainer_.done(), losses);
}

// What a person still has when the run stops on an error.
std::string TrainingLoop::kept() const {
  const auto steps = checkpoint_steps(folder_);
  return steps.empty()
             ? "no checkpoint was written yet"
             : concat("the checkpoint of step ", steps.front(), " is kept in ", folder_.string());
}

// A checkpoint with a NaN in it would become the newest, and the good ones before it would be
// pruned.
void TrainingLoop::refuse_nonfinite() const {
  for (const auto* p : model_.parameters()) {
    if (!std::isfinite(model_.backend().sum_squares(p->value()))) {
      throw Error(Exit::numeric, concat("step ", trainer_.done(), ": the weights of ", p->name(),
                                        " are not finite"))
          .hint("a smaller --lr, or a longer warm-up");
    }
  }
}

void TrainingLoop::save() {
  refuse_nonfinite();
  state_.step = trainer_.done();
  state_.steps_with_gradient = trainer_.steps_with_gradient();
  if (trace_) {
    trace_->commit(trainer_.done());
    trace_->sync();  // the state names these rows
    // those behind belong to a step that was given up
    state_.trace_rows = std::min(recorded_, trace_->safe_rows());
  }
  run_.log.sync();
  result_.checkpoint = save_checkpoint(
      folder_, model_, &trainer_, state_,
      tokenizer_files(*run_.setup.tokenizer,
                      run_.corpus.info().bare_ids && !run_.corpus.info().pieces, run_.setup.kept));
  prune(folder_, int(state_.keep), result_.checkpoint);
  saved_ = std::chrono::steady_clock::now();
  observer_.saved(state_.step, result_.checkpoint);
}

bool TrainingLoop::save_is_due() const {
  const std::chrono::duration<double, std::ratio<60>> since =
      std::chrono::steady_clock::now() - saved_;
  return state_.save_minutes > 0 && since.count() >= state_.save_minutes;
}

// The run's micro-batch of that number. Steps may be long: who asks to stop waits for one only.
Batch TrainingLoop::next(std::uint64_t number) {
  if (number % std::uint64_t(state_.train.accumulate) != 0 && observer_.wants_stop())
    throw GivenUp();
  return run_.corpus.train(number, int(state_.train.sequences), int(state_.train.length));
}

// One step and what is due after it.
void TrainingLoop::step() {
  const Index step = trainer_.done() + 1;
  const bool last = step == run_.horizon();
  const auto is_due = [&](Index every) {
    return every > 0 && step % every == 0;
  };
  Trainer::Observe observe;
  if (trace_ && (step - 1) % state_.trace_every == 0) {
    observe = [&](const Batch& b, const Decoder<float>::Tape& t) {
      record(b, t, step);
    };
  }
  const bool logged = is_due(state_.log_every) || step == 1 || last;
  const StepResult r = trainer_.step([&](std::uint64_t n) { return next(n); }, logged, observe);
  if (trace_)
    recorded_ = trace_->rows();
  result_.losses.push_back(r.loss);
  run_.log.count(state_.train.tokens_per_step());
  if (logged)
    run_.log.step(r, model_, trainer_);
  observer_.stepped({r, logged, run_.log.tokens_per_second()});
  if (is_due(state_.eval_every) || last)
    validate();
  if (!last && (is_due(state_.save_every) || save_is_due()))
    save();
}

void TrainingLoop::train_to_horizon() {
  // from here on there is always something to resume from, and it names rows of this trace
  if (!run_.setup.resumed || run_.setup.new_trace)
    save();
  while (!run_.finished()) {
    try {
      step();
    } catch (const GivenUp&) {
      result_.stopped = true;
    }
    if (!run_.finished() && (result_.stopped || observer_.wants_stop())) {
      result_.stopped = true;
      return save();
    }
  }
  if (run_.horizon() > 0)
    save();
}

TrainingResult TrainingLoop::go() {
  open_trace();
  result_.first_step = trainer_.done() + 1;
  observer_.started(trainer_.done(), run_.horizon());
  // a run that was killed between its last checkpoint and the end of its trace lacks only that
  if (!run_.setup.resumed || !run_.finished()) {
    try {
      train_to_horizon();
    } catch (const Error& e) {
      throw Error(e).safe(kept());
    }
  }
  if (trace_ && !result_.stopped)
    trace_->finish();
  return std::move(result_);
}

}  // namespace

TrainingResult train(TrainingRun& run, TrainingObserver& observer) {
  return TrainingLoop(run, observer).go();
}

}  // namespace moe
