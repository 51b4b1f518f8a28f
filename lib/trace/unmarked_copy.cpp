// Offsets are those of the HDF5 file format, version 3 superblock.
#include "lib/trace/unmarked_copy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "lib/core/error.h"
#include "lib/trace/times.h"

namespace moe {
namespace {

constexpr std::size_t block_bytes = 65536;
constexpr std::size_t mark_at = 11;
constexpr std::size_t end_at = 28;
constexpr std::size_t checksum_at = 44;
using Superblock = std::array<std::uint8_t, 48>;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0)
      ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const {
    return fd_;
  }

 private:
  int fd_;
};

[[noreturn]] void failed(const std::filesystem::path& path) {
  throw Error(Exit::io, fmt::format("{}: cannot make the copy that it is read from: {}",
                                    path.string(), std::strerror(errno)))
      .hint("free space in its folder");
}

// Makes a file beside `path`, or in the temporary folder, and sets its name.
int new_file(const std::filesystem::path& path, std::string& name) {
  name = path.string() + ".XXXXXX";
  int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) {
    name = (std::filesystem::temp_directory_path() / "moe-trace.XXXXXX").string();
    fd = ::mkostemp(name.data(), O_CLOEXEC);
  }
  if (fd < 0)
    failed(path);
  return fd;
}

void write_all(int fd, const std::uint8_t* data, std::size_t bytes, std::uint64_t at,
               const std::filesystem::path& path) {
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd, data, bytes, off_t(at));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      failed(path);
    data += n;
    at += std::uint64_t(n);
    bytes -= std::size_t(n);
  }
}

void copy_all(int from, int to, const std::filesystem::path& path) {
  std::array<std::uint8_t, block_bytes> block;
  for (std::uint64_t at = 0;;) {
    const ssize_t n = ::pread(from, block.data(), block.size(), off_t(at));
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      failed(path);
    if (n == 0)
      return;
    write_all(to, block.data(), std::size_t(n), at, path);
    at += std::uint64_t(n);
  }
}

Superblock superblock_of(int fd, const std::filesystem::path& path) {
  Superblock out{};
  struct stat s {};
  if (fd < 0 || ::fstat(fd, &s) != 0)
    failed(path);
  std::uint64_t end = 0;
  const bool read = ::pread(fd, out.data(), out.size(), 0) == ssize_t(out.size());
  std::memcpy(&end, out.data() + end_at, sizeof end);
  if (!read || out[8] != 3 || end > std::uint64_t(s.st_size)) {
    throw Error(Exit::input, fmt::format("{} states an end at {} bytes and has {}", path.string(),
                                         end, s.st_size));
  }
  return out;
}

}  // namespace

UnmarkedCopy::UnmarkedCopy(const std::filesystem::path& path) {
  const Descriptor from(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Superblock superblock = superblock_of(from, path);
  const Descriptor to(new_file(path, name_));
  try {
    copy_all(from, to, path);
    superblock[mark_at] = 0;
    const std::uint32_t sum = metadata_checksum({superblock.data(), checksum_at});
    std::memcpy(superblock.data() + checksum_at, &sum, sizeof sum);
    write_all(to, superblock.data(), superblock.size(), 0, path);
  } catch (const Error&) {
    ::unlink(name_.c_str());
    throw;
  }
}

UnmarkedCopy::~UnmarkedCopy() {
  ::unlink(name_.c_str());
}

}  // namespace moe
