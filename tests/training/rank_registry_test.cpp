// Whatever the registries have, two ranks compute what one does: losses, norms and counts of a few
// steps in every digit, for every router, balancer and capacity rule, however experts and weights
// are shared out.
#include <catch2/catch.hpp>

#include <bit>

#include "lib/balance/balancer.h"
#include "lib/comm/threads.h"
#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/model/trainer.h"
#include "lib/router/capacity.h"
#include "lib/router/mixing.h"
#include "tests/training/toy_text.h"

using namespace moe;
using namespace moe::test;

namespace {

constexpr Index sequences = 2;
constexpr Index length = 12;
constexpr Index accumulate = 4;

using Figures = std::vector<std::uint64_t>;

void add(Figures& out, const StepResult& r) {
  const auto number = [&](double v) {
    out.push_back(std::bit_cast<std::uint64_t>(v));
  };
  number(r.loss);
  number(r.total_loss);
  number(r.gradient_norm);
  for (const LayerStep& l : r.layer) {
    out.insert(out.end(), l.counts.begin(), l.counts.end());
    out.insert(out.end(), l.kept.begin(), l.kept.end());
    number(l.entropy);
    std::ranges::for_each(l.losses, number);
    std::ranges::for_each(l.gradient_norm, number);
  }
}

// Of the last rank.
Figures figures_of(const std::string& moe, int ranks, const RankOptions& options) {
  Figures out;
  as_threads(ranks, [&](Comm& comm) {
    const auto backend = make_backend("reference");
    Decoder<float> model(
        model_config(concat("custom:vocabulary=", words,
                            ",hidden=12,layers=2,heads=2,kv_heads=1,width=8,experts=6,context=16,",
                            moe)),
        *backend);
    model.initialise(1);
    for (auto* layer : model.moe_layers())
      bring(layer->router(), std::vector<std::int64_t>(words, 1), {});
    Trainer trainer(model,
                    {.steps = 3,
                     .sequences = sequences,
                     .length = length,
                     .accumulate = accumulate,
                     .lanes = 2,
                     .lr = 1e-2,
                     .schedule = "constant:warmup=0"},
                    comm, options);
    Figures mine;
    for (int step = 0; step < 3; ++step) {
      add(mine, trainer.step([](std::uint64_t n) { return batch_of(n, sequences, length); }, true));
    }
    if (comm.rank() + 1 == ranks)
      out = mine;
  });
  return out;
}

void check_ranks(const std::string& moe, bool once) {
  INFO(moe);
  const Figures whole = figures_of(moe, 1, {});
  CHECK(whole.size() > 30);
  CHECK((figures_of(moe, 2, {.expert_ranks = 2}) == whole));
  CHECK((figures_of(moe, 2, {.zero = 3, .expert_ranks = 2, .move = Move::weights}) == whole));
  if (once)
    CHECK((figures_of(moe, 2, {.zero = 2, .expert_ranks = 2, .send = Send::once}) == whole));
}

// Whether a model with these parts can be made.
bool fits(const std::string& moe) {
  try {
    const auto backend = make_backend("reference");
    Decoder<float>(model_config(concat("custom:vocabulary=", words,
                                       ",hidden=12,layers=2,heads=2,kv_heads=1,width=8,experts=6,"
                                       "context=16,",
                                       moe)),
                   *backend);
  } catch (const Error&) {
    return false;
  }
  return true;
}

}  // namespace

TEST_CASE("two ranks route as one, whatever routes") {
  for (const auto& entry : routers().entries()) {
    for (const std::string& spec : split(entry.examples, ' ')) {
      const auto router = make_router(spec, 6);
      if (capability<ReplaysRoutes>(*router))
        continue;  // of recorded rows in their order: not for training
      check_ranks(concat("balance=none,router={", spec, "}"), !capability<Mixing>(*router));
    }
  }
}

TEST_CASE("two ranks balance as one, whatever balances") {
  for (const auto& entry : balancers().entries()) {
    for (const std::string& spec : split(entry.examples, ' ')) {
      int fitting = 0;
      for (const char* router : {"softmax:k=2,bias=1", "noisy:k=2", "relu"}) {
        const std::string moe = concat("router={", router, "},balance={", spec, "}");
        if (!fits(moe))
          continue;
        ++fitting;
        check_ranks(moe, false);
      }
      INFO(spec);
      CHECK(fitting > 0);
    }
  }
}

TEST_CASE("two ranks drop as one, whatever limits an expert") {
  for (const auto& entry : capacities().entries()) {
    for (const std::string& spec : split(entry.examples, ' ')) {
      for (const char* router : {"softmax:k=2", "gshard:second=random"}) {
        const std::string moe = concat("balance=none,router={", router, "},capacity={", spec, "}");
        if (fits(moe))
          check_ranks(moe, true);
      }
    }
  }
}
