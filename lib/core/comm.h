// The other processes of a run. Everything that is summed over a global batch (expert counts,
// gradients, clip norm) goes through a Comm from the start; today there is one rank, and Solo is
// it.
#pragma once
#include <cstdint>
#include <span>

namespace moe {

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void all_reduce_sum(std::span<std::int64_t>) = 0;
  virtual void all_reduce_sum(std::span<double>) = 0;
};

class Solo final : public Comm {
 public:
  int rank() const override {
    return 0;
  }
  int size() const override {
    return 1;
  }
  void all_reduce_sum(std::span<std::int64_t>) override {}
  void all_reduce_sum(std::span<double>) override {}
};

}  // namespace moe
