// metrics.jsonl: one JSON object a line, flushed, so that a killed run still has every line. On
// resume the lines behind the checkpoint are cut off.
#pragma once
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "apps/evaluation.h"
#include "lib/model/trainer.h"

namespace moe {

class MetricsLog {
 public:
  MetricsLog(const std::filesystem::path&, Index steps_done);
  MetricsLog(const MetricsLog&) = delete;
  ~MetricsLog();
  void count(Index tokens) {
    tokens_ += double(tokens);
  }
  double tokens_per_second() const;
  void step(const StepResult&, Decoder<float>&, Trainer&);
  void validation(Index step, const std::vector<DomainLoss>&);

 private:
  void write(const std::string& line);
  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
  double tokens_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::string per_domain_text(const std::vector<DomainLoss>&);  // " (a 1.23, b 4.56)"

}  // namespace moe
