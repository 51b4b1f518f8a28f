// metrics.jsonl: one JSON object a line, flushed, so that a killed run still has every line. On
// resume the lines behind the checkpoint are cut off.
#pragma once
#include <chrono>
#include <filesystem>

#include "lib/core/profile.h"
#include "lib/model/trainer.h"
#include "lib/run/evaluation.h"

namespace moe {

// What ranks did in the steps since the last line: no part of what a run computes.
struct RankFigures {
  std::vector<double> seconds, exchanging;  // (ranks): in steps, and of them in exchanges
  std::vector<std::int64_t> bytes;          // (ranks): sent to others
  // since the run began or went on, of all ranks: numbers of experts that ranks had to send for
  // those that chose them (--zero 3), and if all had been chosen
  Shards::Sent experts = {};
  CrossedRows rows = {};  // of all ranks: of tokens on their way to experts and back (--ep)
};

// Where the time of the steps since the last line went; of rank 0.
struct StepTimes {
  Profile::Times times;
  Index steps = 0;
};

class MetricsLog {
 public:
  // Goes on with a file that is there: lines of steps behind `steps_done` are cut off. Throws
  // Error(io), as every call that writes.
  MetricsLog(const std::filesystem::path&, Index steps_done);
  // Writes nothing: of a rank that is not the first.
  MetricsLog() = default;
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog(MetricsLog&&) noexcept;
  ~MetricsLog();
  void count(Index tokens) {
    tokens_ += double(tokens);
  }
  double tokens_per_second() const;  // of those counted, since this log was opened
  // `times`: where a profile is wanted; `ranks`: of a run on several, figures of the step by rank
  void step(const StepResult&, Decoder<float>&, Trainer&, const StepTimes* times = nullptr,
            const RankFigures* ranks = nullptr);
  // What was said before the first step, so that the file alone says it too.
  void warning(const std::string& sentence);
  void sync();  // every line is on disk
  void validation(Index step, const std::vector<DomainLoss>&);

 private:
  void write(const std::string& line);
  [[noreturn]] void refuse(int error) const;
  std::filesystem::path path_;
  int file_ = -1;
  double tokens_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace moe
