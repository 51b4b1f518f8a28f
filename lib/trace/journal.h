// NAME.part.journal: what it takes to build a recording again whose structure a power cut tore.
// HDF5 writes headers and indexes of growing datasets again at every commit, in place; a disk that
// tears a page into sectors of 512 bytes can lose one, and with it every row behind it. The journal
// only grows: the file as it was before the first row, and for every commit where its chunks lie in
// NAME.part. Chunks themselves are never overwritten. It goes when the recording is finished.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lib/trace/chunk_places.h"
#include "lib/trace/commit_job.h"
#include "lib/trace/create.h"

namespace moe {

struct JournalChunk {  // one chunk as it lies in NAME.part
  std::uint32_t column = 0, plane = 0;
  std::uint64_t row = 0;  // the first
  FileRange place;
  std::uint64_t xxh3 = 0;  // of its bytes there
};

struct JournalCommit {
  CommitRow row;
  std::size_t steps_from = 0, sequences_from = 0;  // where the records below go
  std::vector<TraceStep> steps;
  std::vector<TraceSequence> sequences;
  std::vector<JournalChunk> chunks;
};

// The file before its first row.
struct JournalStart {
  std::vector<std::string> columns;  // paths of what grows by row
  std::vector<FileRange> holes;      // large constants: they are read from NAME.part
  std::vector<std::uint8_t> bytes;   // everything else, in the order of the file
  std::uint64_t end = 0;             // bytes of the file, with the holes
};

class Journal {
 public:
  // Of the file `part`, open as `file`, all of it flushed and no row in it yet. Throws Error(io).
  Journal(const std::filesystem::path& part, hid_t file, const std::vector<TraceColumn>&);
  ~Journal();
  Journal(Journal&&) noexcept;
  // Before the commit is acknowledged; `places` are those of its chunks in NAME.part.
  void add(const CommitRow&, const CommitJob&, const std::vector<FileRange>& places);
  void sync();
  void follow(const std::filesystem::path& part);  // the file was renamed to this
  void remove();

 private:
  void put(std::uint32_t kind, std::uint32_t version, const std::vector<std::uint8_t>& payload);
  std::filesystem::path path_;
  int fd_ = -1;
  bool written_ = false;  // since the last sync
};

struct JournalContent {
  JournalStart start;
  std::vector<JournalCommit> commits;
  std::uint64_t rows() const {
    return commits.empty() ? 0 : commits.back().row.rows;
  }
};
// What the journal of `part` says, up to its first record that is not whole. Throws Error(input)
// where not even its beginning is, or where there is none.
JournalContent read_journal(const std::filesystem::path& part);

}  // namespace moe
