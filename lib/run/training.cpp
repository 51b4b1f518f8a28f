#include "lib/run/training.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/run/data_identity.h"
#include "lib/run/origin.h"
#include "lib/run/packed_rows.h"
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
  const bool writes = !s.comm || s.comm->first();
  if (s.resumed && s.accept_changed_data && writes)
    accept_data(s.folder, corpus);
  if (s.resumed && s.accept_changed_data)
    return corpus;
  if (s.resumed)
    require_same_data(s.folder, corpus);
  return corpus;
}

}  // namespace

TrainingRun::TrainingRun(Setup s)
    : setup(std::move(s)),
      comm(setup.comm ? *setup.comm : solo),
      trainer(*setup.model, setup.state.train, comm, setup.ranks),
      corpus(data_of(setup)),
      validation(validation_specs(setup.state.data), *setup.tokenizer, setup.state.train.seed),
      log(comm.first() ? MetricsLog(setup.folder / "metrics.jsonl", setup.state.step)
                       : MetricsLog()) {
  if (setup.profile.wanted() && comm.first()) {
    Backend<float>& device = setup.model->backend();
    profile = std::make_unique<Profile>([&device] { device.wait(); });
    trainer.set_profile(profile.get());
  }
  setup.provenance.options = setup.state.options;
  const ModelConfig& config = setup.model->config();
  for (Corpus* data : {&corpus, &validation}) {
    data->begin_with(config.start_token);
    data->use_places(config.signal, config.vocabulary);
  }
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
        trainer_(run.trainer),
        comm_(run.comm) {}

  TrainingResult go();

 private:
  void open_trace();
  void train_to_horizon();
  void step();
  Batch next(std::uint64_t number);
  void record(const Batch&, const Decoder<float>::Tape&, Index step);
  void gather_rows(Index step);
  void log(const StepResult&);
  void record_spans(Index step);
  void write_spans();
  // Whether to stop, and whether to save, as all ranks do.
  struct Decision {
    bool stop = false, save = false;
  };
  Decision decide();
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
  Comm& comm_;
  bool stop_asked_ = false;
  bool recording_ = false;            // steps are, by rank 0
  std::optional<TraceWriter> trace_;  // its
  PackedRows rows_;                   // of the step, of another rank

  TraceFields fields_;
  std::uint64_t recorded_ = 0;  // rows of the trace up to the last step that was made
  TrainingResult result_;
  std::chrono::steady_clock::time_point saved_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point logged_ = saved_;
  ExchangeTotals exchanged_;  // up to the last line of metrics.jsonl
  Index timed_ = 0;           // steps since then
  bool spans_written_ = false;
};

void TrainingLoop::open_trace() {
  if (state_.trace.empty())
    return;
  recording_ = true;
  fields_ = trace_fields(model_);
  fields_.prediction = false;
  fields_.modality = run_.corpus.info().modalities;
  fields_.rank = state_.trace_ranks;
  if (!comm_.first())
    return trainer_.lend();
  TraceHeader header = trace_header(model_);
  trainer_.end_reading();
  describe_source(header, run_.setup.provenance, folder_.string(), *run_.setup.tokenizer,
                  run_.corpus, state_.train.seed);
  name_places(header, model_.config());
  header.sequence_order = "mixed";  // training draws domains in turn
  describe_origin(header, state_);
  if (state_.trace_ranks) {  // where weights travel a rank computes its own rows
    const bool tokens = trainer_.move() == Move::tokens;
    header.expert_ranks = tokens ? std::uint32_t(run_.setup.ranks.expert_ranks) : 1;
  }
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
  if (fields_.rank)
    rows.computed_by(comm_.rank());
  int n = 0;
  for (std::size_t l = 0; l < tape.block.size(); ++l) {
    if (tape.block[l].moe)
      rows.layer(n++, *tape.block[l].moe, fields_, model_.config().in_encoder(int(l)));
  }
  if (!trace_)
    return rows_.add(rows);
  trace_->step({.step = step, .phase = Phase::train});
  rows.append(*trace_);
  observer_.recorded(step, trace_->rows());
}

// The rows of the other ranks' micro-batches, which follow those of rank 0, in their order.
void TrainingLoop::gather_rows(Index step) {
  if (comm_.alone())
    return;
  std::vector<ConstBytes> send(std::size_t(comm_.size()));
  send[0] = comm_.first() ? ConstBytes{} : rows_.bytes();
  const auto all = comm_.exchange({"rows of the trace"}, send);
  rows_ = {};
  for (const auto& bytes : all) {
    PackedRows::for_each(bytes, [&](const std::vector<SequenceRows>& batch) {
      trace_->step({.step = step, .phase = Phase::train});
      append(batch, *trace_);
      observer_.recorded(step, trace_->rows());
    });
  }
}

void TrainingLoop::validate() {
  const auto losses = evaluate(model_, run_.validation,
                               {.tokens = state_.eval_tokens,
                                .sequences = int(state_.train.sequences),
                                .length = int(state_.train.length)},
                               comm_);
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
  if (const std::string name = trainer_.first_not_finite(); !name.empty()) {
    throw Error(Exit::numeric,
                concat("step ", trainer_.done(), ": the weights of ", name, " are not finite"))
        .hint("a smaller --lr, or a longer warm-up");
  }
}

void TrainingLoop::save() {
  refuse_nonfinite();
  state_.step = trainer_.done();
  state_.steps_with_gradient = trainer_.steps_with_gradient();
  if (!comm_.first()) {
    trainer_.lend();
    return;
  }
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
  trainer_.end_reading();
  prune(folder_, int(state_.keep), result_.checkpoint);
  saved_ = std::chrono::steady_clock::now();
  observer_.saved(state_.step, result_.checkpoint);
}

TrainingLoop::Decision TrainingLoop::decide() {
  if (comm_.alone())
    return {observer_.wants_stop(), save_is_due()};
  const std::uint8_t mine[] = {observer_.wants_stop(), save_is_due()};
  const auto all = comm_.gather<std::uint8_t>({"stop or save"}, mine);
  const auto asks = [](const auto& theirs) {
    return theirs[0] != 0;
  };
  return {std::ranges::any_of(all, asks), all[0][1] != 0};
}

bool TrainingLoop::save_is_due() const {
  const std::chrono::duration<double, std::ratio<60>> since =
      std::chrono::steady_clock::now() - saved_;
  return state_.save_minutes > 0 && since.count() >= state_.save_minutes;
}

// The run's micro-batch of that number. Steps may be long: who asks to stop waits for one only.
Batch TrainingLoop::next(std::uint64_t number) {
  const bool begun = number % std::uint64_t(state_.train.accumulate) != 0;
  if (begun && comm_.alone() && observer_.wants_stop())
    throw GivenUp();
  return run_.corpus.train(number, int(state_.train.sequences), int(state_.train.length));
}

// Whether the spans of the step that comes next are kept, and the file once the last one is made.
void TrainingLoop::record_spans(Index step) {
  const ProfileOptions& o = run_.setup.profile;
  if (!run_.profile || o.trace.empty())
    return;
  run_.profile->record(step >= o.first && step <= o.last);
  if (step > o.last)
    write_spans();
}

// The steps that were recorded, also where the run ends before the last of them.
void TrainingLoop::write_spans() {
  if (!run_.profile || run_.setup.profile.trace.empty() || spans_written_)
    return;
  spans_written_ = true;
  write_file(run_.setup.profile.trace, chrome_trace(run_.profile->take_events(), comm_.rank()));
  observer_.note(concat("spans of the profiled steps: ", run_.setup.profile.trace));
}

void TrainingLoop::log(const StepResult& r) {
  std::optional<StepTimes> times;
  if (run_.profile && run_.setup.profile.split)
    times = StepTimes{run_.profile->take(), std::exchange(timed_, 0)};
  const StepTimes* const split = times ? &*times : nullptr;
  if (comm_.alone())
    return run_.log.step(r, model_, trainer_, split);
  const auto now = std::chrono::steady_clock::now();
  const ExchangeTotals totals = comm_.totals();
  struct OfRank {
    double seconds, exchanging;
    std::int64_t bytes;
    Shards::Sent experts;
    CrossedRows rows;
  };
  const OfRank mine[] = {{std::chrono::duration<double>(now - logged_).count(),
                          totals.seconds - exchanged_.seconds, totals.bytes - exchanged_.bytes,
                          trainer_.lent_experts(), trainer_.take_crossed_rows()}};
  RankFigures ranks;
  for (const auto& theirs : comm_.gather<OfRank>({"figures of ranks"}, mine)) {
    const OfRank& of = theirs.at(0);
    ranks.seconds.push_back(of.seconds);
    ranks.exchanging.push_back(of.exchanging);
    ranks.bytes.push_back(of.bytes);
    ranks.experts.asked += of.experts.asked;
    ranks.experts.all += of.experts.all;
    ranks.rows += of.rows;
  }
  result_.experts_brought = ranks.experts;
  result_.rows += ranks.rows;
  run_.log.step(r, model_, trainer_, split, &ranks);
  logged_ = std::chrono::steady_clock::now();
  exchanged_ = comm_.totals();
}

// One step and what is due after it.
void TrainingLoop::step() {
  const Index step = trainer_.done() + 1;
  const bool last = step == run_.horizon();
  const auto is_due = [&](Index every) {
    return every > 0 && step % every == 0;
  };
  Trainer::Observe observe;
  const bool recorded = recording_ && (step - 1) % state_.trace_every == 0;
  if (recorded) {
    observe = [&](const Batch& b, const Decoder<float>::Tape& t) {
      record(b, t, step);
    };
  }
  const bool logged = is_due(state_.log_every) || step == 1 || last;
  record_spans(step);
  const StepResult r = trainer_.step([&](std::uint64_t n) { return next(n); }, logged, observe);
  if (recorded)
    gather_rows(step);
  if (trace_)
    recorded_ = trace_->rows();
  ++timed_;
  result_.losses.push_back(r.loss);
  run_.log.count(state_.train.tokens_per_step());
  if (logged)
    log(r);
  observer_.stepped({r, logged, run_.log.tokens_per_second()});
  if (is_due(state_.eval_every) || last)
    validate();
  if (last)
    return;
  const Decision d = decide();
  stop_asked_ = d.stop;
  if (!d.stop && (is_due(state_.save_every) || d.save))
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
      stop_asked_ = true;
    }
    if (!run_.finished() && stop_asked_) {
      result_.stopped = true;
      write_spans();
      return save();
    }
  }
  write_spans();
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
