#include "lib/run/profiling.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

// The folder of a new run may have yet to be made, and holds no file then.
void refuse_file(const ProfileOptions& o, const fs::path& folder) {
  const fs::path in = fs::absolute(o.trace).lexically_normal().parent_path();
  const fs::path of_run = (fs::absolute(folder) / "").lexically_normal().parent_path();
  if (in != of_run || fs::exists(of_run))
    refuse_existing(o.trace, o.force);
}

using Line = nlohmann::ordered_json;

// A name of a process or a thread.
Line named(const char* what, int rank, int thread, const std::string& name) {
  return {{"ph", "M"}, {"name", what}, {"pid", rank}, {"tid", thread}, {"args", {{"name", name}}}};
}

Line event_line(const Profile::Event& e, int rank) {
  constexpr double ns_per_us = 1000;
  const std::string name = e.number < 0 ? e.name : concat(e.name, " ", e.number);
  return {{"ph", "X"},
          {"name", name},
          {"cat", name_of(e.part)},
          {"pid", rank},
          {"tid", e.thread},
          {"ts", double(e.begin) / ns_per_us},
          {"dur", double(e.end - e.begin) / ns_per_us}};
}

}  // namespace

ProfileOptions settled(ProfileOptions o, Index done, Index horizon, const fs::path& folder) {
  if (o.trace.empty())
    return o;
  refuse_file(o, folder);
  const Index left = horizon - done;
  if (left < 1)
    throw Error(Exit::usage, "no step is made, so there is none to profile");
  if (o.first == 0) {
    o.first = done + (left > 1 ? 2 : 1);
    o.last = std::min(horizon, o.first + 2);
  }
  if (o.first <= done || o.last > horizon || o.last < o.first) {
    throw Error(Exit::usage,
                concat("the steps ", o.first, " to ", o.last,
                       " cannot be profiled: this run makes the steps ", done + 1, " to ", horizon))
        .hint(concat("--profile-trace ", o.trace, ",steps=", done + 1, "-",
                     std::min(horizon, done + 3)));
  }
  return o;
}

std::string chrome_trace(const std::vector<Profile::Event>& events, int rank) {
  std::set<int> threads;
  for (const Profile::Event& e : events)
    threads.insert(e.thread);
  Line all = Line::array();
  all.push_back(named("process_name", rank, 0, concat("moe train, rank ", rank)));
  for (const int t : threads)
    all.push_back(named("thread_name", rank, t, t == 0 ? "main" : concat("thread ", t)));
  for (const Profile::Event& e : events)
    all.push_back(event_line(e, rank));
  const Line out = {{"displayTimeUnit", "ms"}, {"traceEvents", std::move(all)}};
  return out.dump() + "\n";
}

}  // namespace moe
