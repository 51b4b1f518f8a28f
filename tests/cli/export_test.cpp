// moe export as a person uses it: a trace becomes a file that is imported again, what was left out
// is said, and a failure leaves the folder as it was.
#include <catch2/catch.hpp>

#include <sstream>

#include "tests/cli/program.h"
#include "tests/cli/refusals.h"

namespace moe::cli {
namespace {

// The counts of every expert, as CSV.
std::string counts_of(const Folder& f, const std::string& trace) {
  std::istringstream lines(f.run("report " + trace + " --metric load --format csv").out);
  std::string out;
  for (std::string line; std::getline(lines, line);)
    out += line.starts_with("load_counts,") ? line + "\n" : "";
  return out;
}

const std::string make_trace =
    "synth zipf -o t.h5 --tokens 6000 --layers 3 --topk 2 --experts 8 --domains 2 --weights";

}  // namespace

TEST_CASE("an exported trace is imported again, and says the same in a report") {
  const Folder f;
  REQUIRE(f.run(make_trace).code == 0);
  const std::string wanted = counts_of(f, "t.h5");
  REQUIRE(wanted.size() > 1000);
  for (const std::string file : {"a.npz", "a.csv", "a.jsonl", "a.npy"}) {
    INFO(file);
    const Result made = f.run("export t.h5 -o " + file);
    INFO(made.err);
    CHECK(made.code == 0);
    CHECK(made.out.empty());
    CHECK(holds(made.err, "wrote " + file + ": 6000 tokens in 12 sequences x 3 layers"));
    CHECK(holds(made.err, "has no place for") == (file != "a.npz"));
    const Result back = f.run("import " + file + " --experts 8 -o b.h5 --force");
    INFO(back.err);
    CHECK(back.code == 0);
    CHECK(f.run("verify b.h5").code == 0);
    if (file != "a.npy")  // no weights: another table
      CHECK(counts_of(f, "b.h5") == wanted);
  }
}

TEST_CASE("what a file holds does not break the sentence about it") {
  const Folder f;
  const std::string head = "{'descr': '<i\x1b[2J\n4', 'fortran_order': False, 'shape': (1,), }";
  std::string file("\x93NUMPY\x01\x00", 8);
  file += char(head.size());
  file += '\0';
  file += head;
  put(f / "a.npy", file);
  const Result r = f.run("import a.npy -o t.h5");
  CHECK(r.code == 3);
  CHECK(holds(r.err, "\\x1b[2J\\x0a4"));
  CHECK(r.err.find('\x1b') == r.err.npos);
}

TEST_CASE("an export that cannot be is refused, and nothing is written") {
  const Folder f;
  REQUIRE(f.run(make_trace).code == 0);
  refuses(f, "export t.h5 -o a.foo", 2, "does not say which format is meant");
  refuses(f, "export t.h5 -o - --to csv", 2, "cannot go to stdout");
  refuses(f, "export t.h5 -o a --to npzz", 2, "no export format named 'npzz'");
  refuses(f, "export t.h5 -o t.h5 --to csv --force", 2, "cannot be the output too");
  refuses(f, "export t.h5 -o a.csv --sequence 12", 2, "there is no sequence 12");
  refuses(f, "export t.h5 -o a.csv --phase decode", 3, "has no token of that choice");
  refuses(f, "export none.h5 -o a.csv", 3, "none.h5");
  refuses(f, "export t.h5 -o a.csv", 4, "a.csv", {.file_limit = 100'000});
}

}  // namespace moe::cli
