#include "lib/checkpoint/run_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "lib/core/error.h"
#include "lib/files/file.h"

namespace moe {
namespace fs = std::filesystem;
namespace {

struct Holder {
  long pid = 0;  // 0: the file names nobody
  std::string host;
};

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

Holder read_holder(int file) {
  std::array<char, 1024> text{};
  const ssize_t n = ::pread(file, text.data(), text.size(), 0);
  if (n <= 0)
    return {};
  const auto json = nlohmann::json::parse(text.data(), text.data() + n, nullptr, false);
  if (!json.is_object() || !json.contains("pid") || !json["pid"].is_number_integer() ||
      !json.contains("host") || !json["host"].is_string()) {
    return {};
  }
  return {json["pid"].get<long>(), json["host"].get<std::string>()};
}

[[noreturn]] void held(const fs::path& run, const Holder& by) {
  const std::string who =
      by.pid ? fmt::format("process {} on {}", by.pid, in_quotes(by.host)) : "another process";
  throw Error(Exit::io, fmt::format("the run {} is being written by {}", in_quotes(run), who))
      .safe("nothing in it was changed")
      .hint(fmt::format("wait for it or choose another folder; if that process is gone, remove {}",
                        in_quotes(run / "lock")));
}

// Writes the text at the beginning; errno, or 0.
int put(int file, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::pwrite(file, text.data() + done, text.size() - done, off_t(done));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? errno : ENOSPC;
    done += std::size_t(n);
  }
  return 0;
}

// The file may have been removed by its last holder between our open and our lock: then we hold a
// name that no longer exists.
bool still_named(int file, const fs::path& path) {
  struct stat ours {};
  struct stat named {};
  return ::fstat(file, &ours) == 0 && ::stat(path.c_str(), &named) == 0 &&
         ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

}  // namespace

RunLock::RunLock(const fs::path& run) : run_(run) {
  std::error_code code;
  fs::create_directories(run, code);
  if (code)
    io_failure("make the run folder", run, code.value());
  const fs::path path = run / "lock";
  for (;;) {
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0)
      io_failure("open the lock", path, errno);
    const bool locked = ::flock(file, LOCK_EX | LOCK_NB) == 0;
    const int error = errno;
    const Holder holder = read_holder(file);
    if (locked && still_named(file, path)) {
      file_ = file;
      if (holder.pid == 0 || holder.host == host_name())
        break;
      ::close(std::exchange(file_, -1));
      held(run, holder);
    }
    ::close(file);
    if (!locked && error == EWOULDBLOCK)
      held(run, holder);
    if (!locked && error != EINTR)
      io_failure("lock", path, error);
  }
  const std::string text = nlohmann::json{{"host", host_name()}, {"pid", ::getpid()}}.dump(
                               -1, ' ', false, nlohmann::json::error_handler_t::replace) +
                           "\n";
  if (const int error = ::ftruncate(file_, 0) != 0 ? errno : put(file_, text)) {
    ::unlink(path.c_str());
    ::close(file_);
    io_failure("write the lock", path, error);
  }
}

RunLock::RunLock(RunLock&& o) noexcept
    : run_(std::move(o.run_)), file_(std::exchange(o.file_, -1)) {}

RunLock::~RunLock() {
  if (file_ < 0)
    return;
  ::unlink((run_ / "lock").c_str());  // while it is still ours
  ::close(file_);
}

}  // namespace moe
