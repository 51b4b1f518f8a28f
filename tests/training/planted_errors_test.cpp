// Errors of one rank at any moment of a run, also while rows are under way: all ranks end, with
// that error, and a checkpoint that was made is valid.
#include "lib/checkpoint/folder.h"
#include "lib/core/error.h"
#include "tests/training/rank_runs.h"

using namespace moe;
using namespace moe::test;

namespace {

// Of one rank: the n-th thing that it does with others fails.
struct Fuse {
  explicit Fuse(Index at) : left(at) {}
  void burn() {
    if (left-- == 0)
      throw Error(Exit::numeric, "a planted error");
  }
  Index left;
};

class FusedFlow final : public ThroughFlow {
 public:
  FusedFlow(std::unique_ptr<Flow> inner, std::shared_ptr<Fuse> fuse)
      : ThroughFlow(std::move(inner)), fuse_(std::move(fuse)) {}
  void send(int to, ConstBytes out) override {
    fuse_->burn();
    ThroughFlow::send(to, out);
  }

 private:
  std::shared_ptr<Fuse> fuse_;
};

class Fused final : public Through {
 public:
  Fused(std::shared_ptr<Transport> inner, Index at)
      : Through(std::move(inner)), fuse_(std::make_shared<Fuse>(at)) {}
  bool exchange(std::span<const ConstBytes> send, std::span<const Bytes> receive, double patience,
                std::vector<int>& missing) override {
    fuse_->burn();
    return Through::exchange(send, receive, patience, missing);
  }
  std::unique_ptr<Flow> flow(std::span<const Bytes> receive) override {
    return std::make_unique<FusedFlow>(Through::flow(receive), fuse_);
  }

 private:
  std::shared_ptr<Fuse> fuse_;
};

}  // namespace

TEST_CASE("an error of a rank at any moment of a run ends all ranks with it") {
  const OneThreadHere one;
  const Scratch scratch;
  const std::vector<Share> shares = {
      {3, {.expert_ranks = 3}},
      {3, {.zero = 3}},
      {4, {.zero = 1, .expert_ranks = 2, .send = Send::once}},
      {4, {.zero = 3, .expert_ranks = 2, .move = Move::weights}},
  };
  int kept = 0;
  for (Index point = 0; point < 40; ++point) {
    const Share& share = shares[std::size_t(point % 4)];
    const Index at = 3 + point * 17;
    const int rank = int(point) % share.ranks;
    INFO(name_of(share) << ", rank " << rank << " at " << at);
    RunOptions o = options_of(scratch / concat("run-", point), 4, 4);
    o.save_every = 1;
    const auto around = [&](std::shared_ptr<Transport> inner) -> std::shared_ptr<Transport> {
      const bool fails = inner->rank() == rank;
      return std::make_shared<Fused>(std::move(inner), fails ? at : -1);
    };
    std::string sentence = "no error";
    try {
      start(model_with(usual), o, share, 0, around);
    } catch (const Error& e) {
      sentence = e.what();
    }
    CHECK(sentence == "a planted error");
    if (!fs::exists(o.folder))
      continue;
    for (const auto step : checkpoint_steps(o.folder)) {
      CHECK(checkpoint_problem(fs::path(o.folder) / checkpoint_name(step)).empty());
      ++kept;
    }
  }
  CHECK(kept > 10);
}
