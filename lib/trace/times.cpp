// Sets the four times of the superblock extension to zero: see times.h. Offsets are those of the
// HDF5 file format, version 3 superblock and version 2 object header.
#include "lib/trace/times.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <vector>

#include "lib/core/error.h"

namespace moe {
namespace {

struct Mixer {  // lookup3's three words
  std::uint32_t a, b, c;
  void mix() {
    a -= c;
    a ^= std::rotl(c, 4);
    c += b;
    b -= a;
    b ^= std::rotl(a, 6);
    a += c;
    c -= b;
    c ^= std::rotl(b, 8);
    b += a;
    a -= c;
    a ^= std::rotl(c, 16);
    c += b;
    b -= a;
    b ^= std::rotl(a, 19);
    a += c;
    c -= b;
    c ^= std::rotl(b, 4);
    b += a;
  }
  void finish() {
    c ^= b;
    c -= std::rotl(b, 14);
    a ^= c;
    a -= std::rotl(c, 11);
    b ^= a;
    b -= std::rotl(a, 25);
    c ^= b;
    c -= std::rotl(b, 16);
    a ^= c;
    a -= std::rotl(c, 4);
    b ^= a;
    b -= std::rotl(a, 14);
    c ^= b;
    c -= std::rotl(b, 24);
  }
  void add(std::span<const std::uint8_t> up_to_12) {
    std::array<std::uint8_t, 12> bytes{};
    std::copy(up_to_12.begin(), up_to_12.end(), bytes.begin());
    const auto word = [&](std::size_t i) {
      return std::uint32_t(bytes[i]) | std::uint32_t(bytes[i + 1]) << 8 |
             std::uint32_t(bytes[i + 2]) << 16 | std::uint32_t(bytes[i + 3]) << 24;
    };
    a += word(0);
    b += word(4);
    c += word(8);
  }
};

class Open {
 public:
  explicit Open(const std::filesystem::path& path)
      : path_(path), fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {
    check(fd_ >= 0);
  }
  ~Open() {
    ::close(fd_);
  }
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;
  std::vector<std::uint8_t> get(std::uint64_t at, std::size_t n) const {
    std::vector<std::uint8_t> out(n);
    for (std::size_t done = 0; done < n;)
      done += moved(::pread(fd_, out.data() + done, n - done, off_t(at + done)));
    return out;
  }
  void put(std::uint64_t at, const std::vector<std::uint8_t>& bytes) const {
    for (std::size_t done = 0; done < bytes.size();) {
      done += moved(::pwrite(fd_, bytes.data() + done, bytes.size() - done, off_t(at + done)));
    }
  }

 private:
  // Bytes that a call moved, which may be fewer than were asked for; a signal moves none.
  std::size_t moved(ssize_t n) const {
    if (n < 0 && errno == EINTR)
      return 0;
    check(n > 0);
    return std::size_t(n);
  }
  void check(bool done) const {
    if (!done) {
      throw Error(Exit::io, fmt::format("{}: cannot set its times: {}", path_.string(),
                                        std::strerror(errno)));
    }
  }
  const std::filesystem::path& path_;
  int fd_;
};

}  // namespace

std::uint32_t metadata_checksum(std::span<const std::uint8_t> data) {
  const std::uint32_t start = 0xdeadbeef + std::uint32_t(data.size());
  Mixer m{start, start, start};
  while (data.size() > 12) {
    m.add(data.first(12));
    m.mix();
    data = data.subspan(12);
  }
  if (data.empty())
    return m.c;
  m.add(data);
  m.finish();
  return m.c;
}

void forget_times(const std::filesystem::path& path) {
  const Open file(path);
  const auto superblock = file.get(0, 48);
  std::uint64_t at = 0;
  std::memcpy(&at, superblock.data() + 20, 8);
  if (superblock[8] != 3 || at == ~std::uint64_t(0))
    return;  // no extension, no times
  const auto head = file.get(at, 6);
  const std::uint8_t flags = head[5];
  if (std::memcmp(head.data(), "OHDR\2", 5) != 0 || !(flags & 0x20))
    return;
  const std::size_t fixed = 6 + 16 + (flags & 0x10 ? 4 : 0);
  const std::size_t size_bytes = std::size_t(1) << (flags & 3);
  const auto size_field = file.get(at + fixed, size_bytes);
  std::uint64_t size = 0;
  std::memcpy(&size, size_field.data(), size_bytes);
  if (size > 65536)
    return;  // not what this library writes
  auto header = file.get(at, fixed + size_bytes + size + 4);
  std::memset(header.data() + 6, 0, 16);
  const std::uint32_t sum = metadata_checksum({header.data(), header.size() - 4});
  std::memcpy(header.data() + header.size() - 4, &sum, 4);
  file.put(at, header);
}

}  // namespace moe
