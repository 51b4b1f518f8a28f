// moe eval --without-expert each and pair: pairs, a measurement that was stopped and goes on, and
// the result in the report of a trace.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/cli/interposed.h"

namespace moe::cli {
namespace {

using nlohmann::json;

constexpr const char* data = " --data text:path=corpus,split=valid --tokens 600 --length 32";

const json& named(const json& list, const char* key, const std::string& name) {
  for (const json& one : list) {
    if (one.at(key) == name)
      return one;
  }
  FAIL("no " << name);
  return list;
}
const json& table(const json& report, const std::string& id) {
  return named(report.at("tables"), "id", id);
}
std::vector<double> column(const json& t, const std::string& name) {
  return named(t.at("columns"), "name", name).at("values").get<std::vector<double>>();
}

Result good(const Folder& f, const std::string& words) {
  Result r = f.run(words);
  INFO("moe " << words << "\n" << r.out << r.err);
  REQUIRE(r.code == 0);
  return r;
}

json result_of(const Folder& f, const std::string& words, const std::string& file) {
  good(f, words + " -o " + file);
  return json::parse(text_of(f / file));
}

void refused(const Folder& f, const std::string& words, int code, const std::string& part) {
  const Result r = f.run(words);
  INFO("moe " << words << "\n" << r.err);
  CHECK(r.code == code);
  CHECK(r.err.find(part) != r.err.npos);
}

}  // namespace

TEST_CASE("pairs of experts are measured within a budget, beside what each is worth alone") {
  const Folder f;
  good(f, nano + " --steps 3 -o a");
  const json r =
      result_of(f, std::string("eval a --without-expert pair --pairs 4") + data, "pairs.json");
  CHECK_FALSE(fs::exists(f / "pairs.json.part"));
  const json& pairs = table(r, "expert_pairs");
  CHECK(pairs.at("rows") == 4);
  CHECK(pairs.at("warnings")[0].get<std::string>().find(
            "4 of 56 pairs were measured, in each layer those that most tokens choose together; "
            "the other 52 were left out") != std::string::npos);
  const auto layer = column(pairs, "layer");
  CHECK(std::ranges::count(layer, 0) == 2);  // as many in each layer
  const auto together = column(pairs, "together");
  CHECK(together[0] >= together[2]);
  const json& each = table(r, "expert_worth");
  REQUIRE(each.at("rows") == 16);
  const auto alone = column(each, "change");
  const int one = int(column(pairs, "expert")[1]);
  const int other = int(column(pairs, "and")[1]);
  const std::string list = "1:" + std::to_string(one) + ",1:" + std::to_string(other);
  const json both = result_of(f, "eval a --without-expert " + list + data, "both.json");
  const double change = column(table(both, "knock_out_" + list), "change").back();
  CHECK(column(pairs, "change")[1] == Approx(change).margin(1e-9));
  CHECK(column(pairs, "beyond")[1] ==
        Approx(change - alone[std::size_t(8 + one)] - alone[std::size_t(8 + other)]).margin(1e-9));
  const json& foretold = table(r, "worth_foretold");
  CHECK(foretold.at("rows") == 3);  // load, REAP score, the other half
  for (const double rho : column(foretold, "within layers"))
    CHECK(std::abs(rho) <= 1);
  refused(f, std::string("eval a --pairs 4") + data, 2, "--without-expert pair");
  refused(f, std::string("eval a --without-expert each --pairs 4") + data, 2, "none is asked for");
}

TEST_CASE("a measurement of experts that was killed goes on, to the same bytes") {
  const Folder f;
  good(f, nano + " --steps 3 -o a");
  good(f, nano + " --steps 3 -o b --seed 2");
  const std::string words = std::string("eval a --without-expert pair --pairs 2 -o w.json") + data;
  good(f, words);
  const std::string whole = text_of(f / "w.json");
  const fs::path part = f / "w.json.part";
  fs::remove(f / "w.json");
  const int calls = calls_of(f, words, part);
  REQUIRE(calls > 10);
  fs::remove(f / "w.json");
  for (const int at : {0, calls / 2, calls - 2}) {
    INFO("killed at call " << at << " of " << calls);
    CHECK(f.run(words, interposed(part, "kill", at)).code == 128 + 9);
    CHECK_FALSE(fs::exists(f / "w.json"));
    const Result again = good(f, words);
    CHECK((again.err.find("going on behind") != again.err.npos) == (at > 2));
    CHECK(text_of(f / "w.json") == whole);
    CHECK_FALSE(fs::exists(part));
    fs::remove(f / "w.json");
  }
  // stopped in order, then a line cut short as by a full disk
  const Result stopped = f.run(words, interposed(part, "signal:15", calls / 2));
  CHECK(stopped.code == 128 + 15);
  CHECK(stopped.err.find("the same command goes on behind them") != stopped.err.npos);
  fs::resize_file(part, fs::file_size(part) - 40);
  const std::string kept = text_of(part);
  refused(f, std::string("eval b --without-expert pair --pairs 2 -o w.json") + data, 3,
          "holds losses of another model");
  refused(f, words + " --renormalise", 3, "other options");
  CHECK(text_of(part) == kept);
  good(f, words);
  CHECK(text_of(f / "w.json") == whole);
  put(part, "something else\n");
  fs::remove(f / "w.json");
  refused(f, words, 3, "w.json.part");
  good(f, words + " --force");
  CHECK_FALSE(fs::exists(part));
}

TEST_CASE("what experts are worth stands in the report of a trace, with what foretells it") {
  const Folder f;
  good(f, nano + " --steps 3 -o a");
  good(f, nano + " --steps 3 -o b --seed 2");
  const json worth = result_of(f, std::string("eval a --without-expert each") + data, "worth.json");
  for (const std::string run : {"a", "b"})
    good(f, "trace " + run + " --out-norm -o " + run + ".h5" + data);
  const json r = result_of(f, "report a.h5 --worth worth.json", "a.json");
  const json& t = table(r, "expert_worth");
  CHECK(t.at("section") == table(r, "redundancy").at("section"));
  CHECK(column(t, "change") == column(table(worth, "expert_worth"), "change"));
  const auto traced = column(t, "adds");
  const auto evaluated = column(table(worth, "expert_worth"), "REAP score");
  REQUIRE(traced.size() == evaluated.size());
  for (std::size_t i = 0; i < traced.size(); ++i)
    CHECK(traced[i] == Approx(evaluated[i]).epsilon(2e-3).margin(1e-9));  // weights stored as f16
  std::string figures;
  for (const json& name :
       named(table(r, "worth_foretold").at("columns"), "name", "figure").at("values"))
    figures += name.get<std::string>() + ", ";
  CHECK(figures ==
        "load, REAP score, loss of its tokens, likeness to another expert, the other half of the "
        "text, ");
  good(f, "report a.h5 --worth worth.json -o a.html");
  CHECK(text_of(f / "a.html").find("What every expert is worth") != std::string::npos);
  refused(f, "report b.h5 --worth worth.json", 3, "was measured on the weights");
  refused(f, "report a.h5 --worth a.h5", 3, "a.h5");
  put(f / "other.json", "{\"tables\": []}");
  refused(f, "report a.h5 --worth other.json", 3, "is no result of moe eval");
  refused(f, "report a.h5 b.h5 --worth worth.json", 2, "a single trace");
}

}  // namespace moe::cli
