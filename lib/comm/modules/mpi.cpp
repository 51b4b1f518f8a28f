// Ranks of MPI. Bytes go as messages between pairs (no collective call of MPI's own), in pieces
// below 2^30 bytes, so that counts never reach the 2^31 of its interface. The calling thread looks
// after them itself: it notices a rank that does not come, and needs no thread of MPI's.
#include <mpi.h>
#include <sched.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "lib/comm/module.h"

namespace {

constexpr std::size_t piece = std::size_t(1) << 30;
constexpr int tag = 1;
constexpr int nobody = 2;  // a tag that is never sent

int length(std::size_t all, std::size_t at) {
  return int(std::min(piece, all - at));
}

constexpr double spinning = 50e-6, yielding = 2e-3;  // seconds

// Lets others have the core, the longer the longer it takes.
void pause_after(double waited) {
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

// Whether a process runs, for all that is known. One that has ended and that nobody has asked for
// does not.
bool runs(pid_t process) {
  char path[32];
  std::snprintf(path, sizeof path, "/proc/%d/stat", int(process));
  std::FILE* const file = std::fopen(path, "r");
  if (!file)
    return errno != ENOENT;  // no more files may be open, say
  char text[512] = {};
  const std::size_t length = std::fread(text, 1, sizeof text - 1, file);
  std::fclose(file);
  const char* const name_end = std::strrchr(text, ')');
  return length == 0 || !name_end || (name_end[1] == ' ' && name_end[2] != 'Z');
}

// Processes have the same numbers for those of one namespace alone: containers have their own.
ino_t numbering() {
  struct stat s = {};
  return ::stat("/proc/self/ns/pid", &s) == 0 ? s.st_ino : 0;
}

// A run that ends asks nobody to save: the launcher's SIGTERM is to end this process, which has a
// handler for it, and not its SIGKILL a second later.
void let_launcher_end_this() {
  std::signal(SIGTERM, SIG_DFL);
}

// What a rank of a host lets the others there see, in memory that they share.
struct Place {
  pid_t process = 0;
  ino_t numbering = 0;
  int rank = 0;
  std::atomic<bool> ends_all = false;  // it has an error, and that it is gone then is no news
};

class Neighbours {
 public:
  Neighbours() {
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host_);
    MPI_Comm_set_errhandler(host_, MPI_ERRORS_RETURN);
    void* memory = nullptr;
    int here = MPI_Win_allocate_shared(sizeof(Place), 1, MPI_INFO_NULL, host_, &memory, &window_) ==
               MPI_SUCCESS;
    int everywhere = 0;
    MPI_Allreduce(&here, &everywhere, 1, MPI_INT, MPI_MIN, host_);
    if (!everywhere)
      return;  // nobody sees the others; then they wait for the patience
    mine_ = ::new (memory) Place;
    mine_->process = ::getpid();
    mine_->numbering = numbering();
    MPI_Comm_rank(MPI_COMM_WORLD, &mine_->rank);
    MPI_Barrier(host_);
    find_others();
  }
  Neighbours(const Neighbours&) = delete;
  Neighbours& operator=(const Neighbours&) = delete;
  ~Neighbours() {
    if (window_ != MPI_WIN_NULL)
      MPI_Win_free(&window_);
    MPI_Comm_free(&host_);
  }

  void ends_all() noexcept {
    if (mine_)
      mine_->ends_all = true;
  }
  // Ranks whose process has ended, as of the last look, 50 ms ago at most.
  const std::vector<int>& gone() {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_look_)
      return gone_;
    next_look_ = now + std::chrono::milliseconds(50);
    gone_.clear();
    if (std::ranges::any_of(others_, [](const Place* other) { return other->ends_all.load(); })) {
      let_launcher_end_this();
      return gone_;
    }
    for (const Place* other : others_) {
      if (seen_ && !runs(other->process))
        gone_.push_back(other->rank);
    }
    return gone_;
  }

 private:
  void find_others() {
    int ranks = 0;
    MPI_Comm_size(host_, &ranks);
    for (int r = 0; r < ranks; ++r) {
      MPI_Aint bytes = 0;
      int unit = 0;
      Place* place = nullptr;
      MPI_Win_shared_query(window_, r, &bytes, &unit, &place);
      if (place->rank == mine_->rank)
        continue;
      others_.push_back(place);
      seen_ &=
          mine_->numbering != 0 && place->numbering == mine_->numbering && runs(place->process);
    }
  }

  MPI_Comm host_ = MPI_COMM_NULL;
  MPI_Win window_ = MPI_WIN_NULL;
  Place* mine_ = nullptr;
  std::vector<const Place*> others_;
  bool seen_ = true;  // whether /proc has them
  std::vector<int> gone_;
  std::chrono::steady_clock::time_point next_look_{};
};

class Mpi final : public moe::Transport {
 public:
  Mpi() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    if (size_ > 1)
      neighbours_ = std::make_unique<Neighbours>();
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
      if (waited > patience || (waited > yielding && one_is_gone(missing)))
        return false;
      pause_after(waited);
    }
  }
  std::unique_ptr<moe::Flow> flow(std::span<const moe::Bytes> receive) override {
    return std::make_unique<MpiFlow>(rank_, receive);
  }

  std::vector<int> gone() override {
    return neighbours_ ? neighbours_->gone() : std::vector<int>{};
  }
  void end_all(int code) noexcept override {
    if (neighbours_)
      neighbours_->ends_all();
    let_launcher_end_this();
    MPI_Abort(MPI_COMM_WORLD, code);
  }
  void finish() override {
    neighbours_.reset();
    MPI_Finalize();
  }

 private:
  bool one_is_gone(const std::vector<int>& missing) {
    return neighbours_ && std::ranges::any_of(neighbours_->gone(), [&](int r) {
             return std::ranges::find(missing, r) != missing.end();
           });
  }

  int rank_ = 0, size_ = 1;
  std::unique_ptr<Neighbours> neighbours_;
};

}  // namespace

extern "C" moe::Transport* moe_open_transport() {
  int level = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS ||
      level < MPI_THREAD_FUNNELED)
    return nullptr;
  return new Mpi;
}
