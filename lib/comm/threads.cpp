#include "lib/comm/threads.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "lib/core/error.h"

namespace moe {
namespace {

// What all ranks share: a box for each pair, which holds the bytes that one sends until the other
// has copied them.
struct Hall {
  explicit Hall(int ranks) : size(ranks), box(std::size_t(ranks) * std::size_t(ranks)) {}
  ConstBytes& from_to(int from, int to) {
    return box[std::size_t(from) * std::size_t(size) + std::size_t(to)];
  }

  int size;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<ConstBytes> box;  // empty = free
  bool ended = false;
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
    std::unique_lock lock(hall_->mutex);
    for (int r = 0; r < size(); ++r) {
      if (r != rank_)
        hall_->from_to(rank_, r) = send[std::size_t(r)];
    }
    hall_->changed.notify_all();
    std::vector<bool> taken(receive.size());
    for (;;) {
      refuse_ended();
      missing = take(receive, taken);
      if (missing.empty())
        return true;
      if (hall_->changed.wait_until(lock, until) == std::cv_status::timeout) {
        missing = take(receive, taken);
        if (!missing.empty())
          withdraw();  // our bytes may be gone before others look
        return missing.empty();
      }
    }
  }

  void end_all(int) noexcept override {
    const std::lock_guard lock(hall_->mutex);
    hall_->ended = true;
    hall_->changed.notify_all();
  }

 private:
  void refuse_ended() const {
    if (hall_->ended)
      throw Error(Exit::failed, ended_by_another_rank);
  }
  void withdraw() {
    for (int r = 0; r < size(); ++r)
      hall_->from_to(rank_, r) = {};
  }
  // Copies what has come; the ranks whose bytes are still to come, or have not taken ours.
  std::vector<int> take(std::span<const Bytes> receive, std::vector<bool>& taken) {
    std::vector<int> missing;
    bool copied = false;
    for (int r = 0; r < size(); ++r) {
      const Bytes& to = receive[std::size_t(r)];
      ConstBytes& from = hall_->from_to(r, rank_);
      if (r == rank_)
        continue;
      if (!to.empty() && !taken[std::size_t(r)] && !from.empty()) {
        if (from.size() != to.size()) {
          withdraw();
          throw Error(Exit::bug, "two ranks disagree on the size of an exchange");
        }
        std::memcpy(to.data(), from.data(), to.size());
        from = {};
        taken[std::size_t(r)] = true;
        copied = true;
      }
      const bool waits = !to.empty() && !taken[std::size_t(r)];
      if (waits || !hall_->from_to(rank_, r).empty())
        missing.push_back(r);
    }
    if (copied)
      hall_->changed.notify_all();
    return missing;
  }

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
