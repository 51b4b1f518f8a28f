// Durable renames, the writer's lock, the mark of our own files: see disk.h.
#include "lib/trace/disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lib/core/error.h"

namespace moe {
namespace {
constexpr const char* mark_name = "user.moe.trace";

[[noreturn]] void failed(const std::filesystem::path& path, const char* doing) {
  const int code = errno;
  throw Error(Exit::io,
              fmt::format("{}: cannot {}: {}", path.string(), doing, std::strerror(code)));
}

void sync_path(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0)
    failed(path, "open it to flush it");
  int result = -1;
  do
    result = ::fsync(fd);
  while (result != 0 && errno == EINTR);
  const int code = errno;
  ::close(fd);
  errno = code;
  if (result != 0)
    failed(path, "flush it to the disk");
}

std::string mark_of(const struct stat& s) {
  return fmt::format("1 {} {} {}.{}", s.st_uid, s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
}
}  // namespace

void sync_file(const std::filesystem::path& path) {
  sync_path(path, O_RDONLY);
}

void sync_folder_of(const std::filesystem::path& path) {
  sync_path(path.has_parent_path() ? path.parent_path() : ".", O_RDONLY | O_DIRECTORY);
}

void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    failed(from, "rename it to its final name");
  sync_folder_of(to);
}

std::string free_space(const std::filesystem::path& path) {
  std::error_code error;
  const auto space = std::filesystem::space(path, error);
  return error ? "" : fmt::format(" ({:.1f} MB free)", double(space.available) / 1e6);
}

WriteLock::WriteLock(const std::filesystem::path& path)
    : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (fd_ < 0)
    failed(path, "make it");
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  // a file system without locks
  if (::fcntl(fd_, F_OFD_SETLK, &whole) == 0 || (errno != EAGAIN && errno != EACCES))
    return;
  ::close(fd_);
  throw Error(Exit::usage, fmt::format("{} is being written by another process", path.string()))
      .hint("another name after -o, or wait");
}
WriteLock::~WriteLock() {
  ::close(fd_);
}

void mark_own(const std::filesystem::path& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0)
    return;
  const std::string mark = mark_of(s);
  // then it is read as a foreign file: slower, as safe
  if (::setxattr(path.c_str(), mark_name, mark.data(), mark.size(), 0) != 0)
    return;
}

bool is_own(const std::filesystem::path& path) {
  struct stat s {};
  char held[128];
  if (::stat(path.c_str(), &s) != 0 || s.st_uid != ::geteuid())
    return false;
  const ssize_t n = ::getxattr(path.c_str(), mark_name, held, sizeof held);
  return n > 0 && std::string_view(held, std::size_t(n)) == mark_of(s);
}

}  // namespace moe
