// Numbers that no gradient and no shape shows when they are wrong: defaults, epsilons, roundings,
// the width of draws.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <map>

#include "lib/balance/balancer.h"
#include "lib/core/rng.h"
#include "lib/layer/moe_layer.h"
#include "lib/layer/router_product.h"
#include "lib/router/capacity.h"
#include "lib/router/router.h"

using namespace moe;

namespace {

using Defaults = std::map<std::string_view, std::string>;

// Every entry of a registry must be listed, with what its bare name stands for.
template <class Registry, class Resolve>
void check_defaults(const Registry& registry, const Defaults& wanted, Resolve resolve) {
  CHECK(wanted.size() == registry.entries().size());
  for (const auto& entry : registry.entries()) {
    INFO(entry.name);
    REQUIRE(wanted.count(entry.name) == 1);
    CHECK(resolve(std::string(entry.name)) == wanted.at(entry.name));
  }
}

Batch batch_of(Index tokens) {
  Batch b;
  b.token.assign(std::size_t(tokens), 0);
  b.start = {0, tokens};
  return b;
}

}  // namespace

TEST_CASE("defaults of routers") {
  const std::string heat = "temperature=1,jitter=0";
  const Defaults wanted{
      {"softmax", "softmax:k=2,norm=1,scale=1,bias=0,groups=1," + heat},
      {"sigmoid", "sigmoid:k=2,norm=1,scale=1,bias=0,groups=1," + heat},
      {"sqrtsoftplus", "sqrtsoftplus:k=2,norm=1,scale=1,bias=0,groups=1," + heat},
      {"token_table", "token_table:router={softmax:k=2},seed=0"},
      {"cosine", "cosine:k=2,norm=1,scale=1,bias=0,groups=1,dim=3,start=2," + heat},
      {"gshard", "gshard:second=random,scale=1," + heat},
      {"dense", "dense:" + heat},
      {"random", "random:k=2"},
      {"round_robin", "round_robin:k=2"},
      {"top_p", "top_p:p=0.4,k=0,norm=0,scale=1," + heat},
      {"noisy", "noisy:k=2,eps=0.01,scale=1," + heat},
      {"hash", "hash:k=1,fn=random,seed=0"},
      {"expert_choice", "expert_choice:factor=2,norm=0,scale=1," + heat},
      {"sinkhorn", "sinkhorn:k=1,norm=0,scale=1," + heat},
      {"base", "base:" + heat},
      {"hierarchical", "hierarchical:groups=2,topk_groups=1,inner=2,norm=1,scale=1," + heat},
      {"relu", "relu:" + heat},
      {"soft", "soft:slots=1,k=6,normalize=1,temperature=1"},
      {"synthetic_load", "synthetic_load:k=2,zipf=1"},
      {"replay", "replay:trace=a.h5,weights=live,router={softmax:k=2}"},
      {"sparsemixer", "sparsemixer:eps=0.01"}};
  check_defaults(routers(), wanted, [](const std::string& name) {
    std::string resolved;
    make_router(name == "replay" ? "replay:trace=a.h5" : name, 6, resolved);
    return resolved;
  });
}

TEST_CASE("defaults of balancers") {
  const Defaults wanted{{"none", "none"},
                        {"switch", "switch:coef=0.01,counts=topk,scope=batch,layers=sum"},
                        {"concat", "concat:coef=0.01"},
                        {"pairwise", "pairwise:coef=0.01"},
                        {"z", "z:coef=0.001"},
                        {"bias", "bias:rate=0.001,center=0"},
                        {"quantile", "quantile:ema=0"},
                        {"entropy", "entropy:coef=1e-04"},
                        {"importance", "importance:coef=0.1"},
                        {"load", "load:coef=0.1"},
                        {"limoe", "limoe:local={text:0.04},global=0.04,least=4"},
                        {"orthogonal", "orthogonal:coef=0.01,groups=1"},
                        {"l1", "l1:coef=1e-08,growth=1.2,balanced=1,k=2"}};
  check_defaults(balancers(), wanted, [](const std::string& name) {
    std::string resolved;
    make_balancer(name, resolved);
    return resolved;
  });
}

TEST_CASE("defaults of capacity rules") {
  const std::string all = ":factor=1.25,min=0,weights=keep,output=zero";
  const Defaults wanted{{"none", "none"},
                        {"position", "position" + all},
                        {"prob", "prob" + all},
                        {"random", "random" + all},
                        {"count",
                         "count:tokens=64,scope=sequence,order=position,eval_fraction=0,weights="
                         "keep,output=zero"},
                        {"reroute", "reroute" + all}};
  check_defaults(capacities(), wanted, [](const std::string& name) {
    std::string resolved;
    make_capacity(name, resolved);
    return resolved;
  });
}

// 25 x 2 x 1.1 / 5 and 14 x 2 x 1.2 / 4.8 x 1 come out a little above the whole number they are.
TEST_CASE("room is rounded up from the number that is meant, not from what rounding made of it") {
  CHECK(capacity_of(25, 2, 5, 1.1, 0) == 11);
  CHECK(capacity_of(26, 2, 5, 1.1, 0) == 12);
  CHECK(capacity_of(1, 1, 8, 1, 4) == 4);
  const auto shared = make_capacity("position:factor=1.2");
  shared->share_out({0.7, 0.7, 0.7, 0.7, 1, 1});
  CHECK(shared->room_of(14, 2, 6) == std::vector<Index>{5, 5, 5, 5, 7, 7});
}

TEST_CASE("expert choice rounds its room as capacity rules do") {
  Rng rng(4);
  Matrix<double> z(50, 5);
  for (double& v : z.flat())
    v = rng.normal();
  const Batch batch = batch_of(50);
  const auto router = make_router("expert_choice:factor=1.1", 5);
  const Routing r = router->route({.scores = {z}, .batch = batch});
  CHECK(count_experts(r.expert, 5) == std::vector<std::int64_t>(5, 11));
}

TEST_CASE("weights of routers without scores are 1/k") {
  const Batch batch = batch_of(5);
  for (const char* spec :
       {"synthetic_load:k=3,zipf=1", "round_robin:k=3", "random:k=3", "hash:k=3"}) {
    INFO(spec);
    Rng rng(2);
    const Routing r = make_router(spec, 6)->route({.scores = {}, .batch = batch, .rng = &rng});
    for (const double w : r.weight.flat())
      CHECK(w == 1.0 / 3);
  }
}

TEST_CASE("normalising divides by the sum + 1e-20") {
  const Batch batch = batch_of(1);
  const double z = std::log(1e-20);  // its sigmoid is 1e-20 as well
  const RouterInput in{.scores = {Matrix<double>(1, 4, z)}, .batch = batch};
  const auto router = make_router("sigmoid:k=2", 4);
  const Routing r = router->route(in);
  CHECK(r.weight(0, 0) == Approx(1.0 / 3));
  CHECK(router->probabilities(in, r)(0, 0) == Approx(1.0 / 5));
}

TEST_CASE("the squared variation divides by the squared mean + 1e-10") {
  const Batch batch = batch_of(3);
  // every token takes expert 0 with weight 1e-5/3, so the sums are 1e-5, 0
  Matrix<double> z(3, 2);
  for (Index t = 0; t < 3; ++t)
    z(t, 0) = 800;
  const auto router = make_router("softmax:k=1,scale=3.3333333333333333e-6", 2);
  const RouterInput in{.scores = {z}, .batch = batch};
  const Routing r = router->route(in);
  const Matrix<double> p = router->probabilities(in, r);
  Matrix<double> dprob(3, 2), dlogits(3, 2), dnoise, dweight(3, 1);
  const double value = make_balancer("importance")
                           ->loss({in, r, p, 2, {}, {}}, 1, {dprob, dlogits, dnoise, dweight});
  CHECK(value == Approx(0.25e-10 / (0.25e-10 + 1e-10)));
}

TEST_CASE("gshard keeps the second choice where twice its weight is above the draw") {
  const Batch batch = batch_of(2);
  Matrix<double> z(2, 3, -50.0);
  for (Index t = 0; t < 2; ++t) {
    z(t, 0) = std::log(0.7);
    z(t, 1) = std::log(0.3);
  }
  const auto router = make_router("gshard", 3);
  GivenNoise given{.noise = Matrix<double>(2, 1)};
  given.noise(0, 0) = 0.59;
  given.noise(1, 0) = 0.61;
  const Routing r = router->route({.scores = {z}, .batch = batch, .given = &given});
  CHECK(r.weight(0, 1) == Approx(0.3));
  CHECK(r.computed()(0, 1) == 1);
  CHECK(r.computed()(1, 1) == -1);
}

TEST_CASE("sparsemixer weighs a choice among logits that are within 2 eps of it") {
  const Batch batch = batch_of(1);
  Matrix<double> z(1, 3);
  z(0, 0) = 2;
  z(0, 1) = 1.04;  // (2 - 1.04)/2 = 0.48
  const auto weight = [&](const char* spec) {
    return make_router(spec, 3)->route({.scores = {z}, .batch = batch}).weight(0, 0);
  };
  CHECK(weight("sparsemixer:eps=0.25") == Approx(1 / (1 + std::exp(-0.96))));
  CHECK(weight("sparsemixer:eps=0.23") == 1);
}

TEST_CASE("sinkhorn goes on until its plan gives every token its share") {
  constexpr Index tokens = 40;
  Rng rng(9);
  Matrix<double> z(tokens, 5);
  for (Index t = 0; t < tokens; ++t) {
    for (Index e = 0; e < 5; ++e)
      z(t, e) = rng.normal() - 1.5 * double(e);
  }
  const Batch batch = batch_of(tokens);
  const auto router = make_router("sinkhorn", 5);
  const RouterInput in{.scores = {z}, .batch = batch, .training = true};
  const auto details = router->details(in, router->route(in));
  REQUIRE(details.at(0).first == "sinkhorn_plan");
  double worst = 0;
  for (Index t = 0; t < tokens; ++t) {
    double sum = 0;
    for (const double v : details[0].second.row(t))
      sum += v;
    worst = std::max(worst, std::abs(sum * double(tokens) - 1));
  }
  CHECK(worst < 2e-4);
}

TEST_CASE("the coefficient of l1 grows by 1.2 a step, and shrinks by it") {
  const auto l1 = make_balancer("l1:coef=0.5,k=2");
  const auto router = make_router("relu", 4);
  l1->stepped(*router, std::vector<std::int64_t>{9, 9, 9, 9}, 10);
  CHECK(l1->coefficient() == Approx(0.6));
  l1->stepped(*router, std::vector<std::int64_t>{1, 1, 1, 1}, 10);
  CHECK(l1->coefficient() == Approx(0.5));
}

TEST_CASE("the mean over layers counts each of them as one in so many") {
  CHECK(make_balancer("switch:layers=mean")->reduction(4) == 0.25);
  CHECK(make_balancer("switch")->reduction(4) == 1);
}

TEST_CASE("jitter multiplies the router's input by numbers from 1-jitter to 1+jitter") {
  constexpr int n = 8;
  LayerConfig c{.hidden = n, .width = 2, .experts = n, .router = "softmax:k=2,jitter=0.2"};
  const auto backend = make_reference<double>();
  MoeLayer<double> layer(c, *backend);
  Matrix<double> one(n, n);
  for (Index i = 0; i < n; ++i)
    one(i, i) = 1;
  layer.products()[0].weight().set(std::as_const(one).view());
  const Batch batch = batch_of(200);
  const Matrix<double> x(200, n, 1.0);
  Matrix<double> y(200, n);
  Rng rng(6);
  MoeTape<double> tape(batch);
  layer.forward({.batch = batch, .training = true, .rng = &rng}, x.view(), y.view(), tape);
  const auto factor = tape.input.scores[0].flat();
  CHECK(std::ranges::min(factor) >= 0.8);
  CHECK(std::ranges::min(factor) < 0.802);
  CHECK(std::ranges::max(factor) <= 1.2);
  CHECK(std::ranges::max(factor) > 1.198);
}
