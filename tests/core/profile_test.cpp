// Time by part: every moment is counted once, spans nest, threads of loops have tracks of their
// own, and without a profile at work nothing is kept.
#include "lib/core/profile.h"

#include <catch2/catch.hpp>
#include <numeric>
#include <thread>

#include "lib/core/parallel.h"

using namespace moe;

namespace {

void spend(std::int64_t microseconds) {
  const auto until = Profile::Clock::now() + std::chrono::microseconds(microseconds);
  while (Profile::Clock::now() < until) {
  }
}

std::int64_t of(const Profile::Times& t, TimePart p) {
  return t.part[std::size_t(p)];
}

}  // namespace

TEST_CASE("parts of the time add up to the whole, and a span's own time is without those in it") {
  Profile profile;
  const std::int64_t before = profile.now();
  {
    const ProfileAtWork at_work(&profile);
    const TimeSpan step(TimePart::rest, "step");
    spend(2000);
    {
      const TimeSpan exchange(TimePart::exchange, "dispatch");
      spend(1000);
      {
        const TimeSpan plan(TimePart::plan, "plan");
        spend(4000);
      }
    }
    const TimeSpan layer("layer", 3);  // of the part around it
    spend(1000);
  }
  const std::int64_t whole = profile.now() - before;
  const Profile::Times t = profile.take();
  CHECK(of(t, TimePart::plan) >= 4'000'000);
  CHECK(of(t, TimePart::exchange) >= 1'000'000);
  CHECK(of(t, TimePart::rest) >= 3'000'000);
  CHECK(of(t, TimePart::products) == 0);
  CHECK(t.sum() <= whole);
  // to the last nanosecond what lies in the outermost span
  CHECK(t.sum() == std::accumulate(t.part.begin(), t.part.end(), std::int64_t(0)));
  CHECK(t.sum() >= 8'000'000);
  CHECK(profile.take().sum() == 0);
  CHECK(profile.take_events().empty());  // nothing was to be recorded
}

TEST_CASE("the time of a step is that of its parts to the nanosecond") {
  Profile profile;
  profile.record(true);
  {
    const ProfileAtWork at_work(&profile);
    const TimeSpan step(TimePart::rest, "step");
    for (int i = 0; i < 50; ++i) {
      const TimeSpan routing(TimePart::routing, "route", i);
      const TimeSpan plan(TimePart::plan, "plan");
    }
  }
  const std::int64_t sum = profile.take().sum();
  const std::vector<Profile::Event> events = profile.take_events();
  REQUIRE(events.size() == 101);
  CHECK(std::string(events[0].name) == "step");
  CHECK(events[0].end - events[0].begin == sum);
  for (const Profile::Event& e : events) {
    CHECK(e.begin >= events[0].begin);
    CHECK(e.end <= events[0].end);
    CHECK(e.begin <= e.end);
  }
}

TEST_CASE("a span belongs to the thread's own profile, and to none where none is at work") {
  Profile one, two;
  const ProfileAtWork outer(&one);
  {
    const ProfileAtWork inner(&two);
    const TimeSpan time(TimePart::data, "data");
    std::thread other([] {
      CHECK(Profile::at_work() == nullptr);
      const TimeSpan unseen(TimePart::routing, "route");
      spend(100);
    });
    other.join();
  }
  CHECK(Profile::at_work() == &one);
  CHECK(one.take().sum() == 0);
  const Profile::Times t = two.take();
  CHECK(of(t, TimePart::data) > 0);
  CHECK(of(t, TimePart::routing) == 0);
}

TEST_CASE(
    "a device is waited for at both ends of a span, and one that fails does not end the program") {
  int waits = 0;
  Profile profile([&] { ++waits; });
  const ProfileAtWork at_work(&profile);
  {
    const TimeSpan time(TimePart::products, "experts");
    CHECK(waits == 1);
  }
  CHECK(waits == 2);
  bool broken = false;
  Profile failing([&] {
    if (broken)
      throw 1;
  });
  const ProfileAtWork now(&failing);
  {
    const TimeSpan time(TimePart::products, "experts");
    broken = true;
  }
  CHECK(failing.take().sum() > 0);
  CHECK_THROWS(TimeSpan(TimePart::products, "experts"));
}

TEST_CASE(
    "shares of a parallel loop lie inside the span around it, on the tracks of their threads") {
  const int before = threads();
  set_threads(3);
  Profile profile;
  profile.record(true);
  std::vector<int> seen(64, 0);
  {
    const ProfileAtWork at_work(&profile);
    const TimeSpan time(TimePart::products, "experts", 1);
    parallel_for(64, 1, [&](Index first, Index) {
      spend(50);
      ++seen[std::size_t(first)];
    });
  }
  set_threads(before);
  CHECK(seen == std::vector<int>(64, 1));
  const std::vector<Profile::Event> events = profile.take_events();
  REQUIRE(events.size() == 4);  // the span, and a share of each thread
  CHECK(events[0].thread == 0);
  std::vector<int> tracks;
  for (const Profile::Event& e : events) {
    CHECK(std::string(e.name) == "experts");
    CHECK(e.number == 1);
    CHECK(e.begin >= events[0].begin);
    CHECK(e.end <= events[0].end);
    tracks.push_back(e.thread);
  }
  CHECK(tracks == std::vector<int>{0, 0, 1, 2});
}
