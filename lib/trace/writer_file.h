// The inside of TraceWriter, shared with what copies traces (recover.cpp): an open .part file, the
// rows not yet safe, the commits on their way, and the records that grow with them.
#pragma once
#include <deque>
#include <memory>
#include <optional>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/files/sha256.h"
#include "lib/trace/commit_job.h"
#include "lib/trace/create.h"
#include "lib/trace/disk.h"
#include "lib/trace/journal.h"
#include "lib/trace/writer.h"

namespace moe {

// Rows of one column since the start of the chunk that the next commit touches first.
struct Pending {
  // rows held: a multiple of the chunk and of a commit
  Index span = 0;
  // row t at t % span; as many whole chunks as have rows
  std::vector<std::vector<std::uint8_t>> planes;
  std::vector<std::size_t> last_packed;  // bytes of the chunk last written, a plane
};

struct TraceWriter::File {
  std::filesystem::path target, part, building;  // PATH, PATH.part, and the name written to
  TraceHeader header;
  TraceFields fields;
  std::vector<TraceColumn> columns;
  std::vector<Pending> pending;
  std::optional<WriteLock> lock;
  std::optional<Journal> journal;
  ChunkPlaces chunk_places;
  std::vector<FileRange> places;  // of the chunks of the commit that is being written
  TraceFile h5;
  Sha256 corpus;
  std::vector<TraceStep> steps;
  std::vector<TraceSequence> sequences;
  // records before these did not change since the last commit fell due
  std::size_t steps_safe = 0, sequences_safe = 0;
  std::uint64_t rows = 0, due = 0 /*rows whose commit is written or on its way*/, safe = 0,
                commits = 0, last_xxh3 = 0;
  int deflate = 1;
  bool power = false, named = false /*the name of `building` is on disk*/, failed = false,
       finishing = false, finished = false;
  std::function<void(std::uint64_t)> acknowledged;
  std::deque<std::shared_ptr<CommitJob>> jobs;  // oldest first

  File(const std::filesystem::path& path, const TraceHeader&, const TraceFields&,
       std::filesystem::path building, int deflate = 1, bool with_journal = false);
  ~File();
  void begin(const TraceStep&);
  void begin_sequence(std::uint16_t domain, SignalGrid grid = {});
  void append(const TraceRows&);
  // Copying: sequence and step of the rows stand as given; a commit that falls due is said to be of
  // step `step`.
  void append(const TraceRows&, bool keep_records, std::int64_t step);
  void commit(std::int64_t step);
  void sync();
  void set_pairs(const std::vector<PairMatrix>&);
  void finish();
  void discard();  // removes what was written

 private:
  template <class Body>
  void guarded(Body);
  void take(const TraceRows&, Index first, Index count, bool keep_records);
  void count_records(const TraceRows&, Index first, Index count, bool keep_records, TraceRows& own);
  void fall_due(std::int64_t step);  // rows up to now go on their way
  // writes commits that are packed; all: waits for those that are not
  void settle(bool all);
  void help(const std::shared_ptr<CommitJob>&);
  void write(const CommitJob&);
  void write_columns(const CommitJob&);
  void write_commit(const CommitJob&);
  void write_end();
  void seal();

  // last: they end before what they work on
  std::optional<Worker> worker_;
  std::vector<std::unique_ptr<Worker>> helpers_;  // where commits are waited for
};

// Appends rows 0..rows of a trace to an empty writer with the commits they had. Defined in
// recover.cpp.
class TraceReader;
void replay(const TraceReader& from, std::uint64_t rows, TraceWriter::File& to);

// An error of a copy that was removed: what is safe is what it was copied from.
Error without_copy(const Error&, const std::filesystem::path& from);

}  // namespace moe
