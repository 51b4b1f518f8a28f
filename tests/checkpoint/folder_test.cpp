// Checkpoint folders: whole or absent whatever happens (kill -9, full disk), found again, pruned,
// locked.
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "lib/checkpoint/folder.h"
#include "lib/checkpoint/run_lock.h"
#include "lib/core/text.h"
#include "tests/checkpoint/help.h"
#include "tests/skip.h"

using namespace moe;
using namespace moe::test;

namespace {

fs::path save(const fs::path& run, std::int64_t step, Index numbers = 1000, int tensors = 6) {
  CheckpointWriter w(run, step);
  std::vector<NamedTensor> model;
  for (int i = 0; i < tensors; ++i) {
    model.emplace_back(concat("w", i),
                       Tensor::from_float(DType::f32, {numbers},
                                          std::vector<float>(std::size_t(numbers), float(step))));
  }
  w.model(model, numbers * 4 * 4);
  w.json("config.json", {{"model_type", "moe"}});
  w.json("state.json", {{"step", step}});
  w.text("tokenizer.json", "{}");
  return w.finish();
}

int hidden(const fs::path& run) {
  int n = 0;
  for (const auto& e : fs::directory_iterator(run))
    n += e.path().filename().native().starts_with(".");
  return n;
}

void damage(const fs::path& file) {
  std::string bytes = slurp(file);
  bytes.back() = char(bytes.back() ^ 1);
  put(file, bytes);
}

int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0)
    ::_exit(body());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

TEST_CASE("a checkpoint is found again, the newest whole one") {
  Scratch dir;
  const fs::path run = dir / "run";
  CHECK(save(run, 100) == run / "checkpoint-00000100");
  save(run, 200);
  save(run, 300);
  CHECK(hidden(run) == 0);
  CHECK(find_checkpoint(run).step == 300);
  CHECK(find_checkpoint(run / "checkpoint-00000200").step == 200);
  CHECK(Tensors(find_checkpoint(run).path).get("w3").to_float()(0, 7) == 300);

  const fs::path newest = run / "checkpoint-00000300";
  const auto skipped = [&](const char* mentions) {
    const Checkpoint c = find_checkpoint(run);
    REQUIRE(c.notes.size() == 1);
    INFO(c.notes[0]);
    CHECK((c.step == 200 && c.notes[0].find(mentions) != std::string::npos &&
           c.notes[0].find("checkpoint-00000300") != std::string::npos));
    const Outcome o = outcome([&] { find_checkpoint(newest); });
    CHECK((o.code == Exit::input && o.what.find(mentions) != std::string::npos));
  };
  SECTION("a changed byte") {
    damage(newest / "model-00001-of-00002.safetensors");
    CHECK(checkpoint_problem(newest, false).empty());
    skipped("hash");
  }
  SECTION("a cut file") {
    fs::resize_file(newest / "state.json", 3);
    skipped("state.json' has 3 bytes");
  }
  SECTION("a missing file") {
    fs::remove(newest / "tokenizer.json");
    skipped("tokenizer.json' is missing");
  }
  SECTION("a broken manifest") {
    for (const char* text :
         {"", "{", "[]",
          R"({"format":"moe-checkpoint","version":1,"step":1,)"
          R"("files":{"../x":{"bytes":1,"xxh3":"0000000000000000"}}})",
          R"({"format":"moe-checkpoint","version":2,"step":1,"files":{}})",
          R"({"format":"moe-checkpoint","version":1,"step":1,"files":{}})",
          R"({"format":"moe-checkpoint","version":1,"step":1,"files":{"state.json":{"bytes":-1,)"
          R"("xxh3":"0"}}})"}) {
      put(newest / "MANIFEST.json", text);
      skipped("MANIFEST.json");
    }
  }
  SECTION("all are broken") {
    for (const auto step : checkpoint_steps(run))
      fs::resize_file(run / checkpoint_name(step) / "state.json", 3);
    const Outcome o = outcome([&] { find_checkpoint(run); });
    CHECK((o.code == Exit::input && o.what.find("no valid checkpoint") != std::string::npos &&
           o.what.find("00000100") != std::string::npos));
  }
}

TEST_CASE("what is not a checkpoint is said in one sentence") {
  Scratch dir;
  const auto says = [&](const fs::path& p, const char* mentions) {
    const Outcome o = outcome([&] { find_checkpoint(p); });
    INFO(o.what);
    CHECK((o.threw && o.code == Exit::input && o.what.find(mentions) != std::string::npos &&
           o.what.find(p.filename().native()) != std::string::npos));
  };
  says(dir / "none", "there is no run");
  put(dir / "file", "x");
  says(dir / "file", "is a file");
  says(dir.path, "neither a run nor a checkpoint");
  put(dir / "run.json", "{}");
  says(dir.path, "no checkpoint yet");
  put(dir / "config.json", "{}");
  says(dir.path, "neither model.safetensors");
  // a plain published folder: its files are checked when they are opened
  put(dir / "model.safetensors", "x");
  CHECK(find_checkpoint(dir.path).step == -1);
}

TEST_CASE("files put into the folder by others are in the manifest") {
  Scratch dir;
  CheckpointWriter w(dir / "run", 7);
  put(w.folder() / "extra.bin", "hello");
  w.json("config.json", Json::object());
  const fs::path path = w.finish();
  CHECK(checkpoint_problem(path).empty());
  damage(path / "extra.bin");
  CHECK(checkpoint_problem(path).find("extra.bin") != std::string::npos);
  CHECK(outcome([&] {
          CheckpointWriter v(dir / "run", 8);
          v.text("../x", "");
        }).code == Exit::bug);
  CHECK(hidden(dir / "run") == 0);  // given up: removed
}

TEST_CASE("files of folders inside are copied, listed and checked") {
  Scratch dir;
  std::string bytes(3'000'000, 'x');
  bytes.back() = 'y';
  put(dir / "from", bytes);
  CheckpointWriter w(dir / "run", 7);
  w.copy("tower/deep/model.safetensors", dir / "from");
  w.json("config.json", Json::object());
  const fs::path path = w.finish();
  CHECK(slurp(path / "tower/deep/model.safetensors") == slurp(dir / "from"));
  CHECK(checkpoint_problem(path).empty());
  damage(path / "tower/deep/model.safetensors");
  CHECK(checkpoint_problem(path).find("tower/deep/model.safetensors") != std::string::npos);
  for (const char* name : {"../x", "tower/../../x", "/x", "tower//x", "tower/", ""}) {
    INFO(name);
    CHECK(outcome([&] {
            CheckpointWriter v(dir / "run", 8);
            v.copy(name, dir / "from");
          }).code == Exit::bug);
  }
  // an empty folder that nobody filled is no part of a checkpoint
  CheckpointWriter v(dir / "run", 9);
  fs::create_directory(v.folder() / "other");
  v.json("config.json", Json::object());
  CHECK(outcome([&] { v.finish(); }).code == Exit::bug);
}

TEST_CASE("the same step again replaces the checkpoint whole") {
  Scratch dir;
  save(dir.path, 5, 10);
  save(dir.path, 5, 20);
  CHECK(Tensors(find_checkpoint(dir.path).path).at("w0").dims == Dims{20});
  CHECK((hidden(dir.path) == 0 && checkpoint_steps(dir.path).size() == 1));
}

TEST_CASE("prune keeps the newest, and never takes the last that works") {
  Scratch dir;
  for (const int s : {1, 2, 3, 4, 5})
    save(dir.path, s, 10, 1);
  const auto steps = [&] {
    return checkpoint_steps(dir.path);
  };
  CHECK(prune(dir.path, 9).empty());
  CHECK(prune(dir.path, 4).size() == 1);
  CHECK(steps() == std::vector<std::int64_t>{5, 4, 3, 2});
  damage(dir / "checkpoint-00000005/model.safetensors");
  damage(dir / "checkpoint-00000004/model.safetensors");
  SECTION("kept ones are broken") {
    prune(dir.path, 2);
    CHECK(steps() == std::vector<std::int64_t>{5, 4, 3});
    CHECK(find_checkpoint(dir.path).step == 3);
  }
  SECTION("all are broken: all stay") {
    damage(dir / "checkpoint-00000003/model.safetensors");
    damage(dir / "checkpoint-00000002/model.safetensors");
    prune(dir.path, 1);
    CHECK(steps().size() == 4);
  }
  SECTION("a trusted one is not read again") {
    prune(dir.path, 1, dir / "checkpoint-00000005");
    CHECK(steps() == std::vector<std::int64_t>{5});
  }
  CHECK(outcome([&] { prune(dir.path, 0); }).code == Exit::usage);
  CHECK(hidden(dir.path) == 0);
}

TEST_CASE("kill -9 while checkpoints are written: every one that is there is whole") {
  Scratch dir;
  const fs::path run = dir / "run";
  const char* wanted = std::getenv("MOE_KILLS");
  const int kills = wanted ? std::atoi(wanted) : 12;
  std::mt19937 random(7);
  std::int64_t next = 1;
  int partial = 0;  // kills that left a hidden folder: they struck within a write
  for (int kill = 0; kill < kills; ++kill) {
    int pipe[2];
    REQUIRE(::pipe(pipe) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      RunLock lock(run);
      for (std::int64_t step = next;; ++step) {
        const fs::path saved = save(run, step, 3000);
        if (::write(pipe[1], &step, sizeof step) != sizeof step)
          ::_exit(9);
        prune(run, 2, saved);
      }
    }
    ::close(pipe[1]);
    std::int64_t acknowledged = 0;
    std::int64_t step = 0;
    // past the first one
    REQUIRE(::read(pipe[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 60'000));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    while (::read(pipe[0], &step, sizeof step) == sizeof step)
      acknowledged = step;
    ::close(pipe[0]);
    const Checkpoint found = find_checkpoint(run);
    CHECK((found.notes.empty() && found.step >= acknowledged && found.step <= acknowledged + 1));
    CHECK(Tensors(found.path).get("w5").to_float()(0, 2999) == float(found.step));
    for (const auto s : checkpoint_steps(run))
      CHECK(checkpoint_problem(run / checkpoint_name(s)).empty());
    partial += hidden(run) > 0;
    next = found.step + 1;
  }
  CHECK(partial > 0);
  save(run, next);
  CHECK(hidden(run) == 0);
  if (std::getenv("MOE_TIMES")) {
    std::fprintf(stderr, "%d kills, %d within a write, last step %ld\n", kills, partial,
                 long(next));
  }
}

TEST_CASE("a file size limit at any point leaves what was there") {
  Scratch dir;
  save(dir.path, 1, 1000, 1);
  for (const rlim_t limit : {0, 1, 10, 100, 1000, 3000, 4000, 4100}) {
    INFO("limit " << limit);
    const int result = in_child([&] {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit r{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &r);
      const Outcome o = outcome([&] { save(dir.path, 2, 1000, 1); });
      if (!o.threw || o.code != Exit::io)
        return 1;
      const bool says = o.what.find("cannot write") != std::string::npos &&
                        o.what.find("checkpoint-00000002") != std::string::npos &&
                        o.what.find(" bytes") != std::string::npos &&
                        o.what.find("free") != std::string::npos;
      return says ? 0 : 2;
    });
    CHECK(result == 0);
    CHECK((find_checkpoint(dir.path).step == 1 && hidden(dir.path) == 0 &&
           checkpoint_steps(dir.path).size() == 1));
  }
}

TEST_CASE("a full disk") {  // where this process may mount one of its own
  Scratch dir;
  const int result = in_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", dir.path.c_str(), "tmpfs", 0, "size=256k") != 0) {
      return 77;
    }
    save(dir.path, 1, 1000, 1);
    for (int i = 2; i < 40; ++i) {
      const Outcome o = outcome([&] { save(dir.path, i, 10'000, 1); });
      if (!o.threw)
        continue;
      if (i < 3 || o.code != Exit::io || o.what.find("No space left") == std::string::npos ||
          o.what.find("are free there") == std::string::npos) {
        return 1;
      }
      return find_checkpoint(dir.path).step == i - 1 && hidden(dir.path) == 0 ? 0 : 2;
    }
    return 3;
  });
  if (result == 77)
    test::skip("no right to mount a small file system");
  else
    CHECK(result == 0);
}

TEST_CASE("one writer a run folder") {
  Scratch dir;
  const fs::path run = dir / "run";
  const fs::path file = run / "lock";
  {
    const RunLock lock(run);
    CHECK(slurp(file).find(std::to_string(::getpid())) != std::string::npos);
    for (const bool child : {false, true}) {
      const auto second = [&] {
        const Outcome o = outcome([&] { RunLock again(run); });
        return o.code == Exit::io &&
                       o.what.find(concat("process ", child ? ::getppid() : ::getpid())) !=
                           std::string::npos
                   ? 0
                   : 1;
      };
      CHECK((child ? in_child(second) : second()) == 0);
    }
  }
  CHECK_FALSE(fs::exists(file));
  CHECK(in_child([&] {  // dies holding it
          RunLock lock(run);
          ::kill(::getpid(), SIGKILL);
          return 0;
        }) == 128 + SIGKILL);
  REQUIRE(fs::exists(file));
  { const RunLock taken(run); }
  for (const char* text : {"", "garbage", "{}", "{\"pid\":\"x\",\"host\":3}"}) {
    put(file, text);
    CHECK_FALSE(outcome([&] { RunLock lock(run); }).threw);
  }
  put(file, R"({"pid":12,"host":"another-machine"})");
  const Outcome o = outcome([&] { RunLock lock(run); });
  CHECK(
      (o.code == Exit::io && o.what.find("process 12 on 'another-machine'") != std::string::npos));
  CHECK(slurp(file).find("another-machine") != std::string::npos);
}

TEST_CASE("what an ended process left goes, also before its parent has asked how it ended") {
  const Scratch scratch;
  const pid_t child = ::fork();
  if (child == 0)
    ::_exit(0);
  siginfo_t ended{};
  REQUIRE(::waitid(P_PID, id_t(child), &ended, WEXITED | WNOWAIT) == 0);
  const fs::path left = scratch / concat(".tmp-checkpoint-00000001-", child);
  fs::create_directories(left);
  REQUIRE(::kill(child, 0) == 0);  // it has its number still
  remove_unfinished_checkpoints(scratch.path);
  CHECK_FALSE(fs::exists(left));
  ::waitpid(child, nullptr, 0);
  const fs::path busy = scratch / concat(".tmp-checkpoint-00000001-", ::getppid());
  fs::create_directories(busy);
  remove_unfinished_checkpoints(scratch.path);
  CHECK(fs::exists(busy));  // of somebody who is at work
}
