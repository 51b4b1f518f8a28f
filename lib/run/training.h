// The training loop: steps, metrics.jsonl, validation, checkpoints and the trace recorded on the
// way. It prints nothing and knows no signals: an observer hears what happens and may stop the run,
// and the losses come back as a value, so that one process can train many models.
#pragma once
#include <optional>

#include "lib/checkpoint/run_lock.h"
#include "lib/run/metrics_log.h"
#include "lib/run/profiling.h"
#include "lib/run/provenance.h"
#include "lib/run/run_tokenizer.h"

namespace moe {

// One step that was made.
struct StepReport {
  const StepResult& result;
  bool logged;               // it has a line in metrics.jsonl
  double tokens_per_second;  // mean since the run began or went on
};

// Hears of a run as it goes on. Every call has a default that does nothing.
class TrainingObserver {
 public:
  virtual ~TrainingObserver() = default;
  // Whole sentences that a person should hear, while a run is made and while it trains.
  virtual void note(const std::string& sentence);
  virtual void warning(const std::string& sentence);
  // The first step comes next; `done` steps were made before.
  virtual void started(Index done, Index horizon);
  virtual void stepped(const StepReport&);
  virtual void recorded(Index step, std::uint64_t rows);  // rows of the trace so far
  virtual void validated(Index step, const std::vector<DomainLoss>&);
  virtual void saved(Index step, const std::filesystem::path& checkpoint);
  // Asked after every step but the last, and between the micro-batches of a step: true gives up an
  // unfinished step, saves the run as it stands and ends train(). Of several ranks any may ask, and
  // the step that was begun is made.
  virtual bool wants_stop();
};

// A run that can train: made by start_run() and resume_run(), which hold its folder's lock. Of
// several ranks each has one; rank 0 alone writes files.
struct TrainingRun {
  struct Setup {
    std::filesystem::path folder;
    RunState state;
    std::unique_ptr<Decoder<float>> model;
    std::shared_ptr<const Tokenizer> tokenizer;
    // of the checkpoint that the run began with, in each of its own; null = it began with none
    std::shared_ptr<const KeptFiles> kept;
    std::optional<RunLock> lock;  // held by rank 0
    Provenance provenance;        // its options are those of the state
    bool resumed = false;
    bool accept_changed_data = false;  // of a run that is resumed
    bool replace_trace = false;        // one that is there
    bool new_trace = false;            // of a run that is resumed: its trace begins here
    Comm* comm = nullptr;              // its ranks, which outlive it; null = one
    RankOptions ranks;
    ProfileOptions profile;  // settled()
  };
  explicit TrainingRun(Setup);
  TrainingRun(const TrainingRun&) = delete;

  Index horizon() const {
    return setup.state.train.steps;
  }
  // Every step is made; of a trace that was being recorded the end may be missing.
  bool finished() const {
    return trainer.done() >= horizon();
  }

  Setup setup;
  std::unique_ptr<Profile> profile;  // null where nobody wants one
  Solo solo;
  Comm& comm;
  Trainer trainer;
  Corpus corpus, validation;
  MetricsLog log;
};

struct ValidationLoss {
  Index step = 0;
  std::vector<DomainLoss> domains;
};

struct TrainingResult {
  Index first_step = 0;        // of the losses below, 1-based
  std::vector<double> losses;  // mean cross-entropy of each step made here, nats
  std::vector<ValidationLoss> validations;
  std::filesystem::path checkpoint;  // the last one written here; empty = none
  bool stopped = false;              // the observer stopped it before the horizon
  Shards::Sent experts_brought;      // RankFigures::experts, up to the last logged step
  CrossedRows rows;                  // RankFigures::rows, of all steps made here
};

// Trains from where the run stands to its horizon. Same bytes whoever observes, and however often
// it is stopped and resumed. Throws Error naming the checkpoint that is kept.
TrainingResult train(TrainingRun&, TrainingObserver&);

}  // namespace moe
