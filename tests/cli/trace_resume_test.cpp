// A run that was being recorded and stopped, and whose trace holds other rows than its checkpoint
// names: it goes on, says what became of the trace, and writes nowhere because a file says so.
#include <catch2/catch.hpp>

#include "lib/trace/reader.h"
#include "tests/cli/interposed.h"
#include "tests/cli/rows.h"

namespace moe::cli {
namespace {

const std::string recorded = nano + " --steps 12 --save-every 3 --keep 9 --eval-every 0 ";

// A run of that name, killed before its checkpoint of step `at` had a file, and its trace's .part.
void killed_run(const Folder& f, const std::string& run, int at) {
  fs::remove_all(f / run);
  fs::remove(f / (run + ".h5.part"));
  const fs::path unfinished =
      f / (run + "/.tmp-checkpoint-" + (at < 10 ? "0000000" : "000000") + std::to_string(at));
  const Result r =
      f.run(recorded + "-o " + run + " --trace " + run + ".h5", interposed(unfinished, "kill", 0));
  REQUIRE(r.code == 128 + 9);
  REQUIRE(fs::exists(f / (run + ".h5.part")));
}

std::string weights(const Folder& f, const std::string& run) {
  return text_of(f / (run + "/checkpoint-00000012/model.safetensors"));
}

std::string whole_weights(const Folder& f) {
  REQUIRE(f.run(recorded + "-o whole --trace whole.h5").code == 0);
  return weights(f, "whole");
}

}  // namespace

TEST_CASE("a run whose trace is gone goes on with a new one") {
  const Folder f;
  const std::string expected = whole_weights(f);
  for (const std::string& harm : {std::string("removed"), std::string("cut")}) {
    INFO(harm);
    killed_run(f, harm, 12);
    const fs::path part = f / (harm + ".h5.part");
    if (harm == "removed")
      fs::remove(part);
    else
      fs::resize_file(part, 1000);
    const Result r = f.run("train --resume " + harm);
    INFO(r.err);
    CHECK(r.code == 0);
    CHECK(r.err.find("a new trace begins with step 10") != r.err.npos);
    CHECK(weights(f, harm) == expected);
    CHECK(fs::exists(part.string() + ".old") == (harm == "cut"));
    const TraceReader t(f / (harm + ".h5"));
    CHECK(t.state().complete);
    CHECK(t.steps().front().step == 10);
    CHECK(t.tokens() == 3 * 64);
  }
}

TEST_CASE("a run whose trace is short goes on from the checkpoint that it agrees with") {
  const Folder f;
  const std::string expected = whole_weights(f);
  killed_run(f, "run", 6);
  fs::rename(f / "run.h5.part", f / "short.part");
  killed_run(f, "run", 12);
  fs::rename(f / "short.part", f / "run.h5.part");
  const Result r = f.run("train --resume run");
  INFO(r.err);
  CHECK(r.code == 0);
  // the commits of the steps 4 to 6 came before the checkpoint of step 6
  CHECK(r.err.find("holds 384 of the 576 rows that the checkpoint of step 9 names: going on from "
                   "that of step 6") != r.err.npos);
  CHECK(weights(f, "run") == expected);
  CHECK(same_rows(f / "run.h5", f / "whole.h5", true));
}

TEST_CASE("a run goes on without its trace, or with another file") {
  const Folder f;
  const std::string expected = whole_weights(f);
  killed_run(f, "a", 12);
  const std::string before = text_of(f / "a.h5.part");
  CHECK(f.run("train --resume a --trace none").code == 0);
  CHECK(weights(f, "a") == expected);
  CHECK(text_of(f / "a.h5.part") == before);
  CHECK(!fs::exists(f / "a.h5"));
  killed_run(f, "b", 12);
  fs::rename(f / "b.h5.part", f / "moved.h5.part");
  const Result moved = f.run("train --resume b --trace moved.h5");
  INFO(moved.err);
  CHECK(moved.code == 0);
  CHECK(weights(f, "b") == expected);
  CHECK(same_rows(f / "moved.h5", f / "whole.h5", true));
}

TEST_CASE("a run from another machine writes no trace outside of its folder") {
  const Folder f;
  const std::string expected = whole_weights(f);
  killed_run(f, "run", 12);
  fs::remove(f / "run/machine.json");
  fs::remove(f / "run.h5.part");
  const Result r = f.run("train --resume run");
  INFO(r.err);
  CHECK(r.code == 3);
  CHECK(r.err.find("was not begun on this machine by this user") != r.err.npos);
  CHECK(!fs::exists(f / "run.h5.part"));
  CHECK(!fs::exists(f / "run.h5"));
  const Result asked = f.run("train --resume run --trace run.h5");
  INFO(asked.err);
  CHECK(asked.code == 0);
  CHECK(weights(f, "run") == expected);
  killed_run(f, "in", 12);
  fs::remove(f / "in/machine.json");
  CHECK(f.run("train --resume in --trace in/t.h5").code == 0);
  CHECK(weights(f, "in") == expected);
  CHECK(!fs::exists(f / "in/machine.json"));
}

TEST_CASE("a trace of another run is neither gone on with nor replaced") {
  const Folder f;
  killed_run(f, "run", 12);
  fs::remove(f / "run.h5.part");
  REQUIRE(f.run(recorded + "--seed 2 -o other --trace run.h5",
                interposed(f / "other/.tmp-checkpoint-00000006", "kill", 0))
              .code == 128 + 9);
  const std::string before = text_of(f / "run.h5.part");
  const Result r = f.run("train --resume run");
  INFO(r.err);
  CHECK(r.code == 3);
  CHECK(r.err.find("is the trace of another run") != r.err.npos);
  CHECK(text_of(f / "run.h5.part") == before);
}

}  // namespace moe::cli
