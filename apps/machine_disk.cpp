// Reading a file past the page cache, as weights of experts on disk are read; how much memory
// there is.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "apps/bench/bench.h"
#include "apps/machine_rates.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::int64_t page = 4096;
constexpr std::int64_t blocks[] = {64 << 10, 1 << 20, 8 << 20};

[[noreturn]] void failed(const std::string& what, const std::filesystem::path& path) {
  throw Error(Exit::io, concat(what, " ", path.string(), ": ", std::strerror(errno)));
}

struct Freed {
  void operator()(void* p) const {
    std::free(p);
  }
};
using Buffer = std::unique_ptr<char, Freed>;

Buffer aligned(std::int64_t bytes) {
  Buffer b(static_cast<char*>(std::aligned_alloc(std::size_t(page), std::size_t(bytes))));
  if (!b)
    throw Error(Exit::memory, concat("no memory for a block of ", bytes, " bytes"));
  std::memset(b.get(), 1, std::size_t(bytes));
  return b;
}

// A file that is removed as soon as it is open: nothing is left behind whatever happens.
class DirectFile {
 public:
  DirectFile(const std::filesystem::path& folder, std::int64_t bytes)
      : path_(folder / concat(".moe-disk-", std::int64_t(::getpid()))), bytes_(bytes) {
    write();
    file_ = ::open(path_.c_str(), O_RDONLY | O_DIRECT);
    const int why = errno;
    ::unlink(path_.c_str());
    if (file_ < 0) {
      errno = why;
      throw Error(Exit::environment, concat("the file system of ", folder.string(),
                                            " has no direct reads: ", std::strerror(why)))
          .hint("--disk another folder; without direct reads the page cache would be measured");
    }
  }
  ~DirectFile() {
    if (file_ >= 0)
      ::close(file_);
  }
  DirectFile(const DirectFile&) = delete;
  DirectFile& operator=(const DirectFile&) = delete;

  void read(char* into, std::int64_t block, std::int64_t at) const {
    if (::pread(file_, into, std::size_t(block), at) != block)
      failed("cannot read", path_);
  }

 private:
  void write() const {
    const int out = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0)
      failed("cannot write", path_);
    const std::int64_t block = blocks[std::size(blocks) - 1];
    const Buffer bytes = aligned(block);
    for (std::int64_t at = 0; at < bytes_; at += block) {
      if (::write(out, bytes.get(), std::size_t(block)) != block || ::fsync(out) != 0) {
        const int why = errno;
        ::close(out);
        ::unlink(path_.c_str());
        errno = why;
        failed("cannot write", path_);
      }
    }
    ::close(out);
  }

  std::filesystem::path path_;
  std::int64_t bytes_;
  int file_ = -1;
};

}  // namespace

double memory_of_machine() {
  return double(::sysconf(_SC_PHYS_PAGES)) * double(::sysconf(_SC_PAGESIZE));
}

std::vector<DiskRate> measure_disk(const std::filesystem::path& folder, std::int64_t bytes,
                                   double seconds) {
  const std::int64_t largest = blocks[std::size(blocks) - 1];
  const std::int64_t whole = std::max(largest, bytes / largest * largest);
  const DirectFile file(folder, whole);
  const Buffer buffer = aligned(largest);
  std::vector<DiskRate> out;
  Rng rng(1);
  for (const std::int64_t block : blocks) {
    DiskRate r{.block = double(block)};
    const auto rate = [&](const auto& place) {
      double spent = 0;
      double read = 0;
      while (spent < seconds) {
        const std::int64_t at = place();
        spent += seconds_of([&] { file.read(buffer.get(), block, at); });
        read += double(block);
      }
      return read / spent;
    };
    std::int64_t next = 0;
    r.in_order = rate([&] {
      const std::int64_t at = next;
      next = next + 2 * block > whole ? 0 : next + block;
      return at;
    });
    r.scattered = rate([&] { return std::int64_t(rng.below(whole / block)) * block; });
    out.push_back(r);
  }
  return out;
}

}  // namespace moe
