// Signals within a step, and words and names that are odd: what a person or a batch system does to
// a running program, and what a path may be on Linux.
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <thread>

#include "tests/cli/interposed.h"
#include "tests/cli/rows.h"

namespace moe::cli {
namespace {

void wait_for(const fs::path& path) {
  for (const double until = now() + 60; now() < until && !fs::exists(path);)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
}

}  // namespace

TEST_CASE("a signal within a step is heard between its micro-batches") {
  const Folder f;
  for (const int signal : {SIGTERM, SIGHUP, SIGUSR1}) {
    INFO(signal);
    const std::string run = "s" + std::to_string(signal);
    // one step would take hours
    Process process(f.path(), words_of(nano + " --steps 2 --accumulate 1000000 -o " + run));
    wait_for(f / (run + "/checkpoint-00000000"));
    process.signal(signal);
    const Result r = process.wait();
    INFO(r.err);
    CHECK(r.code == 128 + signal);
    CHECK(r.err.find("stopped at step 0 of 2, saved") != r.err.npos);
  }
}

TEST_CASE("a step that was given up leaves no rows and no other bytes behind") {
  const Folder f;
  const std::string start = nano +
                            " --steps 4 --save-every 2 --accumulate 40 --router "
                            "sigmoid:k=2,bias=1 --balance quantile:ema=0.5 -o ";
  REQUIRE(f.run(start + "whole --trace whole.h5").code == 0);
  Process process(f.path(), words_of(start + "run --trace run.h5"));
  wait_for(f / "run/checkpoint-00000000");
  process.signal(SIGTERM);
  const Result stopped = process.wait();
  INFO(stopped.err);
  REQUIRE((stopped.code == 128 + SIGTERM || stopped.code == 0));
  CHECK(f.run("train --resume run").code == 0);
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    CHECK(text_of(f / "run/checkpoint-00000004" / file) ==
          text_of(f / "whole/checkpoint-00000004" / file));
  }
  CHECK(same_rows(f / "run.h5", f / "whole.h5", true));
}

TEST_CASE("a second SIGTERM ends at once") {
  const Folder f;
  // a micro-batch of seconds
  Process process(f.path(),
                  words_of("train --data text:path=corpus --model nano --batch 1024 --length 64 "
                           "--eval-tokens 128 --threads 1 --steps 2 --accumulate 1000 -o run"));
  wait_for(f / "run/checkpoint-00000000");
  process.signal(SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  process.signal(SIGTERM);
  const Result r = process.wait();
  CHECK(r.code == 128 + SIGTERM);
  CHECK(r.err.find("saved") == r.err.npos);
}

TEST_CASE("a run on data whose path is no UTF-8 is resumed") {
  const Folder f;
  fs::copy(f / "corpus", f / "x\xff", fs::copy_options::recursive);
  const std::string words =
      "train --data text:path=x\xff --model nano --batch 2 --length 32 --eval-tokens 128 "
      "--threads 1 --steps 4 --save-every 2 -o r\xff";
  const Result killed = f.run(words, interposed(f / "r\xff/.tmp-checkpoint-00000004", "kill", 0));
  REQUIRE(killed.code == 128 + SIGKILL);
  const Result resumed = f.run("train --resume r\xff");
  INFO(resumed.err);
  CHECK(resumed.code == 0);
  CHECK(fs::exists(f / "r\xff/checkpoint-00000004"));
}

TEST_CASE("a recovery on a failing disk names no file that it has removed") {
  const Folder f;
  REQUIRE(f.run("synth uniform --tokens 9000 -o t.h5").code == 0);
  const std::string words = "recover t.h5 -o out/t.h5";
  fs::create_directory(f / "out");
  const int calls = calls_of(f, words, f / "out");
  for (int at = 0; at < calls; at += std::max(1, calls / 12)) {
    fs::remove(f / "out/t.h5");
    const Result r = f.run(words, interposed(f / "out", "enospc", at, true));
    INFO(at << ": " << r.err);
    CHECK((r.code == 4 || r.code == 0));
    CHECK(r.err.find("t.h5.recovering are") == r.err.npos);
    CHECK(r.err.find("are safe in out") == r.err.npos);
  }
  fs::remove(f / "out/t.h5");
  for (int at = 0; at < calls; at += std::max(1, calls / 12)) {
    const Result r = f.run(words + " --force", interposed(f / "out", "short", at));
    INFO(at << ": " << r.err);
    CHECK(r.code == 0);
  }
}

}  // namespace moe::cli
