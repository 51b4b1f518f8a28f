// A transport that loses time at drawn moments, so that what ranks do meets in drawn orders.
#pragma once
#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "lib/core/comm.h"
#include "lib/core/rng.h"

namespace moe::test {

// Loses a drawn time before what it sends, and now and then does not see yet what has come: so
// ranks' rows are computed in drawn orders.
class SlowFlow final : public Flow {
 public:
  SlowFlow(std::unique_ptr<Flow> inner, Rng rng) : inner_(std::move(inner)), rng_(rng) {}
  void send(int to, ConstBytes out) override {
    if (rng_.below(3) == 0)
      std::this_thread::sleep_for(std::chrono::microseconds(rng_.below(300)));
    inner_->send(to, out);
  }
  void look() override {
    inner_->look();
  }
  bool has_come(int from) override {
    return rng_.below(2) == 0 && inner_->has_come(from);
  }
  bool done(std::vector<int>& missing) override {
    return inner_->done(missing);
  }
  void pause(double waited) override {
    inner_->pause(waited);
  }

 private:
  std::unique_ptr<Flow> inner_;
  Rng rng_;
};

// Loses a drawn time before every exchange.
class Slow final : public Transport {
 public:
  // `flows`: whether rows cross while ranks compute
  Slow(std::shared_ptr<Transport> inner, std::uint64_t seed, bool flows)
      : inner_(std::move(inner)),
        rng_(Rng(seed).stream(std::uint64_t(inner_->rank()))),
        flows_(flows) {}
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
    if (rng_.below(4) == 0)
      std::this_thread::sleep_for(std::chrono::microseconds(rng_.below(300)));
    return inner_->exchange(send, receive, patience, missing);
  }
  std::unique_ptr<Flow> flow(std::span<const Bytes> receive) override {
    if (!flows_)
      return nullptr;  // nothing is begun that nobody would end
    auto flow = inner_->flow(receive);
    if (!flow)
      return nullptr;
    return std::make_unique<SlowFlow>(std::move(flow), rng_.stream(rng_.below(1 << 30)));
  }
  void end_all(int code) noexcept override {
    inner_->end_all(code);
  }

 private:
  std::shared_ptr<Transport> inner_;
  Rng rng_;
  bool flows_;
};

}  // namespace moe::test
