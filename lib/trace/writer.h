// Writes a trace so that every acknowledged row survives kill -9: to PATH.part in SWMR mode, a
// commit every 4096 tokens, renamed to PATH at finish(). TRACE-FORMAT "Writing" gives the protocol
// and what was measured.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>

#include "lib/trace/trace.h"

namespace moe {

struct TraceWriterOptions {
  bool force = false;  // replace an existing PATH
  bool power = false;  // fdatasync at every commit: survive power loss too
  TraceFields fields;  // what append() will be given
  // called after each commit with the rows that are safe
  std::function<void(std::uint64_t rows)> acknowledged;
  int deflate =
      1;  // level; 0 = chunks as they are, without checksum. Such a chunk written again would lie
          // at its old place, so then only whole chunks are committed, and the rest at finish()
  std::int64_t resume_rows = -1;  // >= 0: continue PATH.part, cut back to this many rows
  // continue a finished PATH of the same layers and fields: its rows are copied, and PATH is
  // replaced at finish()
  bool append = false;
};

class TraceWriter {
 public:
  TraceWriter(const std::filesystem::path&, const TraceHeader&, const TraceWriterOptions& = {});
  ~TraceWriter();  // without finish(): closes and leaves PATH.part

  // rows appended from now on belong to it (token_start and num_tokens are filled in)
  void step(const TraceStep&);
  // rows appended from now on belong to it (start and length are filled in); `grid` is that of its
  // rows that are no text
  void sequence(std::uint16_t domain, SignalGrid grid = {});
  // Appends rows; `step` and `sequence` of the rows are filled in from the calls above. Throws
  // Error(io) naming what is safe. Every 4096 rows fall due for a commit: a thread of its own packs
  // them, and a later call writes them; two commits may be on their way.
  void append(const TraceRows&);
  void commit(std::int64_t step);  // everything appended so far becomes safe
  void sync();  // what is safe from a killed process is then safe from a power cut, too
  // sets values of pair matrices declared (by name) in the header
  void pairs(const std::vector<PairMatrix>&);
  void finish();                    // last commit, corpus hash, complete=1, rename
  std::uint64_t rows() const;       // appended
  std::uint64_t safe_rows() const;  // acknowledged

  struct File;

 private:
  std::unique_ptr<File> file_;
};

}  // namespace moe
