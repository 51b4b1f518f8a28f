// Claims: their arithmetic, what they refuse, and what a verdict says of values that are known.
#include "lib/study/claim.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "analysis/curves/spikes.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/study/outcome.h"

using namespace moe;

namespace {

double nine(const std::string&, const std::string& arm) {
  return arm == "a" ? 9 : 3;
}

// A study of two arms whose losses are given.
Study two_arms(const std::string& holds, double matters, std::size_t seeds) {
  Study s;
  s.name = "planted";
  s.question = "Is b better?";
  s.arms = {{.name = "a"}, {.name = "b"}};
  s.baseline = "a";
  s.measures = {{"loss", "loss", ""}};
  s.claims = {{"b is better", holds, matters}};
  for (std::size_t r = 1; r <= seeds; ++r)
    s.seeds.push_back(r);
  return s;
}

// What seeds have in common is large, what arms add small: b is a less `effect`.
Measured planted(std::size_t seeds, double effect, std::uint64_t experiment) {
  Rng rng(experiment, 77);
  Measured m{.name = "loss", .title = "loss", .unit = "nats"};
  m.values.resize(2);
  for (std::size_t r = 0; r < seeds; ++r) {
    m.repetitions.push_back(r + 1);
    const double seed = 3 + 0.2 * rng.normal();
    m.values[0].push_back(seed + 0.02 * rng.normal());
    m.values[1].push_back(seed - effect + 0.02 * rng.normal());
  }
  return m;
}

ClaimVerdict verdict(const Study& s, Measured m) {
  return judged(s, {std::move(m)}).verdicts.at(0);
}

}  // namespace

TEST_CASE("claims are arithmetic over measures of arms") {
  CHECK(Condition("loss[a] - loss[b] > 0").left(nine) == 6);
  CHECK(Condition("(loss[a] + 3) / loss[b] * 2 < 1").left(nine) == 8);
  CHECK(Condition("-loss[a] < 2 - 4").right(nine) == -2);
  CHECK(Condition("min(loss[a], 5, 7) > 1e-1").left(nine) == 5);
  CHECK(Condition("max(ln(1), abs(-loss[b])) > 0").left(nine) == 3);
  const Condition within("loss[a] = loss[b] within 0.5");
  CHECK(within.relation() == Condition::Relation::within);
  CHECK(within.width() == 0.5);
  CHECK(!within.right_is_constant());
}

TEST_CASE("what is no claim is refused with the place where it ends to make sense") {
  for (const char* text : {"", "loss > 0", "loss[a]", "loss[a] >", "loss[a > 0", "3 > 2",
                           "loss[a] > 0 extra", "loss[a] = 2", "loss[a] = 2 within 0",
                           "sin(loss[a]) > 0", "abs(loss[a], 2) > 0", "((loss[a] > 0"}) {
    INFO(text);
    CHECK_THROWS_AS(Condition(text), Error);
  }
}

TEST_CASE("a claim that speaks of arms or measures that are not there is refused") {
  const Study s = two_arms("loss[a] > 0", 0, 3);
  CHECK_NOTHROW(Condition("loss[a] > loss[b]").refuse_unknown(s));
  CHECK_THROWS_AS(Condition("loss[c] > 0").refuse_unknown(s), Error);
  CHECK_THROWS_AS(Condition("los[a] > 0").refuse_unknown(s), Error);
}

TEST_CASE("two equal arms differ in at most 10 of 100 studies, and a planted effect is found") {
  for (const std::size_t seeds : {3u, 5u}) {
    const Study s = two_arms("loss[a] - loss[b] > 0", 0, seeds);
    int claimed = 0;
    int told = 0;
    int found = 0;
    for (std::uint64_t i = 0; i < 100; ++i) {
      const Outcome equal = judged(s, {planted(seeds, 0, i)});
      claimed += equal.verdicts[0].answer == Answer::holds ? 1 : 0;
      told += equal.comparisons[0][1].stands_out ? 1 : 0;
      found += verdict(s, planted(seeds, 0.2, 1000 + i)).answer == Answer::holds ? 1 : 0;
    }
    INFO(seeds << " seeds");
    CHECK(claimed <= 10);
    CHECK(told <= 10);
    CHECK(found >= (seeds == 3 ? 70 : 98));
  }
}

TEST_CASE("of five equal arms at most 10 of 100 studies tell any from the baseline") {
  int told = 0;
  for (std::uint64_t i = 0; i < 100; ++i) {
    Study s = two_arms("loss[a] > 0", 0, 4);
    Measured m = planted(4, 0, 5000 + i);
    for (const char* name : {"c", "d", "e"}) {
      s.arms.push_back({.name = name});
      m.values.push_back(planted(4, 0, 6000 + 10 * i + std::uint64_t(name[0])).values[1]);
    }
    bool any = false;
    const Outcome all = judged(s, {m});
    for (const ArmComparison& c : all.comparisons[0])
      any = any || c.stands_out;
    told += any ? 1 : 0;
  }
  CHECK(told <= 10);
}

TEST_CASE("a verdict says no where an effect that matters is excluded") {
  const Study s = two_arms("loss[a] - loss[b] > 0", 0.1, 5);
  Measured m = planted(5, 0.02, 1);
  for (std::size_t r = 0; r < 5; ++r)
    m.values[1][r] = m.values[0][r] - 0.02 - 0.001 * double(r);
  const ClaimVerdict v = verdict(s, m);
  CHECK(v.answer == Answer::fails);
  CHECK(v.sentence.find("smaller than the 0.1 that would matter") != std::string::npos);
  for (std::size_t r = 0; r < 5; ++r)
    m.values[1][r] = m.values[0][r] + 0.01 * (double(r) - 2.1);
  const ClaimVerdict around_zero = verdict(s, m);
  CHECK(around_zero.answer == Answer::fails);
  CHECK(around_zero.sentence.find("one of the 0.1 that would matter is excluded") !=
        std::string::npos);
}

TEST_CASE("what is not decided says how many seeds would decide it") {
  const Study s = two_arms("loss[a] - loss[b] > 0", 0, 3);
  Measured m = planted(3, 0, 1);
  m.values = {{3.1, 3.0, 3.2}, {3.0, 3.05, 3.1}};
  const ClaimVerdict v = verdict(s, m);
  REQUIRE(v.answer == Answer::open);
  // mean 0.05, deviation 0.0866: t(0.05; 14) 0.0866 / sqrt(15) = 0.0480 is the first below 0.05
  CHECK(v.needed == 15);
  CHECK(v.sentence.find("about 15 seeds would decide it") != std::string::npos);
}

TEST_CASE("one seed decides nothing") {
  const Study s = two_arms("loss[a] - loss[b] > 0", 0, 1);
  const ClaimVerdict v = verdict(s, planted(1, 5, 1));
  CHECK(v.answer == Answer::open);
  CHECK(v.sentence.find("one repetition shows no scatter") != std::string::npos);
}

TEST_CASE("equality within a width holds, fails or stays open") {
  const Study s = two_arms("loss[a] = loss[b] within 0.05", 0, 3);
  Measured m = planted(3, 0, 1);
  m.values = {{3.0, 3.1, 3.2}, {3.001, 3.1, 3.199}};
  CHECK(verdict(s, m).answer == Answer::holds);
  m.values = {{3.0, 3.1, 3.2}, {3.5, 3.6, 3.701}};
  CHECK(verdict(s, m).answer == Answer::fails);
  m.values = {{3.0, 3.1, 3.2}, {3.1, 3.0, 3.2}};
  CHECK(verdict(s, m).answer == Answer::open);
}

TEST_CASE("a spike of the loss stands out from the noise before it, at any level and slope") {
  TrainingLog log;
  Rng rng(3);
  for (int step = 1; step <= 200; ++step) {
    const double bump = step == 80 || step == 81 ? 0.9 : step == 150 ? 0.4 : 0;
    log.points.push_back({.step = step,
                          .figure = "loss",
                          .domain = {},
                          .value = 5 - 0.002 * step + 0.03 * rng.normal() + bump});
  }
  CHECK(loss_spikes(log) == std::vector<std::int64_t>{80, 150});
  CHECK(loss_spikes(log, 100).empty());
  for (LogPoint& p : log.points)
    p.value = 7;
  CHECK(loss_spikes(log).empty());
}
