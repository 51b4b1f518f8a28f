// What earlier versions called otherwise still works on the command line, and says its new name.
#include <catch2/catch.hpp>
#include <sstream>

#include "tests/cli/program.h"

namespace moe::cli {

namespace {

// A report in text without the line that says how it was called.
std::string without_command(const std::string& report) {
  std::istringstream in(report);
  std::string out, line;
  while (std::getline(in, line)) {
    if (line.find("planted-labels") == line.npos && line.find("--truth") == line.npos)
      out += line + "\n";
  }
  return out;
}

}  // namespace

TEST_CASE("a router and an option under their former names work, with a note") {
  const Folder f;
  const Result bench = f.run(
      "bench layer --router forced:k=1,hot=0.4 --tokens 32 --hidden 16 --width 16 --experts 4 "
      "--seconds 0.01 --format csv");
  INFO(bench.err);
  REQUIRE(bench.code == 0);
  CHECK(bench.err.find("moe: forced is now called synthetic_load") != bench.err.npos);

  const std::string data = "clusters:clusters=4,vocabulary=64";
  REQUIRE(f.run(nano + " --data " + data + " --steps 1 -o run").code == 0);
  REQUIRE(f.run("trace run --data " + data + " --tokens 128 --length 32 -o t.h5").code == 0);
  const Result former = f.run("report t.h5 --metric planted --truth " + data);
  const Result now = f.run("report t.h5 --metric planted --planted-labels " + data);
  INFO(former.err << now.err);
  REQUIRE(now.code == 0);
  CHECK(without_command(former.out) == without_command(now.out));
  CHECK(former.err.find("--truth is now called --planted-labels") != former.err.npos);
  CHECK(now.err.find("now called") == now.err.npos);
}

TEST_CASE("former names are not shown in help and not accepted beside the new ones") {
  const Folder f;
  CHECK(f.run("report --help").out.find("--truth") == std::string::npos);
  const Result both = f.run("report t.h5 --truth clusters --planted-labels clusters");
  CHECK(both.code == 2);
  CHECK(both.err.find("--truth") != both.err.npos);
}

}  // namespace moe::cli
