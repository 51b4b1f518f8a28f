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

std::string file_beside(const std::filesystem::path& path) {
  for (std::string name :
       {path.string() + ".XXXXXX",
        (std::filesystem::temp_directory_path() / "moe-trace.XXXXXX").string()}) {
    const Descriptor made(::mkostemp(name.data(), O_CLOEXEC));
    if (made >= 0)
      return name;
  }
  failed(path);
}

void unmark(std::span<std::uint8_t> superblock) {
  superblock[mark_at] = 0;
  const std::uint32_t sum = metadata_checksum(superblock.first(checksum_at));
  std::memcpy(superblock.data() + checksum_at, &sum, sizeof sum);
}

UnmarkedCopy::UnmarkedCopy(const std::filesystem::path& path) {
  Superblock superblock =
      superblock_of(Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path);
  unmark(superblock);
  name_ = file_beside(path);
  std::error_code error;
  std::filesystem::copy_file(path, name_, std::filesystem::copy_options::overwrite_existing, error);
  const Descriptor copy(::open(name_.c_str(), O_WRONLY | O_CLOEXEC));
  errno = error ? error.value() : errno;
  if (!error && copy >= 0 &&
      ::pwrite(copy, superblock.data(), superblock.size(), 0) == ssize_t(superblock.size())) {
    return;
  }
  const int why = errno;
  ::unlink(name_.c_str());
  errno = why;
  failed(path);
}

UnmarkedCopy::~UnmarkedCopy() {
  ::unlink(name_.c_str());
}

}  // namespace moe
