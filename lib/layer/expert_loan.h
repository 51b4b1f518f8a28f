// Weights of experts that a rank does not hold all the time (ZeRO-3, arXiv 1910.02054): they come
// when a layer has routed, and go when it has computed.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lib/core/view.h"

namespace moe {

class ExpertLoan {
 public:
  virtual ~ExpertLoan() = default;
  // Brings the weights of those with rows; of the others nothing may be read. `rows`: of each of
  // the experts whose weights would lie here, or nothing where none computes. All ranks call this,
  // in the same order.
  virtual void bring(std::span<const std::int64_t> rows) = 0;
  virtual void release() = 0;
};

// For as long as it lives.
class OnLoan {
 public:
  OnLoan(ExpertLoan* loan, std::span<const std::int64_t> rows) : loan_(loan) {
    if (loan_)
      loan_->bring(rows);
  }
  OnLoan(const OnLoan&) = delete;
  OnLoan& operator=(const OnLoan&) = delete;
  ~OnLoan() {
    if (loan_)
      loan_->release();
  }

 private:
  ExpertLoan* loan_;
};

}  // namespace moe
