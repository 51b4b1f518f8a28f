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
constexpr int nobody = 2;  // a tag that is never sent

int length(std::size_t all, std::size_t at) {
  return int(std::min(piece, all - at));
}

// Lets others have the core, the longer the longer it takes.
void pause_after(double waited) {
  constexpr double spinning = 50e-6;
  constexpr double yielding = 2e-3;  // seconds
  if (waited < spinning)
    return;
  if (waited < yielding) {
    sched_yield();
    return;
  }
  const timespec nap{0, 200'000};
  nanosleep(&nap, nullptr);
}

class MpiFlow final : public moe::Flow {
 public:
  MpiFlow(int rank, std::span<const moe::Bytes> receive)
      : coming_(receive.size()), going_(receive.size()) {
    const int size = int(receive.size());
    for (int step = 1; step < size; ++step) {
      const int from = (rank - step + size) % size;
      const moe::Bytes& in = receive[std::size_t(from)];
      for (std::size_t at = 0; at < in.size(); at += piece) {
        MPI_Irecv(in.data() + at, length(in.size(), at), MPI_BYTE, from, tag, MPI_COMM_WORLD,
                  &coming_[std::size_t(from)].emplace_back(MPI_REQUEST_NULL));
      }
    }
  }
  void send(int to, moe::ConstBytes out) override {
    for (std::size_t at = 0; at < out.size(); at += piece) {
      MPI_Isend(out.data() + at, length(out.size(), at), MPI_BYTE, to, tag, MPI_COMM_WORLD,
                &going_[std::size_t(to)].emplace_back(MPI_REQUEST_NULL));
    }
  }
  void look() override {
    int there = 0;  // any call moves all that is under way
    MPI_Iprobe(MPI_ANY_SOURCE, nobody, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
  }
  bool has_come(int from) override {
    return through(coming_[std::size_t(from)]);
  }
  bool done(std::vector<int>& missing) override {
    for (std::size_t r = 0; r < coming_.size(); ++r) {
      const bool come = through(coming_[r]);
      if (!through(going_[r]) || !come)
        missing.push_back(int(r));
    }
    return missing.empty();
  }
  void pause(double waited) override {
    pause_after(waited);
  }

 private:
  using Requests = std::vector<MPI_Request>;
  static bool through(Requests& requests) {
    if (requests.empty())
      return true;
    int done = 0;
    MPI_Testall(int(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE);
    if (done)
      requests.clear();
    return done != 0;
  }

  std::vector<Requests> coming_, going_;  // (ranks)
};

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

  // Looks again and again, the less often the longer it takes: other ranks may need the core.
  // Times, not numbers of looks, for a look may take a turn of the scheduler.
  bool exchange(std::span<const moe::ConstBytes> send, std::span<const moe::Bytes> receive,
                double patience, std::vector<int>& missing) override {
    MpiFlow flow(rank_, receive);
    for (int step = 1; step < size_; ++step) {  // each rank begins with another one
      const int to = (rank_ + step) % size_;
      flow.send(to, send[std::size_t(to)]);
    }
    const auto start = std::chrono::steady_clock::now();
    for (;;) {
      missing.clear();
      if (flow.done(missing))
        return true;
      const double waited =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (waited > patience)
        return false;
      pause_after(waited);
    }
  }
  std::unique_ptr<moe::Flow> flow(std::span<const moe::Bytes> receive) override {
    return std::make_unique<MpiFlow>(rank_, receive);
  }

  void end_all(int code) noexcept override {
    MPI_Abort(MPI_COMM_WORLD, code);
  }
  void finish() override {
    MPI_Finalize();
  }

 private:
  int rank_ = 0, size_ = 1;
};

}  // namespace

extern "C" moe::Transport* moe_open_transport() {
  int level = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS ||
      level < MPI_THREAD_FUNNELED)
    return nullptr;
  return new Mpi;
}
