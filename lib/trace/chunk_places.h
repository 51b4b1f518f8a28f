// Where HDF5 puts the chunks that are written, found without its own search, which goes through all
// chunks of a dataset for each one: a new chunk mostly lies at what was the end of the file, a
// small one behind the small one before it. What is believed has been read back.
#pragma once
#include <filesystem>
#include <span>
#include <vector>

#include "lib/trace/h5.h"

namespace moe {

struct FileRange {
  std::uint64_t offset = 0, bytes = 0;
};

// Writes `packed` as the chunk of `dataset` that begins at `at`; `column` names it in errors.
void write_chunk(hid_t dataset, const hsize_t* at, std::span<const std::uint8_t> packed,
                 const std::string& column);

class ChunkPlaces {
 public:
  ChunkPlaces() = default;
  ~ChunkPlaces();
  ChunkPlaces(const ChunkPlaces&) = delete;
  ChunkPlaces& operator=(const ChunkPlaces&) = delete;

  // The same, and returns where it lies. `path` is the file, open as `file`.
  FileRange write(hid_t file, const std::filesystem::path& path, hid_t dataset, const hsize_t* at,
                  std::span<const std::uint8_t> packed, const std::string& column);

 private:
  bool there(std::uint64_t offset, std::span<const std::uint8_t> packed);
  void open(const std::filesystem::path&);

  int fd_ = -1;
  std::uint64_t behind_small_ = 0;  // end of the small chunk written last; 0 = none yet
  std::vector<std::uint8_t> read_;  // scratch
};

}  // namespace moe
