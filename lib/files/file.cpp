#define XXH_INLINE_ALL
#include "lib/files/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/mapped_files.h"

namespace moe {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t buffer_size = 1 << 20;

int retried(auto&& call) {  // a signal is not a failure
  int r;
  do
    r = call();
  while (r < 0 && errno == EINTR);
  return r;
}

// A finished file is renamed to its name, which would put it in the place of a device or a pipe.
void refuse_special(const fs::path& path) {
  std::error_code unreadable;
  const fs::file_status status = fs::status(path, unreadable);
  if (!fs::exists(status) || fs::is_regular_file(status) || fs::is_directory(status))
    return;
  throw Error(Exit::usage, fmt::format("{} is not a regular file", in_quotes(path)))
      .hint("the name of a file, or - for stdout where a verb can write to it")
      .safe("it was not touched");
}

}  // namespace

std::string in_quotes(std::string_view name) {
  std::string out = "'";
  for (const char c : name.substr(0, 200)) {
    const unsigned char u = static_cast<unsigned char>(c);
    if (u < 0x20 || u == 0x7f)
      out += fmt::format("\\x{:02x}", u);
    else
      out += c;
  }
  if (name.size() > 200) {
    // not in the middle of a character
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xc0) == 0x80)
      out.pop_back();
    if (!out.empty() && (static_cast<unsigned char>(out.back()) & 0x80))
      out.pop_back();
    out += "...";
  }
  return out + "'";
}

std::string bytes_text(double bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit)
    bytes /= 1024;
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

void io_failure(std::string_view doing, const fs::path& path, int error) {
  throw Error(Exit::io,
              fmt::format("cannot {} {}: {}", doing, in_quotes(path), std::strerror(error)));
}

struct OutputFile::State {
  fs::path final_name, temporary;
  Index need = -1, written = 0;
  int file = -1;
  bool committed = false;
  std::vector<std::byte> buffer;
  XXH3_state_t hash;

  void put(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(file, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        full(n < 0 ? errno : ENOSPC);
      written += n;
      bytes = bytes.subspan(std::size_t(n));
    }
  }
  void flush() {
    put(buffer);
    buffer.clear();
  }
  [[noreturn]] void full(int error) const {
    struct statvfs disk {};
    std::string free;
    if (::statvfs(temporary.parent_path().c_str(), &disk) == 0)
      free = fmt::format("; {} bytes are free there", disk.f_bavail * disk.f_frsize);
    const std::string amount =
        need >= 0 ? fmt::format("{} of {} bytes", written, need) : fmt::format("{} bytes", written);
    throw Error(Exit::io, fmt::format("cannot write {}: {} after {}{}", in_quotes(final_name),
                                      std::strerror(error), amount, free))
        .safe("what was there before is untouched")
        .hint("free some space or write to another disk");
  }
};

OutputFile::OutputFile(fs::path final_name, Index need) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.final_name = std::move(final_name);
  refuse_special(s.final_name);
  const fs::path folder = s.final_name.parent_path();
  s.temporary = (folder.empty() ? fs::path(".") : folder) /
                fmt::format(".{}.{}.tmp", s.final_name.filename().native(), ::getpid());
  s.need = need;
  XXH3_64bits_reset(&s.hash);
  s.file = retried(
      [&] { return ::open(s.temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666); });
  if (s.file < 0)
    io_failure("create", s.final_name, errno);
}

OutputFile::~OutputFile() {
  if (!state_ || state_->committed)
    return;
  if (state_->file >= 0)
    ::close(state_->file);
  ::unlink(state_->temporary.c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  State& s = *state_;
  if (bytes.empty())
    return;
  XXH3_64bits_update(&s.hash, bytes.data(), bytes.size());
  if (s.buffer.size() + bytes.size() > buffer_size)
    s.flush();
  if (bytes.size() >= buffer_size)
    return s.put(bytes);
  s.buffer.insert(s.buffer.end(), bytes.begin(), bytes.end());
}

Index OutputFile::written() const {
  return state_->written + Index(state_->buffer.size());
}
std::uint64_t OutputFile::hash() const {
  return XXH3_64bits_digest(&state_->hash);
}

void OutputFile::commit() {
  State& s = *state_;
  s.flush();
  if (retried([&] { return ::fsync(s.file); }) != 0)
    s.full(errno);
  // network disks report a full quota here
  if (::close(std::exchange(s.file, -1)) != 0)
    s.full(errno);
  if (::rename(s.temporary.c_str(), s.final_name.c_str()) != 0)
    io_failure("rename a finished file to", s.final_name, errno);
  s.committed = true;
}

void write_file(const fs::path& path, std::string_view text) {
  OutputFile file(path, Index(text.size()));
  file.write(text);
  file.commit();
}

void refuse_existing(const std::string& path, bool force) {
  if (path == "-")
    return;
  const auto folder = fs::path(path).parent_path();
  if (!folder.empty() && !fs::is_directory(folder)) {
    throw Error(Exit::io,
                concat("there is no folder '", folder.string(), "' to write '", path, "' into"))
        .hint(concat("mkdir -p ", folder.string()));
  }
  if (fs::is_directory(path))
    throw Error(Exit::usage, concat("'", path, "' is a folder")).hint("the name of a file");
  refuse_special(path);
  if (!force && fs::exists(path)) {
    throw Error(Exit::usage, concat("'", path, "' exists"))
        .hint("--force to replace it, or another name")
        .safe("it was not touched");
  }
}

void sync_folder(const fs::path& path) {
  const int folder =
      retried([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (folder < 0)
    io_failure("open the folder", path, errno);
  const int result = retried([&] { return ::fsync(folder); });
  const int error = errno;
  ::close(folder);
  // some file systems cannot
  if (result != 0 && error != EINVAL && error != EROFS)
    io_failure("sync the folder", path, error);
}

InputFile::InputFile(fs::path path) : path_(std::move(path)) {
  file_ = retried([&] { return ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (file_ < 0) {
    throw Error(Exit::input,
                fmt::format("cannot read {}: {}", in_quotes(path_), std::strerror(errno)));
  }
  struct stat info {};
  const bool known = ::fstat(file_, &info) == 0;
  if (!known || !S_ISREG(info.st_mode)) {
    ::close(file_);
    throw Error(Exit::input, fmt::format("{} is not a regular file", in_quotes(path_)));
  }
  size_ = info.st_size;
}

InputFile::~InputFile() {
  ::close(file_);
}

std::size_t InputFile::read(std::span<char> into) {
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t n = ::read(file_, into.data() + done, into.size() - done);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      io_failure("read", path_, errno);
    if (n == 0)
      break;
    done += std::size_t(n);
  }
  return done;
}

std::shared_ptr<const std::byte> InputFile::map() const {
  const std::size_t size = std::size_t(size_);
  if (size == 0)
    return nullptr;
  void* at = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file_, 0);
  if (at == MAP_FAILED) {
    throw Error(Exit::memory, fmt::format("cannot map the {} bytes of {}: {}", size,
                                          in_quotes(path_), std::strerror(errno)));
  }
  return {static_cast<const std::byte*>(at),
          [size, place = remember_mapped(at, size, path_)](const std::byte* p) {
            forget_mapped(place);
            ::munmap(const_cast<std::byte*>(p), size);
          }};
}

void forget_pages(std::span<const std::byte> mapped) {
  const std::uintptr_t page = std::uintptr_t(::sysconf(_SC_PAGESIZE));
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(mapped.data());
  const std::uintptr_t first = (begin + page - 1) / page * page;
  const std::uintptr_t last = (begin + mapped.size()) / page * page;
  // advice: where it is not taken, nothing is lost
  if (first < last)
    ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

void want_pages(std::span<const std::byte> mapped) {
  // of a longer stretch Linux reads what it reads ahead for itself, 128 KiB as a rule, and forgets
  // the rest
  constexpr std::uintptr_t at_once = 128 << 10;
  const std::uintptr_t page = std::uintptr_t(::sysconf(_SC_PAGESIZE));
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(mapped.data());
  const std::uintptr_t end = begin + mapped.size();
  for (std::uintptr_t at = begin / page * page; at < end; at += at_once)
    ::madvise(reinterpret_cast<void*>(at), std::min(at_once, end - at), MADV_WILLNEED);
}

std::string read_file(const fs::path& path, Index limit) {
  InputFile file(path);
  if (file.size() > limit) {
    throw Error(Exit::input, fmt::format("{} has {} bytes, more than the {} such a file may have",
                                         in_quotes(path), file.size(), limit));
  }
  std::string text(std::size_t(file.size()), '\0');
  text.resize(file.read(text));
  return text;
}

std::uint64_t hash_bytes(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::uint64_t hash_file(const fs::path& path) {
  InputFile file(path);
  std::vector<char> buffer(buffer_size);
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  while (const std::size_t n = file.read(buffer))
    XXH3_64bits_update(&state, buffer.data(), n);
  return XXH3_64bits_digest(&state);
}

}  // namespace moe
