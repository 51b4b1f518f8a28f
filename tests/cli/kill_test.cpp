// kill -9 at random moments of a training run and of a trace. MOE_KILLS=50 for more than the six of
// every day; the figures go to stderr.
#include <catch2/catch.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "lib/trace/reader.h"
#include "tests/cli/program.h"
#include "tests/cli/rows.h"

namespace moe::cli {
namespace {

int kills() {
  const char* n = std::getenv("MOE_KILLS");
  return n ? std::atoi(n) : 6;
}

// Runs the words and kills after a random share of `length` seconds; false where it was done
// before.
bool killed(const Folder& f, const std::string& words, double length, std::mt19937& random) {
  Process process(f.path(), words_of(words));
  const double until = now() + std::uniform_real_distribution<double>(0, 1.1 * length)(random);
  while (now() < until && process.running())
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  process.signal(SIGKILL);
  return process.wait().code == 128 + SIGKILL;
}

struct Tally {
  int before = 0, during = 0, after = 0;
  void say(const char* what) const {
    if (std::getenv("MOE_KILLS")) {
      std::fprintf(
          stderr,
          "%s: %d kills before the first checkpoint or row, %d while writing, %d after the end\n",
          what, before, during, after);
    }
  }
};

}  // namespace

TEST_CASE("a training run survives kill -9") {
  const Folder f;
  const std::string start = nano + " --steps 12 --save-every 2 --eval-every 0 --trace-every 2 ";
  const Result whole = f.run(start + "-o whole --trace whole.h5");
  REQUIRE(whole.code == 0);
  const std::string expected = text_of(f / "whole/checkpoint-00000012/model.safetensors");
  std::mt19937 random(std::random_device{}());
  Tally tally;
  for (int n = 0; n < kills(); ++n) {
    const std::string run = "r" + std::to_string(n);
    const std::string trace = run + ".h5";
    const bool early = killed(f, start + "-o " + run + " --trace " + trace, whole.seconds, random);
    bool any = false;  // a finished checkpoint
    if (fs::exists(f / run)) {
      for (const auto& e : fs::directory_iterator(f / run))
        any = any || e.path().filename().string().starts_with("checkpoint-");
    }
    ++(!early ? tally.after : any ? tally.during : tally.before);
    // every checkpoint that has its name is whole
    if (any)
      CHECK(f.run("verify " + run).code == 0);
    const Result on = any ? f.run("train --resume " + run)
                          : f.run(start + "--force -o " + run + " --trace " + trace);
    INFO(on.err);
    REQUIRE(on.code == 0);
    CHECK(text_of(f / (run + "/checkpoint-00000012/model.safetensors")) == expected);
    CHECK(steps_of(f / (run + "/metrics.jsonl")) == steps_of(f / "whole/metrics.jsonl"));
    CHECK(same_rows(f / trace, f / "whole.h5", true));
    fs::remove_all(f / run);
    fs::remove(f / trace);
  }
  tally.say("training");
}

TEST_CASE("a trace survives kill -9") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 1 -o a").code == 0);
  const std::string words =
      "trace a --data text:path=corpus --tokens 6000 --batch 2 --length 32 --redundancy-tokens 0 "
      "--threads 1 -o ";
  const Result whole = f.run(words + "whole.h5");
  REQUIRE(whole.code == 0);
  std::mt19937 random(std::random_device{}());
  Tally tally;
  std::uint64_t most = 0;
  for (int n = 0; n < kills(); ++n) {
    const std::string name = "t" + std::to_string(n) + ".h5";
    const std::string part = name + ".part";
    const bool early = killed(f, words + name, whole.seconds, random);
    if (fs::exists(f / name)) {  // whole or not there
      ++tally.after;
      CHECK(same_rows(f / name, f / "whole.h5", true));
    } else if (fs::exists(f / part)) {
      REQUIRE(early);
      if (const Result r = f.run("show " + part);
          r.err.find("before its first row") != r.err.npos) {
        CHECK(f.run("recover " + part + " -o " + name).code == 3);
        CHECK(!fs::exists(f / name));
        ++tally.before;
        continue;
      }
      ++tally.during;
      const std::uint64_t safe = TraceReader(f / part).tokens();
      const std::string bytes = text_of(f / part);
      const Result r = f.run("recover " + part + " -o " + name);
      INFO(r.err);
      REQUIRE(r.code == 0);
      CHECK(text_of(f / part) == bytes);
      CHECK(TraceReader(f / name).tokens() == safe);
      CHECK(same_rows(f / name, f / "whole.h5", false));
      most = std::max(most, safe);
    } else {
      ++tally.before;
      REQUIRE(early);
    }
  }
  tally.say("trace");
  if (std::getenv("MOE_KILLS")) {
    std::fprintf(stderr, "trace: at most %llu rows recovered of %llu\n",
                 static_cast<unsigned long long>(most),
                 static_cast<unsigned long long>(TraceReader(f / "whole.h5").tokens()));
  }
}

}  // namespace moe::cli
