// libhdf5 marks a file that it changes, and opens no marked file. One whose writer died with the
// mark set may be whole all the same; it is read from a copy without the mark, for the file itself
// is somebody's evidence.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace moe {

// A new file of a name that is free, beside `path`, or in the temporary folder where that may not
// be written. Throws Error(io).
std::string file_beside(const std::filesystem::path&);

// Takes the mark out of the superblock that a file begins with (48 bytes, version 3).
void unmark(std::span<std::uint8_t> superblock);

class UnmarkedCopy {
 public:
  // Lies beside the file, or in the temporary folder where that may not be written, and goes with
  // this object. Throws Error(input) where the file ends before the end that it states, Error(io)
  // where there is no room.
  explicit UnmarkedCopy(const std::filesystem::path&);
  ~UnmarkedCopy();
  UnmarkedCopy(const UnmarkedCopy&) = delete;
  UnmarkedCopy& operator=(const UnmarkedCopy&) = delete;
  const std::string& name() const {
    return name_;
  }

 private:
  std::string name_;
};

}  // namespace moe
