// Text from the standard input, and all of a text for validation.
#include <catch2/catch.hpp>

#include "lib/trace/reader.h"
#include "tests/cli/program.h"

namespace moe::cli {

TEST_CASE("a sentence from the standard input is traced whole, as it is from a file") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 2 -o a").code == 0);
  put(f / "cat.txt", "The cat sat on the mat, and nothing else happened.\n");
  const std::string trace = "trace a --data text:whole=1,split=valid,path=";
  const Result piped = f.run(trace + "- -o piped.h5", {.input = f / "cat.txt"});
  INFO(piped.err);
  REQUIRE(piped.code == 0);
  REQUIRE(f.run(trace + "cat.txt -o file.h5").code == 0);
  const TraceReader a(f / "piped.h5");
  const TraceReader b(f / "file.h5");
  const TraceFields no_more{};
  CHECK(a.tokens() == 52);  // a byte each, behind one boundary
  CHECK(a.read(0, a.tokens(), no_more).token_id == b.read(0, b.tokens(), no_more).token_id);
  CHECK(a.header().domains == std::vector<std::string>{"input"});
  CHECK(b.header().domains == std::vector<std::string>{"cat"});
  const Result none = f.run(trace + "- -o none.h5");
  CHECK(none.code == 3);
  CHECK(none.err.find("the standard input holds no text") != none.err.npos);
  put(f / "odd", std::string("\0\1\2", 3));
  const Result odd = f.run(trace + "- -o odd.h5", {.input = f / "odd"});
  CHECK(odd.code == 3);
  CHECK(odd.err.find("the standard input has a NUL byte") != odd.err.npos);
  CHECK(f.run(trace + "-,field=text -o none.h5").code == 2);
  const Result train = f.run(nano + ",whole=1 --steps 2 -o b");
  CHECK(train.code != 0);
}

}  // namespace moe::cli
