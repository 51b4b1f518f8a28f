// Probes of training by the program: what is refused, what files they leave, what goes on.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/program.h"

namespace moe::cli {
namespace {

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

}  // namespace

TEST_CASE("a profiled run leaves its spans and its report says where time went") {
  const Folder f;
  const std::string probes = " --profile --profile-trace spans.json,steps=2-3";
  const Result run = f.run(nano + " --steps 4 -o a" + probes);
  INFO(run.err);
  REQUIRE(run.code == 0);
  CHECK(holds(run.err, "spans of the profiled steps: spans.json"));
  const auto spans = nlohmann::json::parse(text_of(f / "spans.json"));
  int steps = 0;
  for (const auto& e : spans.at("traceEvents"))
    steps += e.at("name") == "step 2" || e.at("name") == "step 3";
  CHECK(steps == 2);
  const Result report = f.run("report a --all");
  CHECK(report.code == 0);
  CHECK(holds(report.out, "Where the time of a step goes"));
  CHECK(holds(report.out, "exchange"));
  // what was looked at is no part of the run
  REQUIRE(f.run(nano + " --steps 4 -o b").code == 0);
  const std::string last = "/checkpoint-00000004/";
  CHECK(text_of(f / ("a" + last + "model.safetensors")) ==
        text_of(f / ("b" + last + "model.safetensors")));
  const auto state = [&](const std::string& run_folder) {
    auto j = nlohmann::json::parse(text_of(f / (run_folder + last + "state.json")));
    j["options"].erase("output");
    return j;
  };
  CHECK(state("a") == state("b"));
  CHECK(f.run("train --resume a --steps 6 --profile --profile-trace more.json").code == 0);
  CHECK(holds(text_of(f / "more.json"), "step 6"));
}

TEST_CASE("probes are refused before anything is made") {
  const Folder f;
  const auto refused = [&](const std::string& options, const std::string& why) {
    const Result r = f.run(nano + " --steps 4 -o c " + options);
    INFO(options << ": " << r.err);
    CHECK(r.code == 2);
    CHECK(holds(r.err, why));
    CHECK(!fs::exists(f / "c"));
  };
  refused("--noise-scale", "a step of this run has one lane");
  refused("--profile-trace x.json,steps=0-2", "does not say a file and which steps");
  refused("--profile-trace x.json,steps=3-2", "does not say a file and which steps");
  refused("--profile-trace ,steps=1", "does not say a file and which steps");
  refused("--profile-trace x.json,steps=3-9", "this run makes the steps 1 to 4");
  refused("--lr-factor experts.8=1", "lr-factor has no option 'experts.8'");
  refused("--lr-factor experts=loud", "experts=loud");
  put(f / "x.json", "mine");
  refused("--profile-trace x.json", "'x.json' exists");
  CHECK(text_of(f / "x.json") == "mine");
}

TEST_CASE("a run with its noise scale reports it, and goes on with it") {
  const Folder f;
  const std::string noisy =
      nano + " --steps 6 --accumulate 2 --lanes 2 --noise-scale --lr-factor experts=load";
  REQUIRE(f.run(noisy + " -o whole").code == 0);
  CHECK(holds(f.run("report whole --all").out, "Gradient noise scale"));
  REQUIRE(f.run(noisy + " --save-every 3 -o part").code == 0);
  fs::remove_all(f / "part/checkpoint-00000006");
  REQUIRE(f.run("train --resume part").code == 0);
  CHECK(text_of(f / "whole/checkpoint-00000006/model.safetensors") ==
        text_of(f / "part/checkpoint-00000006/model.safetensors"));
  const auto noise = [&](const std::string& run) {
    std::vector<double> out;
    std::istringstream in(text_of(f / (run + "/metrics.jsonl")));
    for (std::string line; std::getline(in, line);) {
      const auto j = nlohmann::json::parse(line);
      if (j.contains("noise_trace"))
        out.push_back(j["noise_trace"]);
    }
    return out;
  };
  CHECK(noise("whole").size() == 6);
  CHECK(noise("whole") == noise("part"));
}

}  // namespace moe::cli
