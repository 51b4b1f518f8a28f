// Ranks of MPI. Bytes go as messages between pairs (no collective call of MPI's own), in pieces
// below 2^30 bytes, so that counts never reach the 2^31 of its interface. The calling thread looks
// after them itself: it notices a rank that does not come, and needs no thread of MPI's.
#include <mpi.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "lib/comm/module.h"

namespace {

constexpr std::size_t piece = std::size_t(1) << 30;
constexpr int tag = 1;

class Mpi final : public moe::Transport {
 public:
  Mpi() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  const char* name() const override {
#ifdef OPEN_MPI
    return "Open MPI";
#else
    return "MPICH";
#endif
  }
  int rank() const override {
    return rank_;
  }
  int size() const override {
    return size_;
  }

  bool exchange(std::span<const moe::ConstBytes> send, std::span<const moe::Bytes> receive,
                double patience, std::vector<int>& missing) override {
    requests_.clear();
    peers_.clear();
    for (int step = 1; step < size_; ++step) {  // each rank begins with another one
      const int from = (rank_ - step + size_) % size_;
      const moe::Bytes& in = receive[std::size_t(from)];
      for (std::size_t at = 0; at < in.size(); at += piece) {
        MPI_Irecv(in.data() + at, length(in.size(), at), MPI_BYTE, from, tag, MPI_COMM_WORLD,
                  &add(from));
      }
    }
    for (int step = 1; step < size_; ++step) {
      const int to = (rank_ + step) % size_;
      const moe::ConstBytes& out = send[std::size_t(to)];
      for (std::size_t at = 0; at < out.size(); at += piece) {
        MPI_Isend(out.data() + at, length(out.size(), at), MPI_BYTE, to, tag, MPI_COMM_WORLD,
                  &add(to));
      }
    }
    return wait(patience, missing);
  }

  void end_all(int code) noexcept override {
    MPI_Abort(MPI_COMM_WORLD, code);
  }
  void finish() override {
    MPI_Finalize();
  }

 private:
  static int length(std::size_t all, std::size_t at) {
    return int(std::min(piece, all - at));
  }
  MPI_Request& add(int peer) {
    peers_.push_back(peer);
    return requests_.emplace_back(MPI_REQUEST_NULL);
  }

  // Looks again and again, the less often the longer it takes: other ranks may need the core.
  // Times, not numbers of looks, for a look may take a turn of the scheduler.
  bool wait(double patience, std::vector<int>& missing) {
    constexpr double spinning = 50e-6;
    constexpr double yielding = 2e-3;  // seconds
    const auto start = std::chrono::steady_clock::now();
    for (;;) {
      int done = 0;
      MPI_Testall(int(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE);
      if (done)
        return true;
      const double waited =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (waited > patience) {
        name_missing(missing);
        return missing.empty();
      }
      if (waited < spinning)
        continue;
      if (waited < yielding) {
        sched_yield();
        continue;
      }
      const timespec nap{0, 200'000};
      nanosleep(&nap, nullptr);
    }
  }
  void name_missing(std::vector<int>& missing) {
    missing.clear();
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      int done = 0;
      MPI_Test(&requests_[i], &done, MPI_STATUS_IGNORE);
      if (!done && std::find(missing.begin(), missing.end(), peers_[i]) == missing.end())
        missing.push_back(peers_[i]);
    }
  }

  int rank_ = 0, size_ = 1;
  std::vector<MPI_Request> requests_;
  std::vector<int> peers_;  // of each request
};

}  // namespace

extern "C" moe::Transport* moe_open_transport() {
  int level = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS ||
      level < MPI_THREAD_FUNNELED)
    return nullptr;
  return new Mpi;
}
