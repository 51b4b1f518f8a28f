// Every backend of this machine on the whole list of cases, and the same bytes from any number of
// threads.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>
#include <set>

#include "lib/check/check.h"
#include "lib/core/parallel.h"
#include "tests/backend/devices.h"

using namespace moe;

namespace {

struct Threads {  // sets a number of threads and puts the old one back
  explicit Threads(int n) : before(threads()) {
    set_threads(n);
  }
  ~Threads() {
    set_threads(before);
  }
  int before;
};

bool same_bytes(const std::vector<Output>& a, const std::vector<Output>& b) {
  if (a.size() != b.size())
    return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = a[i].value.flat();
    const auto y = b[i].value.flat();
    if (x.size() != y.size() ||
        (!x.empty() && std::memcmp(x.data(), y.data(), x.size_bytes()) != 0)) {
      return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("every backend agrees with the definition on every case") {
  const auto definition = make_backend("reference");
  for (const std::string& name : devices()) {
    if (name == "reference")
      continue;
    const auto device = make_backend(name);
    for (const Case& c : cases()) {
      const Verdict v = compare(c, *device, *definition);
      INFO(device->name() << ": " << v.sentence());
      CHECK(v.passed);
    }
  }
}

TEST_CASE("the cpu backend gives the same bytes with any number of threads") {
  const auto cpu = make_backend("cpu");
  for (const Case& c : cases()) {
    INFO(c.operation << " " << c.shape);
    const Threads one(1);
    const auto want = outcome(c, *cpu);
    for (const int n : {2, 3}) {
      const Threads more(n);
      CHECK(same_bytes(outcome(c, *cpu), want));
    }
  }
}

TEST_CASE("the cases name every operation, forwards and backwards") {
  std::set<std::string> seen;
  for (const Case& c : cases())
    seen.insert(c.operation);
  std::vector<std::string_view> wanted = {"layer", "top_k", "top_k_backward", "add_squares"};
  for (const Operation op : operations())
    wanted.push_back(name_of(op));
  for (const std::string_view name : wanted) {
    INFO(name);
    CHECK(seen.contains(std::string(name)));
  }
}

TEST_CASE("a difference is found, and a NaN never passes") {
  const float good[] = {1, 2, 3, 4};
  const float off[] = {1, 2, 3.5f, 4};
  const float nan[] = {1, std::nanf(""), 3, 4};
  const float inf[] = {1, INFINITY, 3, 4};
  const auto view = [](const float* p) {
    return View<const float>{p, 2, 2};
  };
  CHECK(difference(view(good), view(good)).within(0));
  CHECK(difference(view(off), view(good)).row == 1);
  CHECK(difference(view(off), view(good)).col == 0);
  CHECK(difference(view(off), view(good)).error == Approx(0.25 / 30));
  for (const float* bad : {nan, inf}) {
    CHECK_FALSE(difference(view(bad), view(good)).within(1e30));
    CHECK_FALSE(difference(view(good), view(bad)).within(1e30));
    CHECK_FALSE(difference(view(bad), view(bad)).within(1e30));
  }
  CHECK_FALSE(difference(View<const float>{good, 1, 4}, view(good)).within(1e30));
}
