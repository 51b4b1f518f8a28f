// Ranks with a device each, on the host engine of tests/backend, whose memory no host code can
// touch: experts' rows cross from device to device where a transport takes their addresses, and
// through the host where none does, with the same bits.
#include <catch2/catch.hpp>

#include "lib/comm/grouped.h"
#include "lib/comm/threads.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/trainer.h"
#include "tests/backend/host_engine.h"

using namespace moe;

namespace {

constexpr int words = 19;

Batch batch_of(std::uint64_t number) {
  Rng rng = Rng(9).stream(number);
  Batch b;
  for (const Index length : {7, 12}) {
    for (Index t = 0; t < length; ++t) {
      b.token.push_back(int(rng.below(words)));
      b.target.push_back(int(rng.below(words)));
    }
    b.start.push_back(b.tokens());
  }
  return b;
}

// Takes addresses on this rank's device, as NCCL does, and asks for what grouped_transfers() says.
class DeviceToDevice final : public Transport {
 public:
  DeviceToDevice(std::shared_ptr<Transport> ranks, Memory& memory)
      : ranks_(std::move(ranks)), memory_(memory) {}
  const char* name() const override {
    return "device to device";
  }
  int rank() const override {
    return ranks_->rank();
  }
  int size() const override {
    return ranks_->size();
  }
  bool exchange(std::span<const ConstBytes> send, std::span<const Bytes> receive, double patience,
                std::vector<int>& missing) override {
    using Kind = DeviceTransfer::Kind;
    const auto ranks = std::size_t(size());
    std::vector<std::vector<std::byte>> out(ranks), in(ranks);
    const auto transfers = grouped_transfers(rank(), send, receive);
    for (const DeviceTransfer& t : transfers) {
      auto& bytes = (t.kind == Kind::receive ? in : out)[std::size_t(t.peer)];
      bytes.resize(t.bytes);
      if (t.kind != Kind::receive)
        memory_.to_host(t.from, bytes.data(), t.bytes);
      if (t.kind == Kind::copy)
        memory_.to_device(bytes.data(), t.to, t.bytes);
    }
    out[std::size_t(rank())].clear();
    const std::vector<ConstBytes> going(out.begin(), out.end());
    const std::vector<Bytes> coming(in.begin(), in.end());
    if (!ranks_->exchange(going, coming, patience, missing))
      return false;
    for (const DeviceTransfer& t : transfers) {
      if (t.kind == Kind::receive)
        memory_.to_device(in[std::size_t(t.peer)].data(), t.to, t.bytes);
    }
    ++exchanges;
    return true;
  }
  void end_all(int code) noexcept override {
    ranks_->end_all(code);
  }

  int exchanges = 0;

 private:
  std::shared_ptr<Transport> ranks_;
  Memory& memory_;
};

struct Outcome {
  std::vector<double> numbers;  // losses, gradient norms
  std::vector<Matrix<float>> weights;
  int exchanges = 0;  // from device to device, of one rank
  bool operator==(const Outcome&) const = default;
};

// Three steps of a model with two layers on so many ranks, the numbers of the last of them.
Outcome train(int ranks, bool direct, Move move = Move::tokens) {
  Outcome out;
  std::vector<std::shared_ptr<Transport>> devices = thread_transports(ranks);
  as_threads(ranks, [&](Comm& comm) {
    HostCuda backend(gpu::Choices{});
    const auto device =
        std::make_shared<DeviceToDevice>(devices[std::size_t(comm.rank())], backend);
    if (direct)
      comm.carry_on_devices(device);
    Decoder<float> model(
        model_config(concat("custom:vocabulary=", words,
                            ",hidden=16,layers=2,heads=2,kv_heads=1,width=12,experts=5,context=16,"
                            "router={softmax:k=2},balance={switch:coef=0.01}")),
        backend);
    model.initialise(4);
    const TrainOptions options{.steps = 3, .accumulate = 2, .lanes = 2, .lr = 0.01};
    Trainer trainer(model, options, comm, {.expert_ranks = ranks, .move = move});
    std::vector<double> numbers;
    for (int step = 0; step < 3; ++step) {
      const StepResult r = trainer.step(batch_of, true);
      numbers.insert(numbers.end(), {r.total_loss, r.gradient_norm});
    }
    if (comm.rank() == comm.size() - 1) {
      out.numbers = numbers;
      out.exchanges = device->exchanges;
      for (Parameter<float>* p : model.parameters()) {
        if (p->stored() && !p->shared_out())
          out.weights.push_back(p->to_host());
      }
    }
  });
  return out;
}

}  // namespace

TEST_CASE("rows cross from device to device with the bits of those that cross through the host") {
  const Outcome alone = train(1, false);
  Outcome host = train(2, false);
  const Outcome device = train(2, true);
  CHECK(host.exchanges == 0);
  // two exchanges forwards and four backwards, of two layers in three steps of one micro-batch a
  // rank
  CHECK(device.exchanges == (2 + 4) * 2 * 3);
  host.exchanges = device.exchanges;
  CHECK(device == host);
  CHECK(alone.numbers == host.numbers);
  CHECK(alone.numbers.size() == 6);
}

TEST_CASE("weights of experts that travel between devices leave the bits of rows that do") {
  Outcome rows = train(2, false);
  const Outcome host = train(2, false, Move::weights);
  const Outcome device = train(2, true, Move::weights);
  CHECK(host == rows);
  CHECK(device.exchanges == 3 * 2 * 3);  // gradients of three matrices of two layers in three steps
  rows.exchanges = device.exchanges;
  CHECK(device == rows);
}
