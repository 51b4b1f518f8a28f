// Files that were damaged, disks that are full, numbers that stop being numbers, two writers: said
// in a sentence, with the right exit code, and what was good before is still there.
#include <catch2/catch.hpp>
#include <csignal>
#include <thread>

#include "tests/cli/program.h"

namespace moe::cli {
namespace {

void cut(const fs::path& path, double share) {
  fs::resize_file(path, std::uintmax_t(double(fs::file_size(path)) * share));
}

void says(const Result& r, int code, const std::string& part) {
  INFO(r.err);
  CHECK(r.code == code);
  CHECK(r.err.find(part) != r.err.npos);
}

bool leftover(const Folder& f) {  // a file that is neither whole nor marked as partial
  for (const std::string& name : f.names()) {
    if (name.find(".tmp") != name.npos || name.find("/.") != name.npos || name[0] == '.')
      return true;
  }
  return false;
}

}  // namespace

TEST_CASE("damaged checkpoints and traces") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 4 --save-every 2 -o a").code == 0);
  REQUIRE(f.run("trace a --data text:path=corpus,split=valid --tokens 300 -o t.h5").code == 0);
  const auto eval = [&](const std::string& model) {
    return f.run("eval " + model + " --data text:path=corpus,split=valid --tokens 100");
  };
  cut(f / "a/checkpoint-00000004/model.safetensors", 0.7);
  says(eval("a/checkpoint-00000004"), 3, "model.safetensors");
  says(eval("a"), 0, "checkpoint-00000004");  // skipped, and said so
  says(f.run("verify a"), 1, "");
  put(f / "a/checkpoint-00000002/MANIFEST.json", "{\"files\": 3}");
  says(eval("a"), 3, "checkpoint-00000002");
  says(f.run("train --resume a"), 3, "checkpoint-00000002");
  fs::copy_file(f / "t.h5", f / "cut.h5");
  cut(f / "cut.h5", 0.5);
  says(f.run("report cut.h5"), 3, "cut.h5");
  CHECK(f.run("verify cut.h5").code == 1);
  std::string bytes = text_of(f / "t.h5");
  // most of the last chunks is filling
  for (std::size_t i = bytes.size() / 5; i < bytes.size() / 5 * 4; ++i)
    bytes[i] = char(bytes[i] ^ 0x5a);
  put(f / "bent.h5", bytes);
  CHECK(f.run("verify bent.h5").code == 1);
  const int code = f.run("report bent.h5").code;
  CHECK((code == 0 || code == 3));  // report reads what it needs; it must not crash
}

TEST_CASE("full disks") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 2 -o a").code == 0);
  const std::string before = text_of(f / "a/checkpoint-00000002/model.safetensors");
  says(f.run("train --resume a --steps 4", {.file_limit = 300'000}), 4, "model.safetensors");
  CHECK(text_of(f / "a/checkpoint-00000002/model.safetensors") == before);
  CHECK(!fs::exists(f / "a/checkpoint-00000004"));
  CHECK(f.run("verify a").code == 0);
  CHECK(f.run("train --resume a --steps 4").code == 0);
  says(f.run("trace a --data text:path=corpus,split=valid -o t.h5", {.file_limit = 60'000}), 4,
       "t.h5");
  CHECK(!fs::exists(f / "t.h5"));
  REQUIRE(f.run("trace a --data text:path=corpus,split=valid --tokens 500 -o u.h5").code == 0);
  says(f.run("report u.h5 -o r.html", {.file_limit = 5'000}), 4, "r.html");
  CHECK(!fs::exists(f / "r.html"));
  CHECK(f.run("report u.h5 --all", {.file_limit = 5'000}).code == 4);  // stdout
  CHECK(!leftover(f));
}

TEST_CASE("numbers that are none stop a run before they are kept") {
  const Folder f;
  const Result r =
      f.run(nano + " --steps 5 --save-every 1 --lr 1e30 --schedule constant:warmup=0 -o a");
  INFO(r.err);
  CHECK(r.code == 6);
  CHECK(r.err.find("step 2") != r.err.npos);
  CHECK(r.err.find("first in") != r.err.npos);  // a layer, or the gradient of a parameter
  CHECK(r.err.find("is kept in a") != r.err.npos);
  CHECK(f.run("verify a").code == 0);
  CHECK(!fs::exists(f / "a/checkpoint-00000002"));
}

TEST_CASE("one writer a run") {
  const Folder f;
  Process first(f.path(), words_of(nano + " --steps 100000 --eval-every 0 --save-every 1 -o a"));
  const double until = now() + 60;
  while (now() < until && !fs::exists(f / "a/checkpoint-00000001"))
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  says(f.run("train --resume a"), 4, "is being written by process");
  says(f.run(nano + " --force --steps 1 -o a"), 4, "is being written by process");
  first.signal(SIGTERM);
  const Result r = first.wait();
  CHECK(r.code == 143);
  CHECK(r.err.find("moe train --resume a") != r.err.npos);
  CHECK(f.run("verify a").code == 0);
  CHECK(!fs::exists(f / "a/lock"));
  put(f / "a/notes.txt", "mine");
  CHECK(f.run(nano + " --force --steps 1 -o a").code == 0);
  CHECK(text_of(f / "a/notes.txt") == "mine");
}

}  // namespace moe::cli
