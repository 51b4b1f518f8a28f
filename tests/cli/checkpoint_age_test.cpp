// Whoever names a run hears which checkpoint stood for it, and is warned where that is older than
// the run, or has learnt nothing.
#include <catch2/catch.hpp>

#include "tests/cli/program.h"

namespace moe::cli {

namespace {

const std::string eval = " --data text:path=corpus --tokens 64 --batch 2 --length 32";

bool says(const Result& r, const std::string& part) {
  return r.err.find(part) != r.err.npos;
}

}  // namespace

TEST_CASE("a run that is read is named by its checkpoint and step") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 4 --save-every 2 --keep 9 -o run").code == 0);
  const std::string later = "its metrics.jsonl goes on to step 4";
  const std::string untrained = "it has learnt nothing yet";
  for (const std::string& verb : {"eval run" + eval, "trace run -o t.h5 --force" + eval,
                                  std::string("generate run --prompt a --tokens 1")}) {
    const Result r = f.run(verb);
    INFO(r.err);
    REQUIRE(r.code == 0);
    CHECK(says(r, "checkpoint-00000004 of run, step 4 of 4"));
    CHECK_FALSE(says(r, later));
    CHECK_FALSE(says(r, untrained));
  }
  fs::remove_all(f / "run/checkpoint-00000004");
  const Result older = f.run("eval run" + eval);
  CHECK(says(older, "checkpoint-00000002 of run, step 2 of 4"));
  CHECK(says(older, later));
  CHECK_FALSE(says(older, untrained));
  CHECK_FALSE(says(f.run("eval run/checkpoint-00000002" + eval), later));  // it was asked for
  fs::remove_all(f / "run/checkpoint-00000002");
  const Result oldest = f.run("eval run" + eval);
  CHECK(says(oldest, later));
  CHECK(says(oldest, untrained));
  CHECK(says(f.run("eval run/checkpoint-00000000" + eval), untrained));
}

}  // namespace moe::cli
