// Traces played through clusters, caches under traces, and models of many experts.
#include <unistd.h>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>

#include "analysis/synth/synth.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/plan/growth.h"
#include "lib/plan/published.h"
#include "lib/plan/simulate.h"
#include "lib/plan/trace_law.h"

using namespace moe;
using namespace moe::plan;
namespace fs = std::filesystem;

namespace {

// A trace of a pattern, removed again.
class Trace {
 public:
  explicit Trace(const std::string& pattern, SynthShape shape = {}) {
    shape.experts = 8;
    shape.k = 2;
    shape.layers = 2;
    if (shape.tokens == SynthShape{}.tokens)
      shape.tokens = 16384;
    static int number = 0;
    path_ = fs::temp_directory_path() /
            ("moe-plan-" + std::to_string(::getpid()) + "-" + std::to_string(number++) + ".h5");
    write_synth(path_, make_synth(pattern, shape), {}, {});
  }
  ~Trace() {
    fs::remove(path_);
  }
  operator const fs::path&() const {
    return path_;
  }

 private:
  fs::path path_;
};

struct Sum {
  double tokens = 0, seconds = 0, ideal = 0, imbalance = 0;
};
Sum sum_of(const std::vector<SimulatedStep>& steps) {
  Sum out;
  for (const SimulatedStep& s : steps) {
    out.tokens += s.tokens;
    out.seconds += s.seconds;
    out.ideal += s.ideal_s;
    out.imbalance += s.imbalance / double(steps.size());
  }
  return out;
}

Simulation mixtral(const Architecture& a) {
  return {.model = a, .cluster = cluster_of("h100"), .weights = storage_of("bf16")};
}

}  // namespace

TEST_CASE("a simulated step waits for its busiest rank") {
  const Architecture a = describe(*find_published("Mixtral-8x7B"));
  const Trace uniform("uniform");
  const Trace hot("hot:experts=1,share=0.4");
  const std::vector<SimulatedStep> steps = simulate(uniform, mixtral(a));
  REQUIRE(steps.size() == 4);  // of 4,096 tokens
  const Sum even = sum_of(steps);
  const Sum uneven = sum_of(simulate(hot, mixtral(a)));
  CHECK(even.tokens == 16384);
  CHECK(even.imbalance > 1);
  CHECK(even.imbalance < 1.15);
  CHECK(even.ideal <= even.seconds);
  // 0.4 of all choices on one of eight ranks
  CHECK(uneven.imbalance == Approx(0.4 * 8).epsilon(0.02));
  CHECK(uneven.seconds > 1.5 * even.seconds);
  CHECK(uneven.ideal == Approx(even.ideal).epsilon(0.02));
}

TEST_CASE("placing experts anew makes later steps even, and costs what is moved") {
  const Architecture a = describe(*find_published("Mixtral-8x7B"));
  const Trace hot("hot:experts=1,share=0.4");
  Simulation s = mixtral(a);
  const std::vector<SimulatedStep> before = simulate(hot, s);
  s.extra = 8;
  s.rebalance = 1;
  const std::vector<SimulatedStep> after = simulate(hot, s);
  REQUIRE(after.size() == before.size());
  CHECK(after[0].moved_s == 0);
  CHECK(after[1].moved_s > 0);
  CHECK(after[3].imbalance < 0.6 * before[3].imbalance);
  s.extra = 3;
  CHECK_THROWS_AS(simulate(hot, s), Error);  // 11 slots on 8 devices
}

TEST_CASE("a simulation is the same for any number of threads and needs the trace of its model") {
  const Architecture a = describe(*find_published("Mixtral-8x7B"));
  const Trace zipf("zipf:s=1");
  Simulation s = mixtral(a);
  s.extra = 8;
  s.rebalance = 2;
  const int before = threads();
  set_threads(1);
  const Sum one = sum_of(simulate(zipf, s));
  set_threads(4);
  const Sum four = sum_of(simulate(zipf, s));
  set_threads(before);
  CHECK(one.seconds == four.seconds);
  CHECK(one.imbalance == four.imbalance);
  s.most_tokens = 4096;
  CHECK(simulate(zipf, s).size() == 1);
  const Architecture other = describe(*find_published("Qwen3-30B-A3B"));
  CHECK_THROWS_AS(simulate(zipf, {.model = other, .cluster = s.cluster, .weights = s.weights}),
                  Error);
}

TEST_CASE("a trace's chances are its counts, and caches catch what they hold") {
  const Trace hot("hot:experts=2,share=0.5");
  const ChoiceLaw law = law_of_trace(hot, 8, 2);
  REQUIRE(law.layer.size() == 2);
  CHECK(law.layer[0][0] + law.layer[0][1] == Approx(1).epsilon(0.03));  // half of two choices
  CHECK(law.hits_most_used(2) == Approx(0.5).epsilon(0.03));
  CHECK_THROWS_AS(law_of_trace(hot, 16, 2), Error);
  const CacheReplay two = replay_cache(hot, 2, 1 << 20);
  CHECK(two.tokens == 16384);
  CHECK(two.most_used == Approx(0.5).epsilon(0.03));
  CHECK(two.belady >= two.lru);
  CHECK(two.lru == Approx(law.hits_lru(2)).epsilon(0.2));
  // of two layers with two choices
  CHECK(two.missed == Approx(4 * (1 - two.lru)).epsilon(1e-3));
  CHECK(two.missed_p99 >= two.missed_p50);
  const CacheReplay all = replay_cache(hot, 8, 1000);
  CHECK(all.tokens == 1000);
  CHECK(all.missed == Approx(16.0 / 1000));  // each expert once
}

TEST_CASE("a router grows with its experts and what a token does not") {
  const Architecture a = describe(*find_published("Mixtral-8x7B"));
  const std::vector<GrowthPoint> g = growth(a, storage_of("bf16"), 131072);
  REQUIRE(g.size() == 15);  // 8 to 2^17
  CHECK(g.front().parameters == 46'702'792'704);
  CHECK(g.back().experts == 131072);
  CHECK(g.back().router_flops == 2.0 * 32 * 4096 * 131072);
  CHECK(g.back().table_bytes == g.front().table_bytes);
  CHECK(g.back().rows == g.front().rows);
  CHECK(g.back().router_share > 0.5);
  CHECK(g.front().router_share < 1e-3);
  std::vector<double> x, y;
  for (const GrowthPoint& p : g) {
    x.push_back(double(p.experts));
    y.push_back(p.router_flops);
  }
  CHECK(exponent(x, y) == Approx(1));
  CHECK(exponent({1, 2, 4}, {3, 12, 48}) == Approx(2));
  CHECK_THROWS_AS(growth(describe(*find_published("Llama-2-70B")), storage_of("bf16"), 16), Error);
}
