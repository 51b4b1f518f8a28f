// Reads a trace of any engine: schema-checked before anything is allocated, rows trusted up to the
// last valid commit.
#pragma once
#include <filesystem>
#include <memory>

#include "lib/trace/trace.h"

namespace moe {

struct TraceState {
  bool complete = false;      // finished under its final name
  std::uint64_t tokens = 0;   // rows that can be trusted
  std::uint64_t ignored = 0;  // rows behind the last valid commit
  std::uint64_t commits = 0;
  std::string corpus_sha256;
  std::vector<std::string> warnings;
  std::vector<std::string> remarks;  // what is no fault, and is good to know
};

struct TraceCommit {  // /commits: after it, `rows` rows are safe
  std::uint64_t rows = 0;
  std::int64_t step = -1;
};

class TraceReader {
 public:
  explicit TraceReader(const std::filesystem::path&);  // throws Error(input) in one sentence
  ~TraceReader();
  TraceReader(TraceReader&&) noexcept;

  const TraceHeader& header() const;
  const TraceState& state() const;
  const TraceFields& fields() const;  // what the file holds
  const std::vector<TraceSequence>& sequences() const;
  const std::vector<TraceStep>& steps() const;
  std::vector<TraceCommit> commits() const;  // those that can be trusted
  std::uint64_t tokens() const {
    return state().tokens;
  }
  // steps that the file has counts of (/counts/per_step); 0 = none
  std::uint64_t count_steps() const;
  // Steps `first`.. `first`+`count` of them, (count, L * max_experts()) tokens per expert. Throws
  // Error(input) where one is counted that its layer does not have. header().counts stays empty.
  Matrix<std::uint32_t> counts(std::uint64_t first, std::uint64_t count) const;
  // absent fields stay empty
  TraceRows read(std::uint64_t first, std::uint64_t count, const TraceFields& wanted) const;

  struct File;

 private:
  std::unique_ptr<File> file_;
};

// What a trace was found to be, a sentence each.
struct TraceCheck {
  std::vector<std::string> findings;  // what is wrong; empty = whole
  std::vector<std::string> remarks;   // what a reader says as well, and what cannot be told
};
// Checks everything that can be checked: schema, commits and their hashes, id ranges, weights
// finite, order of keys, corpus hash.
TraceCheck check_trace(const std::filesystem::path&);
std::vector<std::string> verify_trace(const std::filesystem::path&);  // its findings

// Copies the committed rows of `in` to a new, complete file; never touches `in`. Returns the rows
// kept.
std::uint64_t recover_trace(const std::filesystem::path& in, const std::filesystem::path& out,
                            bool force);

}  // namespace moe
