// Transports and flows that hand on to another one: what tests change is one function of them.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "lib/core/comm.h"

namespace moe::test {

class ThroughFlow : public Flow {
 public:
  explicit ThroughFlow(std::unique_ptr<Flow> inner) : inner_(std::move(inner)) {}
  void send(int to, ConstBytes out) override {
    inner_->send(to, out);
  }
  void look() override {
    inner_->look();
  }
  bool has_come(int from) override {
    return inner_->has_come(from);
  }
  bool done(std::vector<int>& missing) override {
    return inner_->done(missing);
  }
  void pause(double waited) override {
    inner_->pause(waited);
  }

 private:
  std::unique_ptr<Flow> inner_;
};

class Through : public Transport {
 public:
  explicit Through(std::shared_ptr<Transport> inner) : inner_(std::move(inner)) {}
  const char* name() const override {
    return inner_->name();
  }
  int rank() const override {
    return inner_->rank();
  }
  int size() const override {
    return inner_->size();
  }
  bool exchange(std::span<const ConstBytes> send, std::span<const Bytes> receive, double patience,
                std::vector<int>& missing) override {
    return inner_->exchange(send, receive, patience, missing);
  }
  std::unique_ptr<Flow> flow(std::span<const Bytes> receive) override {
    return inner_->flow(receive);
  }
  std::vector<int> gone() override {
    return inner_->gone();
  }
  void end_all(int code) noexcept override {
    inner_->end_all(code);
  }

 private:
  std::shared_ptr<Transport> inner_;
};

// Moves everything at once, as transports without flows do: nothing crosses while ranks compute.
class AtOnce final : public Through {
 public:
  using Through::Through;
  std::unique_ptr<Flow> flow(std::span<const Bytes>) override {
    return nullptr;
  }
};

}  // namespace moe::test
