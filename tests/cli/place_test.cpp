// moe place as a person uses it: a plan in each format, a report, and refusals that leave nothing.
#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"
#include "tests/cli/refusals.h"

namespace moe::cli {
namespace {

const std::string make_trace =
    "synth zipf -o t.h5 --tokens 4000 --layers 2 --topk 2 --experts 16 --domains 2 --sequence 100";

}  // namespace

TEST_CASE("a plan is written, judged, and shown by a report too") {
  const Folder f;
  REQUIRE(f.run(make_trace).code == 0);
  const Result r = f.run("place t.h5 --gpus 4 --nodes 2 --extra 4 -o plan.json --format json");
  INFO(r.err);
  REQUIRE(r.code == 0);
  CHECK(holds(r.err, "wrote plan.json: 4 GPUs, 4 slots more than experts, 2 layers"));
  const auto plan = nlohmann::json::parse(text_of(f / "plan.json"));
  CHECK(plan["physical_to_logical"].size() == 2);
  CHECK(plan["physical_to_logical"][0].size() == 20);
  CHECK(plan["replica_counts"][0][0] > 1);
  const Result same = f.run(
      "report t.h5 --metric place:gpus=4,nodes=2,extra=4,policy=eplb --sample 0 --format json");
  const auto placed = nlohmann::json::parse(r.out);
  const auto reported = nlohmann::json::parse(same.out);
  CHECK(placed["tables"] == reported["tables"]);
  CHECK(placed["findings"] == reported["findings"]);
  CHECK(f.run("place t.h5 --gpus 4 --nodes 2 --extra 4 -o again.json").code == 0);
  CHECK(text_of(f / "again.json") == text_of(f / "plan.json"));
  for (const std::string to : {"sglang", "vllm-ascend", "trtllm"}) {
    INFO(to);
    CHECK(f.run("place t.h5 --gpus 4 --policy greedy --to " + to + " -o " + to).code == 0);
  }
  CHECK(f.run("place t.h5 --gpus 4 --report r.html").code == 0);
  CHECK(holds(text_of(f / "r.html"), "What placing experts by eplb would bring"));
}

TEST_CASE("counts alone are planned from, and exported again") {
  const Folder f;
  put(f / "a.json", "[[30, 1, 5, 1], [2, 2, 2, 3]]");
  put(f / "b.json", "[[28, 2, 3, 1], [1, 1, 1, 1]]");
  REQUIRE(f.run("import a.json b.json -o c.h5").code == 0);
  const Result r = f.run("place c.h5 --gpus 2 --extra 2 -o plan.json");
  INFO(r.out << r.err);
  CHECK(r.code == 0);
  CHECK(holds(r.out, "every second step"));
  CHECK(nlohmann::json::parse(text_of(f / "plan.json"))["replica_counts"][0][0] == 3);
  CHECK(f.run("export c.h5 --to eplb-json -o sum.json").code == 0);
  CHECK(nlohmann::json::parse(text_of(f / "sum.json"))[0] == nlohmann::json({58, 3, 8, 2}));
  refuses(f, "export c.h5 -o c.npz", 3, "counts of tokens per expert and no tokens");
  refuses(f, "place c.h5 --gpus 2 --policy local -o p.json", 2, "the trace only counts");
}

TEST_CASE("a placement that cannot be is refused, and nothing is written") {
  const Folder f;
  REQUIRE(f.run(make_trace).code == 0);
  refuses(f, "place t.h5 --gpus 5 -o p.json", 2, "do not divide among 5 GPUs");
  refuses(f, "place t.h5 --gpus 4 --nodes 3 -o p.json", 2, "4 GPUs do not divide among 3 nodes");
  refuses(f, "place t.h5 --gpus 4 --extra 3 -o p.json", 2, "16 experts and 3 extra slots make 19");
  refuses(f, "place t.h5 -o p.json", 2, "--gpus is missing");
  refuses(f, "place t.h5 --gpus 4 --policy best -o p.json", 2, "no policy of placement");
  refuses(f, "place t.h5 --gpus 4 --to vllm -o p.json", 2, "no placement format named 'vllm'");
  refuses(f, "place t.h5 --gpus 4 --to sglang --layers 1 -o p.json", 3,
          "MoE layer 1 is not among 1 hidden layers");
  refuses(f, "place none.h5 --gpus 4 -o p.json", 3, "none.h5");
  refuses(f, "place t.h5 --gpus 4 -o none/p.json", 4, "no folder 'none'");
  put(f / "p.json", "mine");
  refuses(f, "place t.h5 --gpus 4 -o p.json", 2, "'p.json' exists");
}

}  // namespace moe::cli
