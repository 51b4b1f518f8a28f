#include "apps/bench/layer_profile.h"

#include <algorithm>

#include "lib/core/profile.h"

namespace moe {
namespace {

// Adds the time of every span of the first thread, less that of the spans inside it.
void add_spans(const std::string& pass, const std::vector<Profile::Event>& events,
               std::vector<PartTime>& parts) {
  std::vector<const Profile::Event*> open;
  const auto add = [&](const char* name, double nanoseconds) {
    const auto same = [&](const PartTime& p) {
      return p.pass == pass && p.part == name;
    };
    auto at = std::ranges::find_if(parts, same);
    if (at == parts.end())
      at = parts.insert(parts.end(), {pass, name});
    at->seconds += nanoseconds * 1e-9;
  };
  for (const Profile::Event& e : events) {
    if (e.thread != 0)
      continue;
    while (!open.empty() && open.back()->end <= e.begin)
      open.pop_back();
    const double took = double(e.end - e.begin);
    add(e.name, took);
    if (!open.empty())
      add(open.back()->name, -took);
    open.push_back(&e);
  }
}

}  // namespace

std::vector<PartTime> parts_of_passes(const std::vector<PassToProfile>& passes,
                                      const std::function<void()>& settle, double budget) {
  for (const PassToProfile& p : passes)
    p.run();
  std::vector<PartTime> parts;
  double spent = 0;
  int rounds = 0;
  for (; rounds < 3 || (spent < budget && rounds < 1000); ++rounds) {
    for (const PassToProfile& p : passes) {
      Profile profile(settle);
      profile.record(true);
      {
        const ProfileAtWork at_work(&profile);
        const TimeSpan all("between them");
        p.run();
      }
      spent += double(profile.take().sum()) * 1e-9;
      add_spans(p.name, profile.take_events(), parts);
    }
  }
  for (PartTime& p : parts)
    p.seconds /= rounds;
  return parts;
}

}  // namespace moe
