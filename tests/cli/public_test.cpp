// Small inputs after public bug reports, each with the right answer of the reference libraries:
// what is read gives their numbers, what is not is refused in words that say what it is.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstdlib>
#include <sstream>

#include "tests/cli/program.h"
#include "tests/skip.h"

namespace moe::cli {
namespace {

fs::path public_cases() {
  const char* shared = std::getenv("MOE_SHARED");
  return fs::path(shared ? shared : MOE_SOURCE_DIR "/../shared") / "golden/public";
}

// The value of `column` in the first row of `moe eval --format csv`.
double value_of(const std::string& csv, const std::string& column) {
  std::istringstream lines(csv);
  for (std::string line; std::getline(lines, line);) {
    const std::string start = "loss,0," + column + ",";
    if (line.starts_with(start))
      return std::stod(line.substr(start.size()));
  }
  return NAN;
}

Result run(const std::string& words) {
  const Folder folder;
  const std::string place = public_cases().string() + "/";
  std::string command = words;
  for (auto at = command.find("@"); at != command.npos; at = command.find("@"))
    command.replace(at, 1, place);
  return folder.run(command);
}

const std::string ids = " --data tokens:path=@ids.npy,whole=1,split=valid --length 64 --format csv";

}  // namespace

TEST_CASE("checkpoints after public reports give the numbers of the reference") {
  if (!fs::exists(public_cases()))
    return test::skip("no golden/public in ../shared");
  const std::vector<std::pair<std::string, double>> bits = {
      {"model-mixtral", 6.510731},     {"metadata-null", 6.510731},
      {"packed-experts", 6.510731},    {"base-model-prefix", 6.510731},
      {"deepseek-defaults", 6.553002}, {"index-names-absent-tensor", 6.510731},
      {"rope-theta-twice", 6.510731},  {"tied-but-different-head", 6.510731}};
  for (const auto& [name, right] : bits) {
    const Result r = run("eval @" + name + ids);
    INFO(name << "\n" << r.err);
    CHECK(r.code == 0);
    CHECK(value_of(r.out, "bits") == Approx(right).margin(2e-6));
  }
  const Result padded = run(
      "eval @model-mixtral --data tokens:path=@jsonl-attention-mask/pad.jsonl,whole=1,split=valid "
      "--length 12 --format csv");
  INFO(padded.err);
  CHECK(value_of(padded.out, "tokens") == 7);
  CHECK(value_of(padded.out, "loss") == Approx(4.475448).margin(2e-6));
  const Folder folder;
  const Result ended = folder.run("generate " + (public_cases() / "eos-list").string() +
                                  " --ids '54 40 32 17 19 2 4 1' --tokens 12 --temperature 0");
  INFO(ended.err);
  CHECK(ended.out.find("16 30 2 1\n") != ended.out.npos);
}

TEST_CASE("dense models after public reports are made sparse and stay what they were") {
  if (!fs::exists(public_cases()))
    return test::skip("no golden/public in ../shared");
  const Folder folder;
  const std::string place = public_cases().string();
  const Result made =
      folder.run("edit " + place + "/dense-qwen2 -o up --upcycle copy:experts=4,k=2");
  INFO(made.err);
  CHECK(made.code == 0);
  const Result r = folder.run("eval up --data tokens:path=" + place +
                              "/ids.npy,whole=1,split=valid --length 64 --format csv");
  INFO(r.err);
  CHECK(value_of(r.out, "bits") == Approx(6.501146).margin(2e-6));
}

TEST_CASE("files after public reports are called what they are") {
  if (!fs::exists(public_cases()))
    return test::skip("no golden/public in ../shared");
  const Result pointer = run("show @lfs-pointer");
  CHECK(pointer.code == 3);
  CHECK(pointer.err.find("Git LFS pointer") != pointer.err.npos);
  const Result binary =
      run("eval @model-mixtral --data tokens:path=@token-bin/ids.bin,whole=1,split=valid");
  CHECK(binary.code == 3);
  CHECK(binary.err.find("is binary and not text") != binary.err.npos);
  const Result ones = run("show @groups-of-one");
  INFO(ones.err);
  CHECK(ones.code == 0);  // groups that limit nothing
  CHECK(ones.out.find("groups=1") != ones.out.npos);
  const Folder folder;
  const Result infinity =
      folder.run("plan " + (public_cases() / "nemotron-infinity/config.json").string());
  INFO(infinity.err);
  CHECK(infinity.code == 0);
  CHECK(infinity.out.find("31,577,940,288") != infinity.out.npos);
}

TEST_CASE("routing that cannot be true is said first, after public reports") {
  if (!fs::exists(public_cases()))
    return test::skip("no golden/public in ../shared");
  const Result report = run("report @trace-zero-prompt/t.moetrace.h5 --bootstrap 0");
  CHECK(report.code == 0);
  CHECK(report.out.find("160 of 256 tokens have one expert in several slots") != report.out.npos);
  CHECK(run("verify @trace-zero-prompt/t.moetrace.h5").code != 0);
}

TEST_CASE("an engine that only counts gets its loads, after public reports") {
  if (!fs::exists(public_cases()))
    return test::skip("no golden/public in ../shared");
  const std::string trace = "report @trace-counts-only/t.moetrace.h5 --format csv";
  const Result report = run(trace);
  INFO(report.err);
  REQUIRE(report.code == 0);
  // of the summed counts, with NumPy: c.std() / c.mean()
  CHECK(report.out.find("load,0,CV,0.251967") != report.out.npos);
  CHECK(report.out.find("load,1,CV,0.157973") != report.out.npos);
  double sum = 0;
  std::istringstream lines(report.out);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("load_counts,") && line.find(",assignments,") != line.npos)
      sum += std::stod(line.substr(line.find(",assignments,") + 13));
  }
  CHECK(sum == 1755 + 1612);
  CHECK(run("verify @trace-counts-only/t.moetrace.h5").out.find("whole") != std::string::npos);
}

}  // namespace moe::cli
