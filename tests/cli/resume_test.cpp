// Stopping and going on: a signal finishes the step and saves; a resumed run ends with the same
// bytes as one that was never stopped, its metrics have every step once, its trace every row once.
#include <catch2/catch.hpp>
#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/cli/program.h"
#include "tests/cli/rows.h"

namespace moe::cli {
namespace {

std::string model(const Folder& f, const std::string& run,
                  const std::string& file = "model.safetensors") {
  const std::string bytes = text_of(f / (run + "/checkpoint-00000008/" + file));
  REQUIRE(!bytes.empty());
  return bytes;
}

void wait_for(const fs::path& path) {
  for (const double until = now() + 60; now() < until && !fs::exists(path);)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace

TEST_CASE("a stopped run goes on to the same bytes") {
  const Folder f;
  for (const std::string& kind :
       {std::string(""), std::string(" --router sigmoid:k=2,bias=1 --balance bias --accumulate 2"),
        std::string(" --router softmax:k=2,bias=1,temperature=2..0.5 --balance quantile:ema=0.5 "
                    "--balance concat")}) {
    INFO(kind);
    const std::string tag = kind.empty() ? "a" : kind.find("quantile") == kind.npos ? "b" : "c";
    const std::string start = nano + kind + " --steps 8 --save-every 2 --eval-every 4 -o ";
    REQUIRE(f.run(start + tag + "whole --trace " + tag + "whole.h5 --trace-every 2").code == 0);
    for (const int signal : {SIGINT, SIGTERM}) {
      const std::string run = tag + std::to_string(signal);
      Process process(f.path(), words_of(start + run + " --trace " + run + ".h5 --trace-every 2"));
      wait_for(f / (run + "/checkpoint-00000002"));
      process.signal(signal);
      const Result r = process.wait();
      INFO(r.err);
      CHECK((r.code == 128 + signal || r.code == 0));  // 0: it was done before the signal came
      if (r.code != 0)
        CHECK(r.err.find("saved; go on with: moe train --resume " + run) != r.err.npos);
      CHECK(f.run("train --resume " + run).code == 0);
      CHECK(model(f, run) == model(f, tag + "whole"));
      CHECK(model(f, run, "optimizer.safetensors") ==
            model(f, tag + "whole", "optimizer.safetensors"));
      CHECK(steps_of(f / (run + "/metrics.jsonl")) == steps_of(f / (tag + "whole/metrics.jsonl")));
      CHECK(same_rows(f / (run + ".h5"), f / (tag + "whole.h5"), true));
    }
  }
}

TEST_CASE("the number of threads changes no byte") {
  const Folder f;
  const std::string start =
      "train --data text:path=corpus --model nano --batch 2 --length 32 --eval-tokens 128 --steps "
      "8 -o ";
  REQUIRE(f.run(start + "one --threads 1").code == 0);
  REQUIRE(f.run(start + "two --threads 2").code == 0);
  CHECK(model(f, "one") == model(f, "two"));
}

TEST_CASE("an interrupted trace says how to keep its rows") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 1 -o a").code == 0);
  Process process(f.path(), words_of("trace a --data text:path=corpus --tokens 2000000 --batch 2 "
                                     "--length 32 --threads 1 -o t.h5"));
  wait_for(f / "t.h5.part");
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  process.signal(SIGINT);
  const Result r = process.wait();
  INFO(r.err);
  CHECK(r.code == 130);
  CHECK(r.err.find("moe recover t.h5.part -o t.h5") != r.err.npos);
  CHECK(!fs::exists(f / "t.h5"));
  const Result kept = f.run("recover t.h5.part -o t.h5");
  INFO(kept.err);
  CHECK(kept.code == 0);
  CHECK(f.run("verify t.h5").code == 0);
}

TEST_CASE("a run goes on with the data that it began with, or is told to accept others") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 4 --save-every 2 -o run").code == 0);
  fs::remove_all(f / "run/checkpoint-00000004");
  const std::string before = text_of(f / "corpus/english.txt");
  std::string changed = before;
  changed.back() = '!';
  put(f / "corpus/english.txt", changed);
  const std::string metrics = text_of(f / "run/metrics.jsonl");
  const Result refused = f.run("train --resume run");
  INFO(refused.err);
  CHECK(refused.code == 3);
  CHECK(refused.err.find("domain 'english' has other text of the same length") != refused.err.npos);
  CHECK(text_of(f / "run/metrics.jsonl") == metrics);
  put(f / "corpus/english.txt", changed + " and more");
  CHECK(f.run("train --resume run").err.find("domain 'english' had ") != std::string::npos);
  put(f / "corpus/english.txt", before);
  REQUIRE(f.run("train --resume run --steps 6").code == 0);
  put(f / "corpus/english.txt", changed);
  REQUIRE(f.run("train --resume run --steps 8 --data-changed accept").code == 0);
  CHECK(f.run("train --resume run --steps 10").code == 0);  // accepted once
  const Result fresh = f.run(nano + " --steps 1 --data-changed accept -o new");
  CHECK(fresh.code == 2);
  CHECK(fresh.err.find("--data-changed is for --resume") != fresh.err.npos);
}

}  // namespace moe::cli
