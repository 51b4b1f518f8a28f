#include "lib/comm/threads.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "lib/core/error.h"

namespace moe {
namespace {

// What all ranks share: for each pair the letters that one has sent and the other has not taken
// yet, in order.
struct Hall {
  explicit Hall(int ranks) : size(ranks), pair(std::size_t(ranks) * std::size_t(ranks)) {}
  struct Pair {
    std::deque<ConstBytes> letters;
    std::uint64_t sent = 0, wanted = 0, taken = 0;  // so far
  };
  Pair& from_to(int from, int to) {
    return pair[std::size_t(from) * std::size_t(size) + std::size_t(to)];
  }
  void refuse_ended() const {
    if (ended)
      throw Error(Exit::failed, ended_by_another_rank);
  }

  void change() {
    ++changes;
    changed.notify_all();
  }

  int size;
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t changes = 0;
  std::vector<Pair> pair;
  bool ended = false;
};

// A letter is copied by whoever takes it, when its turn has come.
class ThreadFlow final : public Flow {
 public:
  ThreadFlow(std::shared_ptr<Hall> hall, int rank, std::span<const Bytes> receive)
      : hall_(std::move(hall)), rank_(rank), coming_(receive.size()), going_(receive.size()) {
    const std::lock_guard lock(hall_->mutex);
    for (int r = 0; r < hall_->size; ++r) {
      if (r != rank_ && !receive[std::size_t(r)].empty())
        coming_[std::size_t(r)] = {receive[std::size_t(r)], ++hall_->from_to(r, rank_).wanted};
    }
  }
  ~ThreadFlow() override {
    withdraw();
  }

  void send(int to, ConstBytes out) override {
    const std::lock_guard lock(hall_->mutex);
    hall_->refuse_ended();
    if (out.empty())
      return;
    Hall::Pair& pair = hall_->from_to(rank_, to);
    pair.letters.push_back(out);
    going_[std::size_t(to)] = ++pair.sent;
    hall_->change();
  }
  void look() override {
    const std::lock_guard lock(hall_->mutex);
    take();
  }
  bool has_come(int from) override {
    const std::lock_guard lock(hall_->mutex);
    hall_->refuse_ended();
    take();
    return has_come_here(from);
  }
  bool done(std::vector<int>& missing) override {
    const std::lock_guard lock(hall_->mutex);
    hall_->refuse_ended();
    take();
    for (int r = 0; r < hall_->size; ++r) {
      if (!has_come_here(r) || hall_->from_to(rank_, r).taken < going_[std::size_t(r)])
        missing.push_back(r);
    }
    return missing.empty();
  }
  void pause(double) override {
    std::unique_lock lock(hall_->mutex);
    hall_->changed.wait_for(lock, std::chrono::milliseconds(10),
                            [&] { return hall_->changes != seen_; });
  }

 private:
  struct Coming {
    Bytes to;                  // empty = nothing, or here
    std::uint64_t number = 0;  // of the letter between the two
  };
  bool has_come_here(int from) const {
    return coming_[std::size_t(from)].to.empty();
  }
  void take() {
    bool copied = false;
    for (int r = 0; r < hall_->size; ++r) {
      Coming& coming = coming_[std::size_t(r)];
      Hall::Pair& pair = hall_->from_to(r, rank_);
      if (coming.to.empty() || pair.taken + 1 != coming.number || pair.letters.empty())
        continue;
      if (pair.letters.front().size() != coming.to.size())
        throw Error(Exit::bug, "two ranks disagree on the size of an exchange");
      std::memcpy(coming.to.data(), pair.letters.front().data(), coming.to.size());
      pair.letters.pop_front();
      ++pair.taken;
      coming.to = {};
      copied = true;
    }
    if (copied)
      hall_->change();
    seen_ = hall_->changes;
  }
  // Our bytes may be gone before others look, where this one has failed.
  void withdraw() {
    const std::lock_guard lock(hall_->mutex);
    for (int r = 0; r < hall_->size; ++r) {
      Hall::Pair& pair = hall_->from_to(rank_, r);
      if (pair.taken < going_[std::size_t(r)])
        pair.letters.clear();
    }
  }

  std::shared_ptr<Hall> hall_;
  int rank_;
  std::vector<Coming> coming_;        // (ranks)
  std::vector<std::uint64_t> going_;  // (ranks) the number of what was sent; 0 = nothing
  std::uint64_t seen_ = 0;            // of the changes of the hall
};

class ThreadRank final : public Transport {
 public:
  ThreadRank(std::shared_ptr<Hall> hall, int rank) : hall_(std::move(hall)), rank_(rank) {}
  const char* name() const override {
    return "threads";
  }
  int rank() const override {
    return rank_;
  }
  int size() const override {
    return hall_->size;
  }

  bool exchange(std::span<const ConstBytes> send, std::span<const Bytes> receive, double patience,
                std::vector<int>& missing) override {
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(patience);
    ThreadFlow flow(hall_, rank_, receive);
    for (int r = 0; r < size(); ++r) {
      if (r != rank_)
        flow.send(r, send[std::size_t(r)]);
    }
    for (;;) {
      missing.clear();
      if (flow.done(missing))
        return true;
      if (std::chrono::steady_clock::now() > until)
        return false;
      flow.pause(0);
    }
  }
  std::unique_ptr<Flow> flow(std::span<const Bytes> receive) override {
    return std::make_unique<ThreadFlow>(hall_, rank_, receive);
  }

  void end_all(int) noexcept override {
    const std::lock_guard lock(hall_->mutex);
    hall_->ended = true;
    hall_->change();
  }

 private:
  std::shared_ptr<Hall> hall_;
  int rank_;
};

bool was_ended(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& e) {
    return std::string(e.what()) == ended_by_another_rank;
  } catch (...) {
    return false;
  }
}

}  // namespace

std::vector<std::shared_ptr<Transport>> thread_transports(int ranks) {
  const auto hall = std::make_shared<Hall>(ranks);
  std::vector<std::shared_ptr<Transport>> out;
  for (int r = 0; r < ranks; ++r)
    out.push_back(std::make_shared<ThreadRank>(hall, r));
  return out;
}

void as_threads(int ranks, const std::function<void(Comm&)>& rank, double patience,
                const Around& around) {
  auto transports = thread_transports(ranks);
  for (auto& transport : transports) {
    if (around)
      transport = around(transport);
  }
  std::vector<std::exception_ptr> failure(transports.size());
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < transports.size(); ++r) {
    threads.emplace_back([&, r] {
      Comm comm(transports[r], patience);
      try {
        rank(comm);
      } catch (...) {
        failure[r] = std::current_exception();
        comm.end_all(1);
      }
    });
  }
  for (std::thread& t : threads)
    t.join();
  std::exception_ptr first;
  for (const std::exception_ptr& f : failure) {
    if (f && (!first || was_ended(first)))
      first = f;
  }
  if (first)
    std::rethrow_exception(first);
}

}  // namespace moe
