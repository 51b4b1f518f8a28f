// docs/routers.md says which options each router, balancer and capacity rule has and what they are
// by default: so does the program, and nothing else.
#include <catch2/catch.hpp>
#include <set>
#include <sstream>

#include "lib/balance/balancer.h"
#include "lib/router/capacity.h"
#include "lib/router/router.h"
#include "tests/page.h"

using namespace moe;
using namespace moe::test;

namespace {

const char* const page = "routers.md";

std::string resolved_router(const std::string& spec, int experts = 8) {
  std::string resolved;
  make_router(spec, experts, resolved);
  return resolved;
}

// Options that `spec` has and the name alone has not, but for those that `spec` gives.
std::vector<std::string> added(const std::string& spec, const std::set<std::string>& known) {
  std::set<std::string> given;
  for (const std::string& option : options_of(spec))
    given.insert(key_of(option));
  std::vector<std::string> out;
  for (const std::string& option : options_of(resolved_router(spec))) {
    if (!known.count(key_of(option)) && !given.count(key_of(option)))
      out.push_back(option);
  }
  return out;
}

// "`bias=1`: `bias_on=score`; `groups=2`: ..." for a router; returns every option named in it.
std::set<std::string> check_conditions(const std::string& name, const std::string& cell,
                                       const std::set<std::string>& known) {
  std::set<std::string> out;
  std::istringstream in(cell);
  for (std::string part; std::getline(in, part, ';');) {
    const std::size_t colon = part.find("`:");
    REQUIRE(colon != part.npos);
    const std::string condition = code_spans(part).at(0);
    INFO(name << " with " << condition);
    std::vector<std::string> listed;
    for (const std::string& option : code_spans(part.substr(colon + 1))) {
      if (option.find('=') != option.npos)
        listed.push_back(option);
    }
    CHECK(listed == added(name + ":" + condition, known));
    out.insert(key_of(condition));
    for (const std::string& option : listed)
      out.insert(key_of(option));
  }
  return out;
}

template <class Registry, class Resolve>
void check_table(const std::string& kind, const Registry& registry, const Resolve& resolve) {
  std::vector<std::string> names;
  for (const Cells& row : table_of(page, {kind, "options and defaults"})) {
    names.push_back(code_spans(row.at(0)).at(0));
    INFO(kind << ' ' << names.back());
    std::string resolved;
    resolve(names.back(), resolved);
    CHECK(code_spans(row.at(1)) == options_of(resolved));
  }
  std::vector<std::string> expected = registry.names();
  std::ranges::sort(names);
  std::ranges::sort(expected);
  CHECK(names == expected);
}

}  // namespace

TEST_CASE("the page of routers lists every option with its default") {
  std::vector<std::string> names;
  for (const Cells& row : table_of(page, {"router", "options and defaults"})) {
    const std::string name = code_spans(row.at(0)).at(0);
    names.push_back(name);
    INFO(name);
    const std::vector<std::string> listed = code_spans(row.at(1));
    const bool needed = row.at(1).find("(needed)") != std::string::npos;
    const std::string alone = needed ? name + ":" + listed.at(0) : name;
    CHECK(options_of(resolved_router(alone)) == listed);
    std::set<std::string> known;
    for (const std::string& option : listed)
      known.insert(key_of(option));
    known.merge(check_conditions(name, row.at(2), known));
    // the examples of the registry (for 6 experts) bring nothing that the page does not name
    std::istringstream examples{std::string(routers().at(name).examples)};
    for (std::string spec; examples >> spec;) {
      for (const std::string& option : options_of(resolved_router(spec, 6)))
        CHECK(known.count(key_of(option)) == 1);
    }
  }
  std::vector<std::string> expected = routers().names();
  std::ranges::sort(names);
  std::ranges::sort(expected);
  CHECK(names == expected);
}

TEST_CASE("the page of routers lists the defaults of balancers and capacity rules") {
  check_table("balancer", balancers(), [](const std::string& name, std::string& resolved) {
    make_balancer(name, resolved);
  });
  check_table("capacity rule", capacities(), [](const std::string& name, std::string& resolved) {
    make_capacity(name, resolved);
  });
}

TEST_CASE("every router, balancer and capacity rule is described on the page") {
  const auto described = [](const Cells& head) {
    std::vector<std::string> out;
    for (const Cells& row : table_of(page, head)) {
      for (const std::string& name : code_spans(row.at(0)))
        out.push_back(name);
    }
    std::ranges::sort(out);
    return out;
  };
  std::vector<std::string> expected = routers().names();
  std::erase(expected, "replay");  // has a paragraph of its own
  std::ranges::sort(expected);
  CHECK(described({"name", "who, and with which weight"}) == expected);
  expected = balancers().names();
  std::ranges::sort(expected);
  CHECK(described({"name", "what"}) == expected);
  expected = capacities().names();
  std::ranges::sort(expected);
  CHECK(described({"name", "who loses when an expert is full"}) == expected);
}
