// Threads. Work is cut into pieces that do not depend on the number of threads, and every piece is
// computed by one thread in a fixed order: the same bytes come out for any number of threads.
#pragma once
#include <functional>
#include <memory>

#include "lib/core/view.h"

namespace moe {

// how many parallel loops use; starts at OMP_NUM_THREADS or the number of cores
int threads();
void set_threads(int n);

// Starts as many threads at once as parallel loops use, for a moment, where so many were not
// started before: libgomp, which runs the loops of this program and of its libraries, ends the
// process with exit 1 where it gets fewer. Throws std::system_error
// (resource_unavailable_try_again).
void prove_threads();

// Calls body(first, last) for the pieces of 0..count, each `grain` long but the last. An exception
// in a piece is rethrown.
void parallel_for(Index count, Index grain,
                  const std::function<void(Index first, Index last)>& body);

// What the calling thread does between pieces of its loops while this lives, a few thousand times a
// second at most: looks after messages that are under way, say. Pieces and their results do not
// depend on it; what it throws ends the loop. One at a time on a thread.
class BetweenPieces {
 public:
  explicit BetweenPieces(std::function<void()> look);
  ~BetweenPieces();
  BetweenPieces(const BetweenPieces&) = delete;
  BetweenPieces& operator=(const BetweenPieces&) = delete;

 private:
  std::function<void()> look_;
};
// For loops that make no pieces: between their parts.
void between_pieces();

// While it lives, libraries that use OpenMP themselves (oneDNN) work on the calling thread alone,
// inside a piece or outside.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

// One thread beside the others, for work that nobody waits for at once: what is given to it runs in
// order. ~ runs what is left.
class Worker {
 public:
  Worker();
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  void give(std::function<void()> work /*throws nothing*/);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moe
