// moe eval of several models, and of every expert in turn: paired differences that say what they
// are worth.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moe::cli {
namespace {

using nlohmann::json;

json table(const json& report, const std::string& id) {
  for (const json& t : report.at("tables")) {
    if (t.at("id") == id)
      return t;
  }
  FAIL("no table " << id);
  return {};
}

json column(const json& t, const std::string& name) {
  for (const json& c : t.at("columns")) {
    if (c.at("name") == name)
      return c;
  }
  FAIL("no column " << name);
  return {};
}

json report_of(const Folder& f, const std::string& words) {
  const Result r = f.run(words + " --format json");
  INFO("moe " << words << "\n" << r.err);
  REQUIRE(r.code == 0);
  return json::parse(r.out);
}

constexpr const char* data = " --data text:path=corpus,split=valid --tokens 600 --length 32";

}  // namespace

TEST_CASE("several models are compared on the same text, with intervals of the differences") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 3 -o a --seed 1").code == 0);
  REQUIRE(f.run(nano + " --steps 3 -o b --seed 2").code == 0);
  const json both = report_of(f, std::string("eval a b") + data);
  const json a = report_of(f, std::string("eval a") + data);
  const json b = report_of(f, std::string("eval b") + data);
  const json losses = table(both, "losses");
  CHECK(column(losses, "a").at("values") == column(table(a, "loss"), "loss").at("values"));
  CHECK(column(losses, "b").at("values") == column(table(b, "loss"), "loss").at("values"));
  const json change = column(table(both, "loss_differences"), "b");
  for (std::size_t d = 0; d < change.at("values").size(); ++d) {
    const double less = column(losses, "b").at("values")[d].get<double>() -
                        column(losses, "a").at("values")[d].get<double>();
    CHECK(change.at("values")[d].get<double>() == Approx(less).margin(1e-9));
    CHECK(change.at("low")[d] <= change.at("values")[d]);
    CHECK(change.at("high")[d] >= change.at("values")[d]);
  }
  const json same = report_of(f, std::string("eval a a") + data);
  CHECK(same.at("findings")[0].get<std::string>().find("no difference can be told") !=
        std::string::npos);
  CHECK(f.run(std::string("eval a b --without-expert 0:1") + data).code == 2);
}

TEST_CASE("every expert is left out in turn, and the sum is a map of what each is worth") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 3 -o a").code == 0);
  const json each = report_of(f, std::string("eval a --without-expert each") + data);
  const json worth = table(each, "expert_worth");
  CHECK(worth.at("rows") == 16);  // two layers of eight
  const json one = report_of(f, std::string("eval a --without-expert 1:3") + data);
  const json changes = column(table(one, "knock_out_1:3"), "change").at("values");
  const json layer = column(worth, "layer").at("values");
  const json expert = column(worth, "expert").at("values");
  double load = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    load += column(worth, "load share").at("values")[i].get<double>();
    if (layer[i] == 1 && expert[i] == 3)
      CHECK(column(worth, "change").at("values")[i].get<double>() ==
            Approx(changes.back().get<double>()).margin(1e-9));
  }
  CHECK(load == Approx(2));                // of each layer 1
  CHECK(each.at("findings").size() == 3);  // what they are worth; do load and REAP foretell it
}

}  // namespace moe::cli
