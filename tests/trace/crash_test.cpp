// What an interruption leaves behind: kill -9 at random moments, a disk that is full, a reader
// beside a living writer.
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <chrono>
#include <random>
#include <thread>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"
#include "tests/skip.h"
#include "tests/trace/sample.h"

using namespace moe;

namespace {

sample::Shape shape() {
  sample::Shape s;
  s.fields.kept = s.fields.out_norm = true;
  return s;
}

// Writes until it dies, and says each acknowledged row count through the pipe.
[[noreturn]] void write_for_ever(const std::filesystem::path& path, int pipe,
                                 std::uint64_t commit_each) {
  set_threads(1);
  const auto s = shape();
  TraceWriterOptions options;
  options.fields = s.fields;
  options.acknowledged = [&](std::uint64_t rows) {
    if (::write(pipe, &rows, sizeof rows) != sizeof rows)
      ::_exit(2);
  };
  try {
    TraceWriter w(path, sample::header(s), options);
    for (std::uint64_t at = 0;; at += commit_each) {
      sample::append(w, s, at, at + commit_each);
      w.commit(std::int64_t(at));
    }
  } catch (const std::exception&) {
    ::_exit(3);
  }
}

struct Writer {
  pid_t pid = -1;
  int from = -1;
  Writer(const std::filesystem::path& path, std::uint64_t commit_each) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    pid = ::fork();
    if (pid == 0)
      write_for_ever(path, ends[1], commit_each);
    ::close(ends[1]);
    from = ends[0];
  }
  std::uint64_t wait_for_one() {
    std::uint64_t rows = 0;
    return ::read(from, &rows, sizeof rows) == sizeof rows ? rows : 0;
  }
  std::uint64_t kill_and_count() {  // the last count it had acknowledged
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    std::uint64_t rows = 0;
    std::uint64_t last = 0;
    while (::read(from, &rows, sizeof rows) == sizeof rows)
      last = rows;
    return last;
  }
  ~Writer() {
    ::close(from);
  }
};

// in a child; its exit code, or 1000 + the signal it died of
int run(const std::function<int()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0)
    ::_exit(body());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// Writes until the disk is full. 0 = the failure was reported as it must be.
int fill_up(const std::filesystem::path& path, int pipe) {
  set_threads(1);
  const auto s = shape();
  TraceWriterOptions options;
  options.fields = s.fields;
  std::uint64_t acknowledged = 0;
  options.acknowledged = [&](std::uint64_t rows) {
    acknowledged = rows;
  };
  int verdict = 10;
  try {
    TraceWriter w(path, sample::header(s), options);
    try {
      for (std::uint64_t at = 0; at < 400000; at += 1536)
        sample::append(w, s, at, at + 1536);
      w.finish();
    } catch (const Error& e) {
      const std::string what = e.what();
      verdict = e.code() != Exit::io                                       ? 11
                : what.find(path.filename().string()) == std::string::npos ? 12
                : e.safe().empty()                                         ? 13
                                                                           : 0;
      if (verdict == 0 && w.safe_rows() != acknowledged)
        verdict = 14;
      try {
        w.append(sample::rows(s, 0, 1));
        verdict = 15;  // recording must have stopped
      } catch (const Error&) {
      }
    }
  } catch (const Error& e) {
    verdict = e.code() == Exit::io ? 0 : 16;
  }
  return ::write(pipe, &acknowledged, sizeof acknowledged) == sizeof acknowledged ? verdict : 17;
}

std::uint64_t check_full_disk(const std::filesystem::path& path,
                              const std::function<void()>& limit) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const int code = run([&] {
    limit();
    return fill_up(path, ends[1]);
  });
  CHECK(code == 0);
  std::uint64_t acknowledged = 0;
  REQUIRE(::read(ends[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged);
  ::close(ends[0]);
  ::close(ends[1]);
  CHECK_FALSE(std::filesystem::exists(path));  // never under its final name
  const std::filesystem::path part = path.string() + ".part";
  if (acknowledged == 0)
    return 0;
  const TraceReader r(part);
  CHECK(r.tokens() >= acknowledged);
  CHECK(sample::difference(r, shape(), 0, r.tokens()) == "");
  return acknowledged;
}

}  // namespace

TEST_CASE("kill -9 at random moments loses no acknowledged row") {
  const int kills = sample::env("MOE_KILLS", 12);
  std::mt19937 random(7);
  std::uint64_t kept = 0;
  for (int i = 0; i < kills; ++i) {
    const sample::Folder folder;
    const auto s = shape();
    Writer writer(folder / "a.h5", i % 3 ? 4096 : 1000);  // also commits that end inside a chunk
    std::uint64_t acknowledged = writer.wait_for_one();
    REQUIRE(acknowledged > 0);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 60000));
    acknowledged = std::max(acknowledged, writer.kill_and_count());
    INFO("kill " << i << ", " << acknowledged << " rows acknowledged");
    const TraceReader r(folder / "a.h5.part");
    CHECK(r.tokens() >= acknowledged);
    CHECK_FALSE(r.state().complete);
    CHECK(sample::difference(r, s, 0, r.tokens()) == "");
    CHECK(recover_trace(folder / "a.h5.part", folder / "out.h5", false) == r.tokens());
    CHECK(verify_trace(folder / "out.h5") == std::vector<std::string>{});
    kept += acknowledged;
  }
  CHECK(kept > 0);
  WARN(kills << " kills, " << kept << " acknowledged rows, all there");
}

TEST_CASE("a recording that was killed goes on after --resume") {
  const sample::Folder folder;
  const auto s = shape();
  Writer writer(folder / "a.h5", 1000);
  for (int i = 0; i < 3; ++i)
    REQUIRE(writer.wait_for_one() > 0);
  writer.kill_and_count();
  TraceWriterOptions options;
  options.fields = s.fields;
  options.resume_rows = 2000;
  {
    TraceWriter w(folder / "a.h5", sample::header(s), options);
    sample::append(w, s, 2000, 6000);
    w.finish();
  }
  CHECK(verify_trace(folder / "a.h5") == std::vector<std::string>{});
  CHECK(sample::difference(TraceReader(folder / "a.h5"), s, 0, 6000) == "");
}

TEST_CASE("a reader sees whole commits while the writer goes on") {
  const sample::Folder folder;
  const auto s = shape();
  Writer writer(folder / "a.h5", 4096);
  std::uint64_t last = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint64_t acknowledged = writer.wait_for_one();
    REQUIRE(acknowledged > 0);
    const TraceReader r(folder / "a.h5.part");
    CHECK(r.tokens() >= acknowledged);
    CHECK(r.tokens() >= last);
    CHECK(sample::difference(r, s, r.tokens() - 4096, 4096) == "");
    last = r.tokens();
  }
  writer.kill_and_count();
}

TEST_CASE(
    "a file that may not grow further stops the recording, and what was acknowledged is there") {
  const sample::Folder folder;
  std::uint64_t most = 0;
  for (const rlim_t bytes : {20000u, 150000u, 300000u, 700000u, 1500000u, 1500001u, 2222222u}) {
    INFO(bytes << " bytes allowed");
    const std::uint64_t rows = check_full_disk(folder / concat("a", bytes, ".h5").c_str(), [bytes] {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{bytes, bytes};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    });
    CHECK(rows >= most);
    most = rows;
  }
  CHECK(most > 4096);
}

TEST_CASE("a small disk that fills up") {
  const sample::Folder folder;
  const auto disk = folder / "disk";
  std::filesystem::create_directory(disk);
  if (::geteuid() != 0 || ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=1500k") != 0)
    return test::skip("no right to mount a small file system");
  CHECK(check_full_disk(disk / "a.h5", [] {}) > 0);
  CHECK(::umount2(disk.c_str(), MNT_DETACH) == 0);
}

TEST_CASE("a folder that is not there") {
  sample::Shape s;
  CHECK_THROWS_AS(TraceWriter("/proc/nowhere/a.h5", sample::header(s)), Error);
}
