// One commit on its way to the file: rows copied out of the writer's buffers when it fell due,
// packed by a thread of its own (or by whoever waits for it), written by the thread that writes.
// The HDF5 library is never called from here.
#pragma once
#include <atomic>
#include <exception>
#include <mutex>

#include "lib/trace/columns.h"

namespace moe {

class CommitJob {
 public:
  struct Plane {  // rows of one plane of one column, whole chunks
    std::size_t column, plane;
    std::uint64_t row;  // the first: start of a chunk
    // bytes of that chunk as it was committed before; 0 = it was not
    std::size_t last_packed;
    std::vector<std::uint8_t> raw;
  };
  struct Chunk {
    std::size_t plane, at;  // of planes; its first byte there
    std::uint64_t row;
    std::vector<std::uint8_t> packed;
    std::uint64_t xxh3 = 0;  // of the packed bytes
  };
  std::uint64_t first = 0, rows = 0;  // rows first..rows become safe
  std::int64_t step = 0;
  std::size_t steps_from = 0, sequences_from = 0;  // where the records below go
  std::vector<TraceStep> steps;
  std::vector<TraceSequence> sequences;
  std::vector<Plane> planes;  // by column, then plane
  std::vector<Chunk> chunks;  // in that order
  std::uint64_t data_xxh3 = 0;

  CommitJob(const std::vector<TraceColumn>& columns, int deflate)
      : columns_(columns), deflate_(deflate) {}
  void add(Plane);  // and its chunks
  // packs what nobody has begun, until nothing is left to begin; on any number of threads
  void work() noexcept;
  bool done() const {
    return finished_.load() == chunks.size() + 1;
  }
  void wait() const;  // until done; throws what went wrong

 private:
  void pack_one(std::size_t item);  // a chunk, or after the last the hash of the rows
  void pack_chunk(Chunk&) const;
  std::uint64_t hash() const;

  const std::vector<TraceColumn>& columns_;
  int deflate_;
  std::atomic<std::size_t> begun_ = 0, finished_ = 0;
  std::mutex mutex_;
  std::exception_ptr failure_;
};

}  // namespace moe
