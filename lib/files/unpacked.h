// A file as it was before gzip or zstd: bytes one after the other in memory that does not grow with
// the file. What is compressed is seen by its first bytes, not by its name; other files are read as
// they are.
#pragma once
#include <filesystem>
#include <memory>
#include <span>

#include "lib/files/file.h"

namespace moe {

class UnpackedFile {
 public:
  // Throws Error(input) where the file is missing or not a regular file.
  explicit UnpackedFile(const std::filesystem::path&);
  ~UnpackedFile();
  const std::filesystem::path& path() const {
    return file_.path();
  }
  bool packed() const {
    return packed_ != nullptr;
  }
  // Fills what it can; fewer only at the end. Throws Error(input) naming the file where what is
  // compressed is damaged, cut off, or needs more than 128 MiB to be unpacked.
  std::size_t read(std::span<char>);

 private:
  class Packed;
  class Gzip;
  class Zstd;
  std::size_t read_packed(std::span<char> out);

  InputFile file_;
  std::unique_ptr<Packed> packed_;
};

// "book.txt" of book.txt.gz and book.txt.zst: the name without the ending of its compression.
std::filesystem::path without_packing(const std::filesystem::path&);

}  // namespace moe
