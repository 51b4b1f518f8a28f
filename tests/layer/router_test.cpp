// Routers against what their definitions say: trees of any depth against loops over all paths, the
// balanced hash table, replayed routes, temperatures along training.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/router/learns_from_text.h"
#include "lib/router/replays_routes.h"
#include "lib/router/router.h"

using namespace moe;

namespace {

Batch batch_of(Index tokens) {
  Batch b;
  for (Index t = 0; t < tokens; ++t)
    b.token.push_back(int(t * 5 % 7));
  b.start = {0, tokens};
  return b;
}

Matrix<double> drawn(Index rows, Index cols, std::uint64_t seed) {
  Matrix<double> z(rows, cols);
  Rng rng(seed);
  for (double& v : z.flat())
    v = rng.normal();
  return z;
}

}  // namespace

TEST_CASE("two levels of a tree are the router of groups") {
  const auto tree = make_router("hierarchical:levels=4x3,keep=2x2,scale=1.5", 12);
  const auto groups = make_router("hierarchical:groups=4,topk_groups=2,inner=2,scale=1.5", 12);
  const Batch batch = batch_of(9);
  const RouterInput in{.scores = {drawn(9, 12, 1), drawn(9, 4, 2)}, .batch = batch};
  const Routing a = tree->route(in);
  const Routing b = groups->route(in);
  CHECK((a.expert == b.expert && a.weight == b.weight && a.score == b.score));
  CHECK(tree->projections().size() == 2);
  CHECK(tree->projections()[1].name == "group_weight");
}

TEST_CASE("three levels: the weight is the product of normalised weights on the path") {
  const auto router = make_router("hierarchical:levels=2x3x2,keep=1x2x1", 12);
  CHECK(router->choices() == 2);
  const Batch batch = batch_of(20);
  const RouterInput in{.scores = {drawn(20, 12, 1), drawn(20, 2, 2), drawn(20, 6, 3)},
                       .batch = batch};
  const Routing r = router->route(in);
  for (Index t = 0; t < 20; ++t) {
    const auto& leaf = in.scores[0];
    const auto& top = in.scores[1];
    const auto& mid = in.scores[2];
    const Index g = top(t, 1) > top(t, 0) ? 1 : 0;
    std::vector<std::pair<double, Index>> m;
    for (Index i = 0; i < 3; ++i)
      m.emplace_back(mid(t, 3 * g + i), 3 * g + i);
    std::ranges::sort(m, std::greater{});
    // of the better of two, normalised; the other levels keep one: 1
    const double share = 1 / (1 + std::exp(m[1].first - m[0].first));
    for (Index j = 0; j < 2; ++j) {
      const Index node = m[std::size_t(j)].second;
      const Index e = 2 * node + (leaf(t, 2 * node + 1) > leaf(t, 2 * node));
      CHECK(r.expert(t, j) == int(e));
      CHECK(r.weight(t, j) == Approx(j ? 1 - share : share).epsilon(1e-12));
    }
    double sum = 0;
    for (Index e = 0; e < 12; ++e)
      sum += r.score(t, e);
    CHECK(sum == Approx(1));
  }
  CHECK(make_router("hierarchical:levels=4x4x2", 32)->choices() == 1);
  CHECK(make_router("hierarchical:levels=4x4x2,keep=2x2x2", 32)->choices() == 8);
  CHECK_THROWS_WITH(make_router("hierarchical:levels=4x4", 12),
                    Catch::Contains("makes 16 experts and the layer has 12"));
  CHECK_THROWS_WITH(make_router("hierarchical:levels=4x3,keep=2", 12),
                    Catch::Contains("has 2 levels and keep=2 1"));
  CHECK_THROWS_WITH(make_router("hierarchical:levels=4x3,keep=2x4", 12),
                    Catch::Contains("takes 4 of the 3"));
  CHECK_THROWS_WITH(make_router("hierarchical:levels=4x3,groups=4", 12),
                    Catch::Contains("both say"));
  CHECK_THROWS_WITH(make_router("hierarchical:levels=4xa", 12),
                    Catch::Contains("'a' is not a number"));
}

TEST_CASE("the balanced table gives every expert the same of the text it was made from") {
  const auto router = make_router("hash:k=2,fn=balanced", 4);
  Batch batch;
  batch.token = {0};
  batch.start = {0, 1};
  CHECK_THROWS_WITH(router->route({.batch = batch}), Catch::Contains("no expert for token 0"));
  const std::vector<std::int64_t> counts = {40, 1, 20, 20, 10, 10, 5, 0, 0, 3};
  capability<LearnsFromText>(*router)->learn(counts);
  batch.token.clear();
  for (int id = 0; id < 10; ++id)
    batch.token.push_back(id);
  batch.start = {0, 10};
  const Routing r = router->route({.batch = batch});
  std::vector<std::int64_t> load(4, 0);
  for (Index t = 0; t < 10; ++t) {
    CHECK(r.expert(t, 0) != r.expert(t, 1));
    for (Index j = 0; j < 2; ++j)
      load[std::size_t(r.expert(t, j))] += counts[std::size_t(t)];
  }
  CHECK(r.expert(0, 0) == 0);  // the most frequent first, ties to the lower id
  CHECK(r.expert(2, 0) == 2);
  CHECK(std::ranges::max(load) - std::ranges::min(load) <= 5);
  CHECK(router->state().size() == 1);
  CHECK_THROWS_WITH(make_router("hash:fn=balanced,seed=3", 4), Catch::Contains("no option 'seed'"));
}

TEST_CASE("a replay goes where the trace went, weighed by the logits of now or as recorded") {
  const Batch batch = batch_of(6);
  const auto tokens =
      std::make_shared<const std::vector<std::uint32_t>>(batch.token.begin(), batch.token.end());
  const auto recorded = [&] {
    Recorded r{"a.h5", tokens, Matrix<int>(6, 2), Matrix<float>(6, 2)};
    for (Index t = 0; t < 6; ++t) {
      for (Index j = 0; j < 2; ++j) {
        r.expert(t, j) = int((t + 3 * j) % 5);
        r.weight(t, j) = j ? 0.25f : 0.5f;
      }
    }
    return r;
  };
  const RouterInput in{.scores = {drawn(6, 5, 8)}, .batch = batch};
  for (const std::string inner :
       {"softmax:k=2", "softmax:k=2,norm=0,scale=2", "sigmoid:k=2,bias=1"}) {
    const auto live = make_router("replay:trace=a.h5,router={" + inner + "}", 5);
    const auto plain = make_router(inner, 5);
    auto& replay = *capability<ReplaysRoutes>(*live);
    CHECK(replay.recording() == "a.h5");
    CHECK_THROWS_WITH(live->route(in), Catch::Contains("have not been read"));
    replay.replay(recorded());
    const Routing r = live->route(in);
    const Routing own = plain->route(in);
    CHECK(r.expert == recorded().expert);
    CHECK(r.score == own.score);
    for (Index t = 0; t < 6; ++t) {
      const double a = own.score(t, r.expert(t, 0));
      const double b = own.score(t, r.expert(t, 1));
      CHECK(r.weight(t, 0) == Approx(inner.find("norm=0") != inner.npos ? 2 * a : a / (a + b)));
    }
    CHECK_THROWS_WITH(live->route(in), Catch::Contains("holds 6 tokens and the data goes on"));
    replay.rewind();
    CHECK(live->route(in).expert == r.expert);
    const auto stored = make_router("replay:trace=a.h5,weights=trace,router={" + inner + "}", 5);
    capability<ReplaysRoutes>(*stored)->replay(recorded());
    CHECK(stored->route(in).weight(3, 1) == 0.25);
  }
  Batch other = batch;
  other.token[2] = 99;
  const auto router = make_router("replay:trace=a.h5", 5);
  capability<ReplaysRoutes>(*router)->replay(recorded());
  CHECK_THROWS_WITH(router->route({.scores = in.scores, .batch = other}),
                    Catch::Contains("row 2 of the trace 'a.h5' is token 3 and the data has 99"));
  CHECK_THROWS_WITH(make_router("replay", 5), Catch::Contains("trace= is missing"));
  CHECK_THROWS_WITH(make_router("replay:trace=a,router={noisy:k=2}", 5),
                    Catch::Contains("do not follow from the scores"));
  CHECK_THROWS_WITH(make_router("replay:trace=a,router={hash:k=2}", 5),
                    Catch::Contains("do not follow from the scores"));
  CHECK(make_router("replay:trace=a,weights=trace,router={hash:k=2}", 5)->choices() == 2);
}

TEST_CASE("temperatures along training") {
  const auto router = make_router("softmax:temperature=2..0.5", 4);
  CHECK(router->temperature == 0.5);  // as at the end, until training says otherwise
  router->set_progress(0);
  CHECK(router->temperature == 2);
  router->set_progress(0.5);
  CHECK(router->temperature == Approx(1));
  router->set_progress(1);
  CHECK(router->temperature == 0.5);
  const auto linear =
      make_router("sigmoid:temperature=2..1,temperature_schedule=linear,temperature_until=0.5", 4);
  linear->set_progress(0.25);
  CHECK(linear->temperature == Approx(1.5));
  linear->set_progress(0.75);
  CHECK(linear->temperature == 1);
  const auto cosine = make_router("soft:temperature=1..3,temperature_schedule=cosine", 4);
  cosine->set_progress(0.5);
  CHECK(cosine->temperature == Approx(2));
  const auto constant = make_router("softmax:temperature=0.7", 4);
  constant->set_progress(0.3);
  CHECK(constant->temperature == 0.7);
  CHECK_THROWS_WITH(make_router("softmax:temperature=0", 4),
                    Catch::Contains("'0' is not a number"));
  CHECK_THROWS_WITH(make_router("softmax:temperature=2..x", 4),
                    Catch::Contains("'x' is not a number"));
  CHECK_THROWS_WITH(make_router("softmax:temperature=nan", 4),
                    Catch::Contains("'nan' is not a number"));
  CHECK_THROWS_WITH(make_router("softmax:temperature=0.7,temperature_schedule=linear", 4),
                    Catch::Contains("no option 'temperature_schedule'"));
  CHECK_THROWS_WITH(make_router("softmax:temperature=2..1,temperature_until=2", 4),
                    Catch::Contains("cannot pass 1"));
}
