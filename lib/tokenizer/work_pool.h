// Memory of encoders at work: a call takes one and puts it back, so that each thread keeps its
// caches warm and nothing is shared.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

namespace moe {

template <class Work>
class WorkPool {
 public:
  class Loan {
   public:
    explicit Loan(WorkPool& pool) : pool_(pool), work_(pool.take()) {}
    ~Loan() {
      pool_.give(std::move(work_));
    }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    Work& operator*() {
      return *work_;
    }

   private:
    WorkPool& pool_;
    std::unique_ptr<Work> work_;
  };

 private:
  std::unique_ptr<Work> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty())
      return std::make_unique<Work>();
    auto work = std::move(free_.back());
    free_.pop_back();
    return work;
  }
  void give(std::unique_ptr<Work> work) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(work));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Work>> free_;
};

}  // namespace moe
