// moe plan of machines: every option moves the plan it should, and what cannot be planned is
// refused in a sentence.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

using namespace moe::cli;
using json = nlohmann::json;

namespace {

json plan(const Folder& f, const std::string& words) {
  const Result r = f.run("plan " + words + " --format json");
  INFO(words << ": " << r.err);
  REQUIRE(r.code == 0);
  return json::parse(r.out);
}
std::vector<double> column(const json& report, const std::string& table, const std::string& name) {
  for (const json& t : report.at("tables")) {
    if (t.at("id") != table)
      continue;
    for (const json& c : t.at("columns")) {
      if (c.at("name") == name)
        return c.at("values").get<std::vector<double>>();
    }
  }
  FAIL(table << " has no column " << name);
  return {};
}

}  // namespace

TEST_CASE("plans of a device answer to each of their options") {
  const Folder f;
  const std::string start = "Qwen3-30B-A3B --device rtx4090 ";
  const json q4 = plan(f, start + "--weights q4_k");
  CHECK(column(q4, "cards", "devices").at(0) == 1);
  CHECK(column(plan(f, start), "cards", "devices").at(0) > 1);  // bf16, as published
  const double fits = column(q4, "cards", "sequences").at(0);
  const auto less = [&](const std::string& words) {
    return column(plan(f, start + "--weights q4_k " + words), "cards", "sequences").at(0);
  };
  CHECK(less("--context 8192") < fits);
  CHECK(less("--cache-bits 8") > fits);
  CHECK(less("--usable 0.8") < fits);
  CHECK(less("--chunk 8192") < fits);
  CHECK(column(plan(f, start + "--weights q4_k --routing zipf:s=2"), "decode", "experts").at(2) <
        column(q4, "decode", "experts").at(2));
  CHECK(column(plan(f, start + "--weights q4_k --devices 4"), "decode", "memory").at(0) <
        column(q4, "decode", "memory").at(0));
  const json away = plan(f, start + "--offload host:bandwidth=25GB/s,held=32");
  CHECK(column(away, "offload", "caught").at(1) == Approx(25));
  // as many as fit: more than 32 of each layer, not all 128
  const double held =
      column(plan(f, start + "--offload host:bandwidth=25GB/s"), "offload", "caught").at(1);
  CHECK(held > 25);
  CHECK(held < 100);
  CHECK(column(plan(f, start + "--offload host:bandwidth=50GB/s,held=32"), "offload", "in series")
            .at(0) > column(away, "offload", "in series").at(0));
}

TEST_CASE("a trace says which experts a plan's tokens touch") {
  const Folder f;
  REQUIRE(f.run("synth zipf:s=1.2 --experts 8 --topk 2 --layers 2 --tokens 4096 -o t.h5").code ==
          0);
  const std::string start = "Mixtral-8x7B --device h100 --offload host:bandwidth=50GB/s,held=2 ";
  const json even = plan(f, start);
  const json traced = plan(f, start + "--routing t.h5");
  CHECK(column(traced, "decode", "experts").at(1) < column(even, "decode", "experts").at(1));
  CHECK(column(traced, "offload", "caught").size() == 4);  // LRU, LFU, most used, Belady
  CHECK(column(traced, "offload", "caught").at(0) > column(even, "offload", "caught").at(0));
  CHECK(column(traced, "offload", "caught").at(3) >= column(traced, "offload", "caught").at(0));
  const Result other = f.run("plan Qwen3-30B-A3B --device h100 --routing t.h5");
  CHECK(other.code == 3);
  CHECK(other.err.find("has 8 experts, 2 a token, and the model has 128") != std::string::npos);
}

TEST_CASE("plans of a cluster answer to their options") {
  const Folder f;
  const std::string start = "Mixtral-8x7B --cluster h100:nodes=4 ";
  const json found = plan(f, start + "--search");
  CHECK(column(found, "layouts", "tokens").size() > 2);
  const json two = plan(f, start + "--layout ep=8,pp=4 --layout ep=8,pp=4,bits=16");
  const std::vector<double> tokens = column(two, "layouts", "tokens");
  REQUIRE(tokens.size() == 2);
  CHECK(tokens[0] > tokens[1]);
  const auto first = [&](const std::string& words) {
    return column(plan(f, start + "--layout ep=8,pp=4 --layout ep=8,pp=4 " + words), "layouts",
                  "imbalance")
        .at(0);
  };
  CHECK(first("--routing zipf:s=1") > first(""));
  CHECK(first("--routing zipf:s=1 --eplb 8") < first("--routing zipf:s=1"));
  CHECK(column(plan(f, start + "--layout ep=8,pp=4 --curve 16:0.1,4096:0.5"), "step", "time") !=
        column(plan(f, start + "--layout ep=8,pp=4"), "step", "time"));
  CHECK(column(plan(f, "--published"), "runs", "published").size() >= 35);
}

TEST_CASE("a trace is played through a cluster, and a model is grown") {
  const Folder f;
  REQUIRE(
      f.run("synth zipf:s=1.2 --experts 8 --topk 2 --layers 2 --tokens 8192 --step 1024 -o t.h5")
          .code == 0);
  const std::string start = "Mixtral-8x7B --cluster h100 --simulate t.h5 ";
  const json in_order = plan(f, start);
  const json placed = plan(f, start + "--eplb 8 --rebalance 2");
  CHECK(column(in_order, "over_time", "imbalance").size() == 8);
  CHECK(column(placed, "over_time", "imbalance").at(7) <
        column(in_order, "over_time", "imbalance").at(7));
  CHECK(f.run("plan Mixtral-8x7B --simulate t.h5").code == 2);
  CHECK(f.run("plan " + start + "--eplb 8").code == 2);
  CHECK(column(plan(f, "Mixtral-8x7B --grow 131072"), "growth", "experts").back() == 131072);
}

TEST_CASE("this machine is measured, and plans use what was measured") {
  const Folder f;
  const Result r =
      f.run("bench machine --seconds 0.01 --threads 1 --disk . --disk-size 8MiB --format json");
  // a file system without direct reads is said so
  REQUIRE((r.code == 0 || r.err.find("has no direct reads") != std::string::npos));
  const json m = json::parse(f.run("bench machine --seconds 0.01 --threads 1 --format json").out);
  for (const double rate : column(m, "products", "products"))
    CHECK(rate > 0);
  CHECK(column(m, "reads", "read").size() == 8);
  if (r.code == 0)
    CHECK(column(json::parse(r.out), "disk", "scattered").at(0) > 0);
  const json here = plan(f, "Qwen3-30B-A3B --here");
  CHECK(column(here, "decode", "at most").at(0) > 0);
}

TEST_CASE("machines that cannot be planned are refused in a sentence") {
  const Folder f;
  for (const std::string words : {"--device h10",
                                  "--device cpu",
                                  "--device h100 --cluster h100",
                                  "--cluster h100 --layout ep=3",
                                  "--device h100 --routing some",
                                  "--device h100 --offload tape:bandwidth=1",
                                  "--device h100 --offload disk",
                                  "--device h100 --devices 2 --offload disk:bandwidth=7GB/s",
                                  "--device h100 --devices 7",
                                  "--device h100 --weights q9",
                                  "--cluster h100 --curve 16",
                                  "--layout ep=8",
                                  "--search",
                                  "--device h100 --search",
                                  "--device h100 --eplb 8",
                                  "--cluster h100 --rebalance 4",
                                  "--devices 2",
                                  "--routing zipf",
                                  "--cluster h100 --offload host:bandwidth=1GB/s",
                                  "--cluster h100 --weights fp8",
                                  "--cluster h100 --context 8192",
                                  "--device h100 --ep 8",
                                  "--here --device h100",
                                  "--cluster h100 --curve 16:2",
                                  "--device rtx4090 --devices 1"}) {
    INFO(words);
    const Result r = f.run("plan Mixtral-8x7B " + words);
    CHECK(r.code == 2);
    CHECK(!r.err.empty());
  }
  CHECK(f.run("plan --device h100").code == 2);
  CHECK(f.run("plan Mixtral-8x7B DBRX --device h100").code == 2);
}
