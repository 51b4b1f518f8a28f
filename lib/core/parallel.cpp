#include "lib/core/parallel.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "lib/core/profile.h"

namespace moe {
namespace {
int& wanted() {
  static int n = omp_get_max_threads();
  return n;
}
}  // namespace

int threads() {
  return wanted();
}
void set_threads(int n) {
  omp_set_num_threads(wanted() = std::max(1, n));
}

void prove_threads() {
  static std::atomic<int> proven{1};
  const int n = wanted();
  if (n <= proven.load())
    return;
  std::mutex hold;
  std::vector<std::thread> all;  // the caller is one of the n: one is to spare, for a Worker
  std::unique_lock gate(hold);
  const auto end = [&] {
    gate.unlock();
    for (std::thread& t : all)
      t.join();
  };
  try {
    while (int(all.size()) < n)
      all.emplace_back([&hold] { const std::lock_guard until_all_are_there(hold); });
  } catch (...) {
    end();
    throw;
  }
  end();
  proven.store(n);
}

namespace {

using Clock = std::chrono::steady_clock;

thread_local const std::function<void()>* look_of_thread = nullptr;
thread_local Clock::time_point next_look;

}  // namespace

BetweenPieces::BetweenPieces(std::function<void()> look) : look_(std::move(look)) {
  look_of_thread = &look_;
  next_look = {};
}
BetweenPieces::~BetweenPieces() {
  look_of_thread = nullptr;
}

void between_pieces() {
  if (!look_of_thread)
    return;
  const Clock::time_point begin = Clock::now();
  if (begin < next_look)
    return;
  (*look_of_thread)();
  // A look may give the core away, for long on a busy machine: at most a twentieth of the time.
  const Clock::time_point end = Clock::now();
  next_look = end + std::max<Clock::duration>(std::chrono::microseconds(100), 20 * (end - begin));
}

OneThread::OneThread() : before_(omp_get_max_threads()) {
  omp_set_num_threads(1);
}
OneThread::~OneThread() {
  omp_set_num_threads(before_);
}

namespace {

// Of the calling thread: the one that keeps what threads did, if any.
Profile* recording_profile() {
  Profile* const p = Profile::at_work();
  return p && p->recording() ? p : nullptr;
}

}  // namespace

void parallel_for(Index count, Index grain, const std::function<void(Index, Index)>& body) {
  const Index pieces = (count + grain - 1) / grain;
  if (pieces <= 1 || wanted() == 1 || omp_in_parallel()) {
    for (Index i = 0; i < pieces; ++i) {
      body(i * grain, std::min(count, (i + 1) * grain));
      between_pieces();
    }
    return;
  }
  prove_threads();
  std::exception_ptr failure;
  Profile* const profile = recording_profile();
  if (profile)
    profile->expect_threads(wanted());
#pragma omp parallel num_threads(wanted())
  {
    const std::int64_t begin = profile ? profile->now() : 0;
#pragma omp for schedule(dynamic, 1) nowait
    for (Index i = 0; i < pieces; ++i) {
      try {
        body(i * grain, std::min(count, (i + 1) * grain));
        between_pieces();
      } catch (...) {
#pragma omp critical(moe_parallel_failure)
        if (!failure)
          failure = std::current_exception();
      }
    }
    if (profile)
      profile->add_share(omp_get_thread_num(), begin);
  }
  if (failure)
    std::rethrow_exception(failure);
}

struct Worker::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> waiting;
  bool ending = false;
  std::thread thread;

  void run() {
    for (;;) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return ending || !waiting.empty(); });
      if (waiting.empty())
        return;
      const auto work = std::move(waiting.front());
      waiting.pop_front();
      lock.unlock();
      work();
    }
  }
};

Worker::Worker() : state_(std::make_unique<State>()) {
  state_->thread = std::thread([s = state_.get()] { s->run(); });
}
Worker::~Worker() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->ending = true;
  }
  state_->changed.notify_one();
  state_->thread.join();
}
void Worker::give(std::function<void()> work) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->waiting.push_back(std::move(work));
  }
  state_->changed.notify_one();
}

}  // namespace moe
