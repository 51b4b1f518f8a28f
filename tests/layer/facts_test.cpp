// Every example spec of every router against what its facts say: traces, edits, published families
// and balancers believe them without looking at the router.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/core/spec.h"
#include "lib/router/device_rule.h"
#include "lib/router/excludes_experts.h"
#include "lib/router/learns_from_text.h"
#include "lib/router/mixing.h"
#include "lib/router/replays_routes.h"
#include "lib/router/reroutes.h"
#include "lib/router/router.h"
#include "lib/router/scores.h"
#include "lib/router/weighs_chosen.h"

using namespace moe;

namespace {

constexpr int experts = 6, words = 11;
constexpr Index tokens = 24, half = 13;

Batch batch_of() {
  Batch b;
  for (Index t = 0; t < tokens; ++t)
    b.token.push_back(int(t * 7 % words));
  b.start = {0, tokens};
  return b;
}

Matrix<int> some_routes(int k) {
  Matrix<int> m(tokens, k);
  for (Index t = 0; t < tokens; ++t) {
    for (int j = 0; j < k; ++j)
      m(t, j) = int(t * 5 + 1 + j) % experts;
  }
  return m;
}

// A router with all that it needs from outside, and scores that are drawn.
struct Subject {
  explicit Subject(const std::string& spec) : router(make_router(spec, experts)) {
    Rng rng(7);
    for (const Projection& p : router->projections()) {
      Matrix<double> z(tokens, p.rows);
      for (double& v : z.flat())
        v = 2 * rng.normal();
      scores.push_back(std::move(z));
    }
    for (double& b : router->correction_bias())
      b = 0.1 * rng.normal();
    if (auto* table = capability<LearnsFromText>(*router))
      table->learn(std::vector<std::int64_t>{5, 0, 3, 3, 1, 1, 1, 9, 2, 0, 4});
  }
  Routing route(bool training, const GivenNoise* given = nullptr, std::uint64_t seed = 3) {
    bring_routes();
    Rng rng(seed);
    return router->route(
        {.scores = scores, .batch = batch, .training = training, .rng = &rng, .given = given});
  }
  void bring_routes() {
    auto* replay = capability<ReplaysRoutes>(*router);
    if (!replay)
      return;
    const int k = router->facts().k;
    Recorded r{"a.h5", {}, some_routes(k), Matrix<float>(tokens, k)};
    r.token =
        std::make_shared<const std::vector<std::uint32_t>>(batch.token.begin(), batch.token.end());
    for (Index i = 0; i < r.weight.size(); ++i)
      r.weight.data()[i] = float(i % 5) / 8;
    replay->replay(std::move(r));
  }

  std::unique_ptr<Router> router;
  Batch batch = batch_of();
  std::vector<Matrix<double>> scores;
};

// With another k the router still chooses as many as k says; without the fact it is refused.
void check_other_k(const std::string& spec, const RouterFacts& f) {
  const int other = f.groups > 1 ? f.groups : f.k + 1;
  if (!f.k_is_option) {
    CHECK_THROWS_WITH(with_k(spec, 1, experts),
                      Catch::Contains("has no number of experts that every token chooses"));
    return;
  }
  const std::string changed = with_k(spec, other, experts);
  Subject s(changed);
  const Routing r = s.route(false);
  CHECK(r.expert.cols() == other);
  CHECK(std::ranges::none_of(r.expert.flat(), [](int e) { return e < 0; }));
  RouterFacts same = router_facts(changed, experts);
  CHECK(same.k == other);
  same.k = f.k;
  CHECK(same.groups == f.groups);
  CHECK(same.scale == f.scale);
  CHECK(same.normalised == f.normalised);
  CHECK_THROWS_WITH(with_k(spec, experts + 1, experts), "a token cannot choose 7 of 6 experts");
  CHECK_THROWS_WITH(with_k(spec, 0, experts), "a token cannot choose 0 of 6 experts");
}

void for_examples(const std::function<void(const std::string& spec, const RouterFacts&)>& check) {
  for (const auto& entry : routers().entries()) {
    for (const std::string& spec : split(entry.examples, ' ')) {
      INFO(spec);
      check(spec, router_facts(spec, experts));
    }
  }
}

bool accepted(const std::string& spec) {
  try {
    make_router(spec, experts);
    return true;
  } catch (const Error&) {
    return false;
  }
}
std::string with(const std::string& spec, const std::string& option) {
  return spec + (spec.find(':') == spec.npos ? ":" : ",") + option;
}

bool sums_to(const Routing& r, double wanted) {
  for (Index t = 0; t < r.tokens(); ++t) {
    double sum = 0;
    for (const double w : r.weight.row(t))
      sum += w;
    if (r.expert(t, 0) >= 0 && !(std::abs(sum - wanted) <= 1e-9))
      return false;
  }
  return true;
}

// The k largest of softmax or sigmoid of the logits, weighed by what these are.
bool follows(const Routing& r, const RouterFacts& f, bool sigmoid, std::span<const double> beta) {
  std::vector<double> s(static_cast<std::size_t>(experts)), key(s), weight(std::size_t(f.k));
  std::vector<int> best(std::size_t(f.k));
  for (Index t = 0; t < r.tokens(); ++t) {
    const auto z = r.logits.row(t);
    if (sigmoid)
      sigmoid_row(z, s);
    else
      softmax_row(z, s);
    for (std::size_t e = 0; e < key.size(); ++e)
      key[e] = (f.bias_on_logit ? z[e] : s[e]) + (beta.empty() ? 0 : beta[e]);
    best_of(key, best);
    if (f.groups > 1)
      best.assign(r.expert.row(t).begin(), r.expert.row(t).end());
    weights_of(s, best, {f.normalised, f.scale, f.eps}, weight);
    for (std::size_t j = 0; j < best.size(); ++j) {
      if (r.expert(t, Index(j)) != best[j] ||
          !(std::abs(r.weight(t, Index(j)) - weight[j]) <= 1e-9)) {
        return false;
      }
    }
  }
  return true;
}

// Everything that is decided of the first tokens.
std::vector<double> decided(const Routing& r) {
  std::vector<double> all;
  const auto take = [&](const auto& m) {
    for (Index t = 0; t < std::min(half, m.rows()); ++t)
      all.insert(all.end(), m.row(t).begin(), m.row(t).end());
  };
  take(r.expert);
  take(r.weight);
  take(r.computed());
  take(r.dispatch);
  take(r.mix);
  return all;
}
bool looks_ahead(const std::string& spec, bool training) {
  Subject a(spec), b(spec);
  for (Matrix<double>& z : b.scores) {
    for (Index t = half; t < tokens; ++t) {
      for (double& v : z.row(t))
        v = -v;
    }
  }
  if (!router_facts(spec, experts).needs_recorded_routes) {
    for (Index t = half; t < tokens; ++t)
      b.batch.token[std::size_t(t)] = int(t % words);
  }
  return decided(a.route(training)) != decided(b.route(training));
}

}  // namespace

TEST_CASE("facts: k is the most choices of a token") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    Subject s(spec);
    CHECK(s.route(false).choices() == f.k);
    CHECK(s.router->choices() == f.k);
  });
}

TEST_CASE("facts: weights are normalised, or they are not") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    if (f.needs_recorded_routes)
      return;  // the weights are those of another router, or of a trace
    Subject s(spec);
    const bool whole = f.normalised && f.eps < 1e-12;  // a larger eps takes its share
    CHECK(sums_to(s.route(false), f.scale) == whole);
    CHECK(sums_to(s.route(true), f.scale) == whole);
  });
}

TEST_CASE("facts: norm= is an option where they say so, and says whether weights are normalised") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    Spec given(spec);
    const bool option = given.has("norm") || accepted(with(spec, "norm=1"));
    CHECK(option == f.norm_is_option);
    if (!option || given.has("norm"))
      return;
    CHECK(router_facts(with(spec, "norm=1"), experts).normalised);
    CHECK_FALSE(router_facts(with(spec, "norm=0"), experts).normalised);
  });
}

TEST_CASE("facts: the scale is in every weight") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    if (Spec(spec).has("scale")) {
      CHECK(f.scale == Spec(spec).get("scale", 0.0));
      return;
    }
    CHECK(f.scale == 1);
    const std::string scaled = with(spec, "scale=1.5");
    if (!accepted(scaled))
      return;
    CHECK(router_facts(scaled, experts).scale == 1.5);
    const Routing one = Subject(spec).route(false);
    const Routing more = Subject(scaled).route(false);
    for (Index i = 0; i < one.weight.size(); ++i)
      CHECK(more.weight.data()[i] == Approx(1.5 * one.weight.data()[i]).margin(1e-12));
  });
}

TEST_CASE("facts: the score function is what ranks and weighs the choices") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    Subject s(spec);
    const auto projections = s.router->projections();
    const bool plain =
        !projections.empty() && !projections[0].cosine && !capability<Mixing>(*s.router);
    if (!plain) {
      CHECK(f.score == ScoreFunction::other);
      return;
    }
    const Routing r = s.route(true);
    const auto beta = s.router->correction_bias();
    CHECK(follows(r, f, false, beta) == (f.score == ScoreFunction::softmax));
    CHECK(follows(r, f, true, beta) == (f.score == ScoreFunction::sigmoid));
  });
}

TEST_CASE("facts: a correction bias, and the rule of a device") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    const auto router = make_router(spec, experts);
    CHECK(f.bias == !router->correction_bias().empty());
    const auto* rule = capability<DeviceRule>(*router);
    if (!rule)
      return;
    const auto k = rule->top_k();
    CHECK(k.has_value() ==
          (f.eps == RouterFacts{}.eps && f.least == 0 && router->choice_sets().empty()));
    if (!k)
      return;
    CHECK(*k == TopK{.sigmoid = f.score == ScoreFunction::sigmoid,
                     .k = f.k,
                     .norm = f.normalised,
                     .scale = f.scale,
                     .temperature = router->temperature,
                     .bias_on_logit = f.bias_on_logit,
                     .groups = f.groups,
                     .topk_groups = f.groups == 1 || f.every_group ? 0 : f.topk_groups,
                     .top2_sum = f.top2_sum});
  });
}

TEST_CASE("facts: choices stay inside as many groups as they say") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    Spec given(spec);
    CHECK(f.groups == given.get("groups", 1));
    CHECK((f.levels > 0) == given.has("levels"));
    if (f.levels > 0)
      CHECK(f.levels == int(split(given.get("levels", ""), 'x').size()));
    if (f.groups == 1) {
      CHECK(f.topk_groups == 1);
      return;
    }
    const Routing r = Subject(spec).route(false);
    std::size_t most = 0;
    for (Index t = 0; t < tokens; ++t) {
      std::set<int> used;
      for (const int e : r.expert.row(t))
        used.insert(e / (experts / f.groups));
      most = std::max(most, used.size());
    }
    CHECK(most == std::size_t(f.topk_groups));
    CHECK(f.every_group == (given.get("group_mode", "limited") == "one"));
  });
}

TEST_CASE("facts: who looks at later tokens, and who does so in training") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    CHECK(f.causal == !looks_ahead(spec, false));
    CHECK(f.causal_in_training == !looks_ahead(spec, true));
  });
}

TEST_CASE("facts: who drops choices by itself") {
  for (const auto& entry : routers().entries()) {
    INFO(entry.name);
    bool may = false;
    bool does = false;
    for (const std::string& spec : split(entry.examples, ' ')) {
      may = may || router_facts(spec, experts).may_drop;
      const Routing r = Subject(spec).route(true);
      does = does || r.computed() != r.expert;
    }
    CHECK(may == does);
  }
}

TEST_CASE("facts: a router that limits loads does so when every token wants the same expert") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    Subject s(spec);
    if (s.scores.empty() || f.needs_recorded_routes) {
      CHECK_FALSE(f.limits_load);
      return;
    }
    if (capability<Mixing>(*s.router)) {
      CHECK(f.limits_load);  // every expert has its slots
      return;
    }
    for (std::size_t i = 0; i < s.scores.size(); ++i) {
      for (Index t = 0; t < tokens && (i == 0 || !f.learns_noise); ++t)
        s.scores[i](t, 0) += 20;
    }
    const auto load = count_experts(s.route(true).expert, experts);
    const auto most = std::ranges::max(load);
    // experts of modalities that are not there have nothing to do
    const bool even = std::ranges::all_of(load, [&](std::int64_t n) {
      return most - n <= 1 || (!s.router->choice_sets().empty() && n == 0);
    });
    CHECK(f.limits_load == (even && load[0] < tokens));
  });
}

TEST_CASE("facts: learned noise, given routes, and what a router needs from outside") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    Subject s(spec);
    const Routing r = s.route(true);
    CHECK(f.learns_noise == !r.sigma.empty());
    CHECK(f.learns_noise == !r.noise.empty());
    const GivenNoise given{.expert = some_routes(f.k)};
    const bool takes = s.route(false, &given).expert == given.expert;
    CHECK(f.takes_routes == (takes && !f.needs_recorded_routes));
    CHECK(f.needs_recorded_routes == (capability<ReplaysRoutes>(*s.router) != nullptr));
    CHECK(f.needs_token_counts == (capability<LearnsFromText>(*s.router) != nullptr));
  });
}

TEST_CASE("experts are excluded, or the router says that it cannot") {
  for_examples([](const std::string& spec, const RouterFacts&) {
    Subject s(spec);
    const std::vector<std::uint8_t> out{0, 1, 0, 1, 0, 0};
    if (!capability<ExcludesExperts>(*s.router)) {
      CHECK_THROWS_WITH(exclude_experts(*s.router, out), Catch::Contains("zc_exclude_zero=1"));
      return;
    }
    exclude_experts(*s.router, out);
    if (spec.find("weights=trace") != spec.npos)
      return;  // a trace weighs them as it did
    const Routing r = s.route(false);
    for (Index i = 0; i < r.expert.size(); ++i)
      CHECK((r.expert.data()[i] != 1 || r.weight.data()[i] == 0));
  });
}

TEST_CASE("who reroutes ranks its own choices first") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    Subject s(spec);
    const auto* ranking = capability<Reroutes>(*s.router);
    if (!ranking || f.every_group)
      return;
    const Routing r = s.route(false);
    std::vector<double> key(static_cast<std::size_t>(experts));
    std::vector<int> best(std::size_t(f.k));
    for (Index t = 0; t < tokens; ++t) {
      ranking->rank(r, t, key);
      best_of(key, best);
      CHECK(std::ranges::equal(best, r.expert.row(t)));
      CHECK(ranking->ranks_all() == (f.groups == 1 && s.router->choice_sets().empty()));
      CHECK(ranking->weight_of(r, t, r.expert(t, 0)) == Approx(r.weight(t, 0)));
    }
  });
}

TEST_CASE("who weighs by the chosen alone gives no other logit a gradient") {
  for_examples([](const std::string& spec, const RouterFacts& f) {
    Subject s(spec);
    const auto* chosen = capability<WeighsChosen>(*s.router);
    if (!chosen || !chosen->by_chosen_alone())
      return;
    const Routing r = s.route(false);
    Rng rng(9);
    Matrix<double> dweight(tokens, f.k), dz(tokens, f.k, 1);
    for (double& v : dweight.flat())
      v = rng.normal();
    const RouterInput in{.scores = s.scores, .batch = s.batch};
    std::vector<Matrix<double>> all{Matrix<double>(tokens, experts)};
    s.router->backward(in, r, dweight, {}, all);
    chosen->chosen_backward(in, r, dweight, dz);
    for (Index t = 0; t < tokens; ++t) {
      for (int j = 0; j < f.k; ++j) {
        if (r.expert(t, j) >= 0)
          all[0](t, r.expert(t, j)) -= dz(t, j);
      }
      for (const double left : all[0].row(t))
        CHECK(std::abs(left) < 1e-14);
    }
  });
}

TEST_CASE("a router whose user says k chooses as many under another k, and no other is given one") {
  for_examples(check_other_k);
}
