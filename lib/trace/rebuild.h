// A recording made anew from its journal (journal.h), for whoever wants the rows of one whose own
// structure cannot be read.
#pragma once
#include <filesystem>
#include <memory>

#include "lib/trace/reader.h"

namespace moe {

std::filesystem::path journal_of(const std::filesystem::path& part);

// Writes the recording `part` as an unfinished file at `to`: up to the last commit whose chunks,
// and those of all before it, lie in `part` as they were written. Throws Error(input) where there
// is no journal, or it does not fit. Both files may mean harm: HDF5 runs in a process of its own.
void rebuild_from_journal(const std::filesystem::path& part, const std::filesystem::path& to);

// The same as a file that goes with this object, beside `part` or in the temporary folder.
class Rebuilt {
 public:
  explicit Rebuilt(const std::filesystem::path& part);
  ~Rebuilt();
  Rebuilt(const Rebuilt&) = delete;
  Rebuilt& operator=(const Rebuilt&) = delete;
  const std::filesystem::path& name() const {
    return name_;
  }

 private:
  std::filesystem::path name_;
};

// The file that says most of the rows of `in`: itself, or, where its journal speaks of more rows
// than can be read, one that was made from that.
class MostRows {
 public:
  explicit MostRows(const std::filesystem::path& in);
  const TraceReader& reader() const {
    return *reader_;
  }
  // Reads from the journal where that gives more rows than so many, or as many with other records;
  // else false, and all is as it was. For who met an error on the way (had = 0).
  bool read_journal_instead(std::uint64_t had);

 private:
  std::filesystem::path in_;
  std::unique_ptr<Rebuilt> rebuilt_;
  std::unique_ptr<TraceReader> reader_;
};

}  // namespace moe
