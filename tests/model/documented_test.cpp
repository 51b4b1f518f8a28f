// docs/models.md names the families that are read with what each was compared with, and the fields
// of a model.
#include <catch2/catch.hpp>
#include <set>

#include "lib/family/families.h"
#include "lib/model/mixer_type.h"
#include "tests/page.h"

using namespace moe;
using namespace moe::test;

TEST_CASE("the page of models lists every family with what it was compared with") {
  std::vector<std::string> names;
  for (const Cells& row : table_of("models.md", {"family", "verified by"})) {
    std::string name = row.at(0).substr(0, row.at(0).find(" ("));
    const auto comma = name.find(", ");
    std::vector<std::string> of_row = {name.substr(0, comma)};
    if (comma != name.npos)
      of_row.push_back(name.substr(comma + 2));
    for (const std::string& family : of_row) {
      INFO(family);
      names.push_back(family);
      const auto found = std::ranges::find(families(), family, &Family::name);
      REQUIRE(found != families().end());
      const bool remade = row.at(1).starts_with("remade");
      CHECK(found->verified == (remade ? Verified::remade : Verified::by_class));
    }
  }
  std::vector<std::string> expected;
  for (const Family& family : families()) {
    if (family.verified != Verified::own)
      expected.emplace_back(family.name);
  }
  std::ranges::sort(names);
  std::ranges::sort(expected);
  CHECK(names == expected);
}

TEST_CASE("the page of models names fields that a model has") {
  std::set<std::string> has;
  const std::string all = to_full_spec(model_config("tiny"));
  for (const std::string& option : options_of(all))
    has.insert(key_of(option));
  // and of a decoder alone nothing of encoders
  for (const std::string& option : options_of(to_spec(model_config("t5-toy"))))
    has.insert(key_of(option));
  int seen = 0;
  for (const Cells& row : table_of("models.md", {"field", "meaning"})) {
    for (const std::string& field : code_spans(row.at(0))) {
      INFO(field);
      CHECK(has.count(key_of(field)) == 1);
      ++seen;
    }
  }
  CHECK(seen > 20);
}

TEST_CASE("the page of mixers lists every mixer with its options and their defaults") {
  std::vector<std::string> names;
  for (const Cells& row : table_of("mixers.md", {"mixer", "options"})) {
    const std::string name = code_spans(row.at(0)).at(0);
    INFO(name);
    names.push_back(name);
    const auto& entry = mixers().at(name);
    Spec spec(name);
    entry.make(spec);
    const std::vector<std::string> options = options_of(spec.resolved());
    if (options.empty())
      CHECK(row.at(1).starts_with("none"));
    else
      CHECK(code_spans(row.at(1)) == options);
  }
  std::vector<std::string> all;
  for (const auto& e : mixers().entries())
    all.emplace_back(e.name);
  CHECK(names == all);
}
