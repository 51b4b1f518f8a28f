// Files that are whole or absent. OutputFile writes beside its final name, checks every call,
// hashes as it goes, and renames when all is on disk; Mapped is a read-only view of a file.
// Failures are one sentence with the path and the numbers.
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lib/core/view.h"

namespace moe {

// in quotes, control characters escaped, cut after 200 bytes
std::string in_quotes(std::string_view name);
template <std::same_as<std::filesystem::path> P>
std::string in_quotes(const P& path) {
  return in_quotes(std::string_view(path.native()));
}
std::string bytes_text(double bytes);  // "512 B", "1.5 MiB"
// "cannot open 'x': Permission denied"
[[noreturn]] void io_failure(std::string_view doing, const std::filesystem::path&, int error);

class OutputFile {
 public:
  // `need`: bytes that will be written, if known; stands in the sentence when the disk is full.
  // Throws Error(usage) where the name is that of a device or a pipe.
  explicit OutputFile(std::filesystem::path final_name, Index need = -1);
  OutputFile(const OutputFile&) = delete;
  ~OutputFile();  // without commit(): what was written is removed

  // throws Error(io) naming path, bytes written, needed and free
  void write(std::span<const std::byte>);
  void write(std::string_view text) {
    write(std::as_bytes(std::span(text)));
  }
  Index written() const;
  void commit();               // flush, fsync, rename to the final name
  std::uint64_t hash() const;  // XXH3-64 of everything written

 private:
  struct State;
  std::unique_ptr<State> state_;
};

void write_file(const std::filesystem::path&, std::string_view text);
// Throws Error(usage) where a file or folder of that name exists, unless `force` (a folder, a
// device or a pipe always), and Error(io) where there is no folder to write it into. "-" (stdout)
// is fine.
void refuse_existing(const std::string& path, bool force);
void sync_folder(const std::filesystem::path&);  // makes renames in it survive power loss

// Opens a regular file for reading without waiting on pipes. Throws Error(input) where it is
// missing or not a regular file.
class InputFile {
 public:
  explicit InputFile(std::filesystem::path);
  InputFile(const InputFile&) = delete;
  ~InputFile();
  Index size() const {
    return size_;
  }
  const std::filesystem::path& path() const {
    return path_;
  }
  std::size_t read(std::span<char>);  // fills what it can; fewer only at the end
  // the whole file, for as long as a copy of the pointer lives
  std::shared_ptr<const std::byte> map() const;

 private:
  std::filesystem::path path_;
  int file_ = -1;
  Index size_ = 0;
};

// Bytes of a map(): their whole pages need not stay in memory. They are read again from the file
// when they are looked at.
void forget_pages(std::span<const std::byte> mapped);
// The same bytes will be looked at soon: asks the system to read them, and does not wait for it.
void want_pages(std::span<const std::byte> mapped);

// throws Error(input) where longer than `limit` bytes
std::string read_file(const std::filesystem::path&, Index limit);
std::uint64_t hash_file(const std::filesystem::path&);  // XXH3-64
std::uint64_t hash_bytes(std::span<const std::byte>);   // XXH3-64

}  // namespace moe
