#include "lib/core/profile.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace moe {

const char* name_of(TimePart part) {
  static constexpr std::array<const char*, time_parts> names = {
      "routing", "plan",      "exchange", "products", "mixer",
      "output",  "optimiser", "data",     "ranks",    "rest"};
  return names[std::size_t(part)];
}

std::int64_t Profile::Times::sum() const {
  return std::accumulate(part.begin(), part.end(), std::int64_t(0));
}

Profile::Profile(std::function<void()> settle) : settle_(std::move(settle)), events_(1) {}

Profile::Times Profile::take() {
  return std::exchange(times_, {});
}

std::vector<Profile::Event> Profile::take_events() {
  std::vector<Event> out;
  for (std::vector<Event>& of_thread : events_) {
    // spans end before those around them, and are read from the outermost on
    std::ranges::reverse(of_thread);
    std::ranges::stable_sort(of_thread, [](const Event& a, const Event& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
    });
    out.insert(out.end(), of_thread.begin(), of_thread.end());
    of_thread.clear();
  }
  return out;
}

std::int64_t Profile::pass_time() {
  const std::int64_t at = now();
  if (!open_.empty())
    times_.part[std::size_t(open_.back().part)] += at - mark_;
  mark_ = at;
  return at;
}

void Profile::enter(TimePart part, const char* name, int number) {
  if (settle_)
    settle_();
  const std::int64_t at = pass_time();
  open_.push_back({name, number, part, at});
}

void Profile::enter(const char* name, int number) {
  enter(open_.empty() ? TimePart::rest : open_.back().part, name, number);
}

void Profile::leave() {
  try {
    if (settle_)
      settle_();
  } catch (...) {
    // spans end while errors pass as well; a device that failed says so to whoever asks it next
  }
  const std::int64_t at = pass_time();
  const Open o = open_.back();
  open_.pop_back();
  if (recording_)
    events_[0].push_back({o.name, o.number, o.part, 0, o.begin, at});
}

void Profile::expect_threads(int n) {
  if (std::size_t(n) > events_.size())
    events_.resize(std::size_t(n));
}

void Profile::add_share(int thread, std::int64_t begin) {
  if (open_.empty())
    return;
  const Open& around = open_.back();
  events_[std::size_t(thread)].push_back(
      {around.name, around.number, around.part, thread, begin, now()});
}

}  // namespace moe
