// What must hold for any input: rapidcheck draws them, and shrinks what fails.
#include <rapidcheck.h>
#include <catch2/catch.hpp>

#include <numeric>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/layer/moe_layer.h"
#include "lib/router/capacity.h"
#include "lib/router/router.h"

using namespace moe;

namespace {

struct Drawn {
  Batch batch;
  Matrix<double> logits;
};

Drawn draw(int experts) {
  Drawn d;
  const Index tokens = *rc::gen::inRange<int>(1, 40);
  d.logits = Matrix<double>(tokens, experts);
  for (double& v : d.logits.flat())
    v = *rc::gen::inRange<int>(-30, 31) / 4.0;  // ties happen
  d.batch.token.assign(std::size_t(tokens), 0);
  d.batch.start = {0, tokens};
  d.batch.valid.resize(std::size_t(tokens));
  for (auto& v : d.batch.valid)
    v = std::uint8_t(*rc::gen::inRange<int>(0, 5) != 0);
  return d;
}

Index valid_tokens(const Batch& b) {
  return std::accumulate(b.valid.begin(), b.valid.end(), Index{0});
}

}  // namespace

TEST_CASE("top-k routing: k distinct experts a valid token, in key order, weights adding up") {
  CHECK(rc::check([] {
    const int experts = *rc::gen::inRange<int>(1, 20);
    const int k = *rc::gen::inRange<int>(1, experts + 1);
    const Drawn d = draw(experts);
    const auto router = make_router(concat("softmax:k=", k), experts);
    const RouterInput in{.scores = {d.logits}, .batch = d.batch};
    const Routing r = router->route(in);
    for (Index t = 0; t < r.tokens(); ++t) {
      double sum = 0;
      for (Index j = 0; j < k; ++j) {
        RC_ASSERT((r.expert(t, j) >= 0) == d.batch.is_valid(t));
        sum += r.weight(t, j);
        if (!d.batch.is_valid(t) || j == 0)
          continue;
        const double before = d.logits(t, r.expert(t, j - 1));
        const double here = d.logits(t, r.expert(t, j));
        RC_ASSERT(before > here || (before == here && r.expert(t, j - 1) < r.expert(t, j)));
      }
      RC_ASSERT(std::abs(sum - (d.batch.is_valid(t) ? 1.0 : 0.0)) < 1e-12);
    }
  }));
}

TEST_CASE(
    "capacity: load and drops add up to T k, nobody is over, and room left means nobody was turned "
    "away") {
  CHECK(rc::check([] {
    const int experts = *rc::gen::inRange<int>(1, 12);
    const int k = *rc::gen::inRange<int>(1, experts + 1);
    const double factor = *rc::gen::inRange<int>(1, 12) / 4.0;
    const Drawn d = draw(experts);
    const auto router = make_router(concat("softmax:k=", k, ",norm=0"), experts);
    const auto capacity = make_capacity(
        concat(*rc::gen::element<std::string>("position", "prob"), ":factor=", factor));
    const RouterInput in{.scores = {d.logits}, .batch = d.batch};
    Routing r = router->route(in);
    capacity->apply(r, in, *router);
    const auto chosen = count_experts(r.expert, experts);
    const auto kept = count_experts(r.kept, experts);
    const Index valid = valid_tokens(d.batch);
    const Index room = capacity_of(valid, k, experts, factor, 0);
    RC_ASSERT(std::accumulate(chosen.begin(), chosen.end(), std::int64_t{0}) == valid * k);
    for (std::size_t e = 0; e < chosen.size(); ++e)
      RC_ASSERT(kept[e] == std::min<std::int64_t>(chosen[e], room));
  }));
}

TEST_CASE("a layer sees tokens one by one: permuted tokens give permuted rows") {
  CHECK(rc::check([] {
    const Index tokens = *rc::gen::inRange<int>(1, 12);
    std::vector<Index> order(static_cast<std::size_t>(tokens));
    std::iota(order.begin(), order.end(), Index{0});
    order = *rc::gen::just(order);
    const int turn = *rc::gen::inRange<int>(0, int(tokens));
    std::rotate(order.begin(), order.begin() + turn, order.end());
    const auto backend = make_reference<double>();
    MoeLayer<double> layer(
        {.hidden = 4, .width = 3, .experts = 5, .shared_width = 2, .router = "softmax:k=2"},
        *backend);
    std::vector<Parameter<double>*> parameters;
    layer.collect(parameters);
    Rng rng(std::uint64_t(*rc::gen::inRange<int>(0, 1000)));
    for (auto* p : parameters) {
      for (double& v : p->mutate().flat())
        v = rng.normal();
    }
    Batch batch{.token = std::vector<int>(std::size_t(tokens), 0), .start = {0, tokens}};
    Matrix<double> x(tokens, 4);
    Matrix<double> moved(tokens, 4);
    Matrix<double> y(tokens, 4);
    Matrix<double> moved_y(tokens, 4);
    for (double& v : x.flat())
      v = rng.normal();
    for (Index t = 0; t < tokens; ++t)
      std::ranges::copy(x.row(order[std::size_t(t)]), moved.row(t).begin());
    MoeTape<double> one(batch), two(batch);
    layer.forward({.batch = batch}, std::as_const(x).view(), y.view(), one);
    layer.forward({.batch = batch}, std::as_const(moved).view(), moved_y.view(), two);
    for (Index t = 0; t < tokens; ++t)
      RC_ASSERT(std::ranges::equal(moved_y.row(t), y.row(order[std::size_t(t)])));
  }));
}

TEST_CASE("a spec written down reads back the same") {
  CHECK(rc::check([] {
    Spec spec("thing");
    const auto words = *rc::gen::container<std::vector<std::string>>(
        rc::gen::container<std::string>(rc::gen::element('a', 'b', ',', '=', ':', '1', ' ', '/')));
    for (std::size_t i = 0; i < words.size(); ++i)
      spec.set(concat("k", i), words[i]);
    Spec again(spec.given_text());
    for (std::size_t i = 0; i < words.size(); ++i)
      RC_ASSERT(again.get(concat("k", i), "?") == words[i]);
  }));
}
