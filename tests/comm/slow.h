// A transport that loses time at drawn moments, so that what ranks do meets in drawn orders.
#pragma once
#include <chrono>
#include <thread>

#include "lib/core/rng.h"
#include "tests/comm/through.h"

namespace moe::test {

// Loses a drawn time before what it sends, and now and then does not see yet what has come: so
// ranks' rows are computed in drawn orders.
class SlowFlow final : public ThroughFlow {
 public:
  SlowFlow(std::unique_ptr<Flow> inner, Rng rng) : ThroughFlow(std::move(inner)), rng_(rng) {}
  void send(int to, ConstBytes out) override {
    if (rng_.below(3) == 0)
      std::this_thread::sleep_for(std::chrono::microseconds(rng_.below(300)));
    ThroughFlow::send(to, out);
  }
  bool has_come(int from) override {
    return rng_.below(2) == 0 && ThroughFlow::has_come(from);
  }

 private:
  Rng rng_;
};

// Loses a drawn time before every exchange.
class Slow final : public Through {
 public:
  // `flows`: whether rows cross while ranks compute
  Slow(std::shared_ptr<Transport> inner, std::uint64_t seed, bool flows)
      : Through(std::move(inner)), rng_(Rng(seed).stream(std::uint64_t(rank()))), flows_(flows) {}
  bool exchange(std::span<const ConstBytes> send, std::span<const Bytes> receive, double patience,
                std::vector<int>& missing) override {
    if (rng_.below(4) == 0)
      std::this_thread::sleep_for(std::chrono::microseconds(rng_.below(300)));
    return Through::exchange(send, receive, patience, missing);
  }
  std::unique_ptr<Flow> flow(std::span<const Bytes> receive) override {
    if (!flows_)
      return nullptr;  // nothing is begun that nobody would end
    auto flow = Through::flow(receive);
    if (!flow)
      return nullptr;
    return std::make_unique<SlowFlow>(std::move(flow), rng_.stream(rng_.below(1 << 30)));
  }

 private:
  Rng rng_;
  bool flows_;
};

}  // namespace moe::test
