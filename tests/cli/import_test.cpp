// moe import as a person uses it: a recording becomes a trace that verifies and reports, a bad one
// is refused in a sentence and leaves the folder as it was.
#include <catch2/catch.hpp>

#include "tests/cli/program.h"
#include "tests/cli/refusals.h"

namespace moe::cli {
namespace {

// Three tokens, two layers, two choices: a record a layer, as Megatron's RouterTracer writes it.
const std::string records =
    R"({"step":1,"stage":"pre_dispatch","block":"decoder","layer":0,"rank":0,"num_tokens":3,)"
    R"("topk":2,"top_indices":[[0,1],[1,3],[0,2]]})"
    "\n"
    R"({"step":1,"stage":"pre_dispatch","block":"decoder","layer":1,"rank":0,"num_tokens":3,)"
    R"("topk":2,"top_indices":[[2,3],[0,3],[1,2]]})"
    "\n";

}  // namespace

TEST_CASE("a recording is imported, verified and reported") {
  const Folder f;
  put(f / "router_trace_rank0.jsonl", records);
  const Result made = f.run("import router_trace_rank0.jsonl --experts 4 -o t.h5");
  INFO(made.err);
  REQUIRE(made.code == 0);
  CHECK(made.out.empty());
  CHECK(holds(made.err, "the format is megatron-trace"));
  CHECK(holds(made.err, "token ids are not in the file"));
  CHECK(holds(made.err, "3 tokens in 1 sequences x 2 layers, top 2 of 4 experts"));
  CHECK(f.run("verify t.h5").code == 0);
  const Result report = f.run("report t.h5 --all");
  CHECK(report.code == 0);
  CHECK(holds(report.out, "E=4 k=2"));
  CHECK(holds(report.out, "moe import router_trace_rank0.jsonl --experts 4 -o t.h5"));
}

TEST_CASE("rows are added to a trace that exists only when asked") {
  const Folder f;
  put(f / "router_trace_rank0.jsonl", records);
  const std::string words = "import router_trace_rank0.jsonl --experts 4 -o t.h5";
  REQUIRE(f.run(words).code == 0);
  refuses(f, words, 2, "'t.h5' exists");
  CHECK(f.run(words + " --append").code == 0);
  CHECK(f.run("verify t.h5").code == 0);
  const std::string before = text_of(f / "t.h5");
  refuses(f, "import router_trace_rank0.jsonl --experts 5 -o t.h5 --append", 3, "4 experts");
  CHECK(text_of(f / "t.h5") == before);
}

TEST_CASE("a recording that is damaged or of no format is refused") {
  const Folder f;
  put(f / "router_trace_rank0.jsonl", records);
  put(f / "notes.txt", "mine");
  refuses(f, "import router_trace_rank0.jsonl --experts 3 -o t.h5", 3, "expert 3");
  refuses(f, "import notes.txt -o t.h5", 3, "no format that can be imported");
  refuses(f, "import none.jsonl -o t.h5", 3, "'none.jsonl'");
  refuses(f, "import notes.txt --from megatron -o t.h5", 2, "no format named 'megatron'");
  refuses(f, "import router_trace_rank0.jsonl -o none/t.h5", 4, "no folder 'none'");
  refuses(f, "import router_trace_rank0.jsonl", 2, "--output is missing");
}

TEST_CASE("the output is never a file that is read") {
  const Folder f;
  const std::string name = "router_trace_rank0.jsonl";
  put(f / name, records);
  fs::create_symlink(name, f / "link.jsonl");
  for (const std::string& target : {name, "./" + name, std::string("link.jsonl")})
    refuses(f, "import " + name + " --experts 4 --force -o " + target, 2, "is read and cannot");
  CHECK(text_of(f / name) == records);
}

}  // namespace moe::cli
