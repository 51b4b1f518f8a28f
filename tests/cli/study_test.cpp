// moe study: arms that run, are killed, fail; what is written; what is refused.
#include <catch2/catch.hpp>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/cli/program.h"

using namespace moe::cli;
using nlohmann::json;

namespace {

const std::string study = R"(
about = "a"
question = "Does a balance loss cost loss?"
seeds = 2
measures = ["loss"]
commands = ["train --data {data} {size} --eval-tokens 128 --log-every 1 --threads 1"]
[set]
data = "text:path=corpus"
size = "--model nano --steps 4 --batch 2 --length 32"
[[arm]]
name = "none"
options = "--balance none"
[[arm]]
name = "switch"
options = "--balance switch"
[[claim]]
says = "it costs nothing"
holds = "loss[switch] = loss[none] within 0.5"
)";

json outcome(const Folder& f, const std::string& name) {
  return json::parse(text_of(f / (name + "/study.json")));
}

}  // namespace

TEST_CASE("a study runs its arms, says what it found and goes on where it was") {
  Folder f;
  put(f / "s.toml", study);
  const Result r = f.run("study s.toml -o d");
  INFO(r.err);
  REQUIRE(r.code == 0);
  CHECK(r.out.find("Does a balance loss cost loss?") != std::string::npos);
  CHECK(r.out.find("it costs nothing") != std::string::npos);
  for (const char* name : {"study.html", "study.csv", "study.h5", "study.json"})
    CHECK(fs::exists(f / (std::string("d/") + name)));
  const json j = outcome(f, "d");
  CHECK(j["units"] == 4);
  CHECK(j["done"] == 4);
  CHECK(j["claims"][0]["estimate"]["n"] == 2);
  const double loss = j["measures"][0]["arms"][0]["values"][0];
  CHECK(loss > 1);
  const Result again = f.run("study s.toml -o d");
  CHECK(again.code == 0);
  CHECK(again.out == r.out);
  CHECK(again.seconds < r.seconds);
  const Result more = f.run("study s.toml -o d --seeds 3");
  CHECK(more.code == 0);
  CHECK(outcome(f, "d")["done"] == 6);
  CHECK(outcome(f, "d")["measures"][0]["arms"][0]["values"][0] == loss);
}

TEST_CASE("a dense arm has a loss, and takes no part in what is said of routing") {
  Folder f;
  std::string text = study;
  const std::string measured = "[\"loss\"]";
  text.replace(text.find(measured), measured.size(), "[\"loss\", \"load_cv:layers=most\"]");
  text += "[[arm]]\nname = \"dense\"\noptions = \"--dense\"\n";
  put(f / "s.toml", text);
  const Result r = f.run("study s.toml -o d");
  INFO(r.err);
  REQUIRE(r.code == 0);
  const json j = outcome(f, "d");
  CHECK(j["done"] == 6);
  CHECK(r.err.find("failed") == std::string::npos);
  const json& measures = j["measures"];
  CHECK(measures[0]["arms"][2]["values"][0].is_number());
  CHECK(measures[1]["name"] == "load_cv");
  CHECK(measures[1]["arms"][0]["values"][0].is_number());
  CHECK(!measures[1]["arms"][2]["values"][0].is_number());
  CHECK(f.run("study s.toml -o d").out == r.out);
}

TEST_CASE("an arm that fails is a result and not the end") {
  Folder f;
  put(f / "s.toml", study + "[[arm]]\nname = \"bad\"\noptions = \"--router nonsense\"\n");
  const Result r = f.run("study s.toml -o d --seeds 1");
  CHECK(r.code == 0);
  const json j = outcome(f, "d");
  CHECK(j["done"] == 2);
  REQUIRE(j["failed"].size() == 1);
  CHECK(j["failed"][0]["why"].get<std::string>().find("nonsense") != std::string::npos);
  CHECK(r.out.find("nonsense") != std::string::npos);
}

TEST_CASE("a killed study goes on and ends with the bytes of one that was not") {
  Folder f;
  put(f / "s.toml", study);
  REQUIRE(f.run("study s.toml -o whole").code == 0);
  {
    Process p(f.path(), words_of("study s.toml -o cut"));
    const double limit = now() + 60;
    while (p.running() && !fs::exists(f / "cut/arms/switch/seed-1/run/metrics.jsonl") &&
           now() < limit)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    p.signal(SIGKILL);
    CHECK(p.wait().code == 128 + SIGKILL);
  }
  CHECK(!fs::exists(f / "cut/study.json"));
  const Result r = f.run("study s.toml -o cut");
  INFO(r.err);
  CHECK(r.code == 0);
  CHECK(text_of(f / "cut/study.csv") == text_of(f / "whole/study.csv"));
  CHECK(text_of(f / "cut/study.json") == text_of(f / "whole/study.json"));
  CHECK(text_of(f / "cut/study.h5") == text_of(f / "whole/study.h5"));
}

TEST_CASE("a study of other commands than those that were run is refused, unless forced") {
  Folder f;
  put(f / "s.toml", study);
  REQUIRE(f.run("study s.toml -o d --seeds 1").code == 0);
  std::string other = study;
  other.replace(other.find("--steps 4"), 9, "--steps 5");
  put(f / "s.toml", other);
  const Result r = f.run("study s.toml -o d --seeds 1");
  CHECK(r.code == 2);
  CHECK(r.err.find("other commands") != std::string::npos);
  CHECK(f.run("study s.toml -o d --seeds 1 --force").code == 0);
}

TEST_CASE("a study of one line varies what stands behind the dashes") {
  Folder f;
  const Result r = f.run(
      "study --arm router=softmax:k=1|softmax:k=2 --seeds 2 --measure "
      "loss,load_cv:layers=most -o d -- " +
      nano + " --steps 3");
  INFO(r.err);
  REQUIRE(r.code == 0);
  const json j = outcome(f, "d");
  CHECK(j["measures"].size() == 2);
  CHECK(j["measures"][1]["name"] == "load_cv");
  CHECK(j["measures"][1]["arms"][1]["values"][1].is_number());
}

TEST_CASE("a plan runs nothing but its probe, and says what a study takes") {
  Folder f;
  put(f / "s.toml", study);
  const std::vector<std::string> before = f.names();
  const Result r = f.run("study s.toml --dry-run");
  INFO(r.err);
  CHECK(f.names() == before);
  CHECK(r.code == 0);
  CHECK(r.out.find("2 arms x 2 seeds") != std::string::npos);
  CHECK(f.run("study s.toml --dry-run --budget 0.01s").code == 1);
}

TEST_CASE("two runs of a study are compared beyond the scatter of their seeds") {
  Folder f;
  put(f / "s.toml", study);
  REQUIRE(f.run("study s.toml -o a").code == 0);
  put(f / "t.toml", study);
  REQUIRE(f.run("study t.toml -o b").code == 0);
  const Result r = f.run("study compare a b");
  INFO(r.err);
  CHECK(r.code == 0);
  CHECK(r.out.find("within the scatter") != std::string::npos);
  CHECK(f.run("study compare a corpus").code == 3);
}

TEST_CASE("the options of studies are refused where they would be ignored") {
  Folder f;
  put(f / "s.toml", study);
  for (const char* words :
       {"study", "study s.toml", "study nonsense -o d", "study s.toml --quick -o d",
        "study s.toml --measure loss -o d", "study s.toml --set a=1 -o d",
        "study s.toml --set a -o d", "study s.toml --budget soon -o d",
        "study --arm k=1 -o d -- train", "study --arm k=1|2 -o d", "study s.toml -o corpus",
        "study compare a"}) {
    INFO(words);
    const Result r = f.run(words);
    CHECK(r.code == 2);
    CHECK(!r.err.empty());
  }
}
