// What if a token chose another number of experts: the same weights under another k, in losses,
// traces and answers.
#include <catch2/catch.hpp>

#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/trace/reader.h"
#include "tests/cli/program.h"

namespace moe::cli {
namespace {

using Json = nlohmann::json;

const std::string valid =
    " --data text:path=corpus,split=valid --tokens 512 --length 32 --batch 2 --threads 1";

Json eval(const Folder& f, const std::string& words) {
  const Result r = f.run("eval " + words + valid + " --format json");
  INFO(words << "\n" << r.err);
  REQUIRE(r.code == 0);
  return Json::parse(r.out);
}

std::vector<double> column(const Json& report, const std::string& table, const std::string& name,
                           const std::string& part = "values") {
  for (const Json& t : report.at("tables")) {
    if (t.at("id") != table)
      continue;
    for (const Json& c : t.at("columns")) {
      if (c.at("name") == name)
        return c.at(part).get<std::vector<double>>();
    }
  }
  FAIL("no column " << name << " in " << table);
  return {};
}

void refused(const Folder& f, const std::string& words, const std::string& says) {
  const Result r = f.run(words);
  INFO("moe " << words << "\n" << r.err);
  CHECK(r.code == 2);
  CHECK(r.out.empty());
  CHECK(r.err.find(says) != r.err.npos);
}

}  // namespace

TEST_CASE("another k is compared with the trained one on the same text") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 6 -o run").code == 0);
  const Json plain = eval(f, "run");
  const Json same = eval(f, "run --top-k 2");
  CHECK(same.at("tables").size() == 1);
  CHECK(same.at("tables") == plain.at("tables"));
  for (const int k : {1, 4}) {
    const Json other = eval(f, "run --top-k " + std::to_string(k));
    const std::string now = "loss k=" + std::to_string(k);
    CHECK(column(other, "loss_by_k", "loss k=2") == column(plain, "loss", "loss"));
    CHECK(column(other, "loss_by_k", now) == column(other, "loss", "loss"));
    CHECK(column(other, "loss", "loss") != column(plain, "loss", "loss"));
    const auto change = column(other, "loss_by_k", "change");
    const auto before = column(other, "loss_by_k", "loss k=2");
    const auto after = column(other, "loss_by_k", now);
    for (std::size_t i = 0; i < change.size(); ++i)
      CHECK(change[i] == Approx(after[i] - before[i]).margin(1e-12));
    const std::string behind = k == 1 ? "weight behind 1" : "weight behind 2";
    for (const double share : column(other, "routing_by_k", behind)) {
      CHECK(share > 0);
      // those that come in addition are the smaller ones
      CHECK(share < 0.5);
    }
    for (const double busiest : column(other, "routing_by_k", "busiest k=2"))
      CHECK(busiest >= 1);
  }
  for (const double busiest : column(eval(f, "run --top-k 8"), "routing_by_k", "busiest k=8"))
    CHECK(busiest == Approx(1));
}

TEST_CASE("a trace says with which k it was recorded and with which the model was trained") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 2 -o run").code == 0);
  REQUIRE(f.run("trace run --top-k 4 -o four.h5" + valid).code == 0);
  REQUIRE(f.run("trace run -o two.h5" + valid).code == 0);
  const Result said = f.run(
      "generate run --prompt house --tokens 3 --experts-per-token 3 --trace "
      "three.h5");
  CHECK(said.err.find("every token chooses 3 experts; the model was trained with 2") !=
        said.err.npos);
  const auto layer = [&](const std::string& name) {
    return TraceReader(f / name).header().layers.at(1);
  };
  CHECK(layer("four.h5").top_k == 4);
  CHECK(layer("four.h5").trained_top_k == 2);
  CHECK(layer("three.h5").top_k == 3);
  CHECK(layer("three.h5").trained_top_k == 2);
  CHECK(layer("two.h5").trained_top_k == 0);
  CHECK(f.run("show four.h5").out.find("trained k") != std::string::npos);
  CHECK(f.run("show two.h5").out.find("trained k") == std::string::npos);
  CHECK(f.run("report four.h5 --metric load --format md").out.find("k=4 (trained with k=2)") !=
        std::string::npos);
  CHECK(f.run("verify four.h5").out == "four.h5: whole\n");
}

TEST_CASE("a k that cannot be is refused in a sentence") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 1 -o run").code == 0);
  refused(f, "eval run --top-k 9" + valid, "a token cannot choose 9 of 8 experts");
  refused(f, "eval run --top-k 0" + valid, "--top-k");
  for (const std::string router :
       {"expert_choice:factor=2", "soft:slots=1", "top_p:p=0.6", "relu"}) {
    const std::string name = router.substr(0, router.find(':'));
    REQUIRE(f.run(nano + " --steps 1 --balance none --router " + router + " -o " + name).code == 0);
    refused(f, "eval " + name + " --top-k 4" + valid,
            "the router " + name + " has no number of experts that every token chooses");
    refused(f, "trace " + name + " --top-k 4 -o x.h5" + valid, name);
    CHECK_FALSE(fs::exists(f / "x.h5"));
  }
  REQUIRE(f.run(nano + " --steps 1 --dense -o dense").code == 0);
  refused(f, "eval dense --top-k 2" + valid, "a dense model has no experts");
  refused(f, "generate run --prompt x --experts-per-token 9", "a token cannot choose 9 of 8");
}

}  // namespace moe::cli
