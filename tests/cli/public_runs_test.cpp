// Situations after public bug reports that need no files from elsewhere, or no model: a run resumed
// on other data, a router without gradient, a trace that another program writes, a balance loss
// under padding.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <thread>

#include "tests/cli/program.h"
#include "tests/skip.h"

namespace moe::cli {
namespace {

fs::path public_cases() {
  const char* shared = std::getenv("MOE_SHARED");
  return fs::path(shared ? shared : MOE_SOURCE_DIR "/../shared") / "golden/public";
}

bool says(const Result& r, const std::string& part) {
  return r.err.find(part) != r.err.npos;
}

}  // namespace

TEST_CASE("a run does not go on with other data than it began with, unless told to") {
  const Folder f;
  put(f / "D/text.txt", std::string(20000, 'a'));
  const std::string train =
      "train --data text:path=D --model nano --steps 4 --batch 2 --length 32 --save-every 2 "
      "--eval-tokens 64 -o r";
  REQUIRE(f.run(train).code == 0);
  fs::remove_all(f / "r/checkpoint-00000004");
  put(f / "D/text.txt", std::string(20000, 'b'));
  const Result other = f.run("train --resume r");
  INFO(other.err);
  CHECK(other.code == 3);
  CHECK(says(other, "text"));
  CHECK_FALSE(fs::exists(f / "r/checkpoint-00000004"));
  CHECK(f.run("train --resume r --data-changed accept").code == 0);
}

TEST_CASE("one expert a token with normalised weights is warned of, in the log too") {
  for (const std::string router : {"softmax:k=1", "sigmoid:k=1"}) {
    const Folder f;
    const Result r =
        f.run(nano + " --router " + router + " --balance none --train router --steps 2 -o r");
    INFO(r.err);
    CHECK(r.code == 0);
    CHECK(says(r, "gets no gradient"));
    CHECK(text_of(f / "r/metrics.jsonl").find("gets no gradient") != std::string::npos);
  }
  const Folder f;
  CHECK_FALSE(says(f.run(nano + " --router softmax:k=1,norm=0 --balance none --steps 1 -o r"),
                   "gets no gradient"));
}

TEST_CASE("a trace that another program holds open for writing is called that") {
  const Folder f;
  REQUIRE(f.run("synth uniform --tokens 200 --layers 1 -o t.h5").code == 0);
  const std::string hold =
      "cd '" + f.path().string() +
      "' && /usr/bin/python3 -c \"import h5py, os, time\nf = h5py.File('t.h5', 'r+')\n"
      "open('held', 'w').close()\nwhile not os.path.exists('enough'): time.sleep(0.02)\" "
      ">/dev/null 2>&1; touch gone";
  std::thread holder([&] { [[maybe_unused]] const int code = std::system(hold.c_str()); });
  while (!fs::exists(f / "held") && !fs::exists(f / "gone"))
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const bool held = fs::exists(f / "held");
  const Result locked = held ? f.run("report t.h5") : Result{};
  put(f / "enough", "");
  holder.join();
  if (!held)
    return test::skip("no python3 with h5py");
  INFO(locked.err);
  CHECK((locked.code == 3 || locked.code == 4));
  CHECK(says(locked, "another program has it open for writing"));
  CHECK(f.run("report t.h5 --bootstrap 0").code == 0);
}

TEST_CASE("the balance loss of a padded trace by another library's definition is that library's") {
  const fs::path trace = public_cases() / "aux-mask/t.moetrace.h5";
  if (!fs::exists(trace))
    return test::skip("no golden/public in ../shared");
  const Folder f;
  const Result r = f.run("report " + trace.string() + " --convention hf --format csv");
  INFO(r.out);
  CHECK(r.code == 0);
  CHECK(r.out.find("2.15184") != r.out.npos);  // 2.144192 where padding counts
}

}  // namespace moe::cli
