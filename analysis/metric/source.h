// Where metrics get their rows from: a trace file, or rows held in memory (tests, live training).
// Metrics never know which.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "lib/trace/reader.h"

namespace moe {

class TraceSource {
 public:
  virtual ~TraceSource() = default;
  virtual const TraceHeader& header() const = 0;
  virtual const TraceFields& fields() const = 0;  // what there is
  virtual const std::vector<TraceSequence>& sequences() const = 0;
  virtual const std::vector<TraceStep>& steps() const = 0;
  virtual std::uint64_t tokens() const = 0;
  virtual TraceRows read(std::uint64_t first, std::uint64_t count,
                         const TraceFields& wanted) const = 0;
  // Steps of /counts/per_step, and some of them, (count, L * max_experts()): of engines that count
  // tokens per expert; a trace of them may hold no tokens.
  virtual std::uint64_t count_steps() const {
    return 0;
  }
  virtual Matrix<std::uint32_t> counts(std::uint64_t /*first*/, std::uint64_t /*count*/) const {
    return {};
  }
  // rows ignored, newer minor version, ...
  virtual std::vector<std::string> warnings() const {
    return {};
  }
};

inline bool counts_only(const TraceSource& trace) {
  return trace.tokens() == 0 && trace.count_steps() > 0;
}

class FileTrace final : public TraceSource {
 public:
  explicit FileTrace(const std::filesystem::path& path) : reader_(path) {}
  explicit FileTrace(TraceReader reader) : reader_(std::move(reader)) {}
  const TraceHeader& header() const override {
    return reader_.header();
  }
  const TraceFields& fields() const override {
    return reader_.fields();
  }
  const std::vector<TraceSequence>& sequences() const override {
    return reader_.sequences();
  }
  const std::vector<TraceStep>& steps() const override {
    return reader_.steps();
  }
  std::uint64_t tokens() const override {
    return reader_.tokens();
  }
  TraceRows read(std::uint64_t first, std::uint64_t count,
                 const TraceFields& wanted) const override {
    return reader_.read(first, count, wanted);
  }
  std::uint64_t count_steps() const override {
    return reader_.count_steps();
  }
  Matrix<std::uint32_t> counts(std::uint64_t first, std::uint64_t count) const override {
    return reader_.counts(first, count);
  }
  std::vector<std::string> warnings() const override;
  const TraceReader& reader() const {
    return reader_;
  }

 private:
  TraceReader reader_;
};

// Rows in memory; the fields are what the rows hold. read() hands out slices, so windows of any
// size are tested.
class MemoryTrace final : public TraceSource {
 public:
  MemoryTrace(TraceHeader, std::vector<TraceSequence>, std::vector<TraceStep>, TraceRows);
  const TraceHeader& header() const override {
    return header_;
  }
  const TraceFields& fields() const override {
    return fields_;
  }
  const std::vector<TraceSequence>& sequences() const override {
    return sequences_;
  }
  const std::vector<TraceStep>& steps() const override {
    return steps_;
  }
  std::uint64_t tokens() const override {
    return rows_.tokens();
  }
  TraceRows read(std::uint64_t first, std::uint64_t count,
                 const TraceFields& wanted) const override;
  // those of the header
  std::uint64_t count_steps() const override {
    return std::uint64_t(header_.counts.rows());
  }
  Matrix<std::uint32_t> counts(std::uint64_t first, std::uint64_t count) const override;

 private:
  TraceHeader header_;
  std::vector<TraceSequence> sequences_;
  std::vector<TraceStep> steps_;
  TraceRows rows_;
  TraceFields fields_;
};

}  // namespace moe
