#include "lib/trace/chunk_places.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {
namespace {

// HDF5 takes room for smaller pieces of data from a block of this size.
constexpr std::size_t small = 2048;

FileRange searched(hid_t dataset, const hsize_t* at, const std::string& column) {
  haddr_t place = 0;
  hsize_t bytes = 0;
  h5::must(H5Dget_chunk_info_by_coord(dataset, at, nullptr, &place, &bytes),
           concat("find a chunk of ", column));
  return {place, bytes};
}

}  // namespace

void write_chunk(hid_t dataset, const hsize_t* at, std::span<const std::uint8_t> packed,
                 const std::string& column) {
  h5::must(H5Dwrite_chunk(dataset, H5P_DEFAULT, 0, at, packed.size(), packed.data()),
           concat("write ", column));
}

ChunkPlaces::~ChunkPlaces() {
  if (fd_ >= 0)
    ::close(fd_);
}

void ChunkPlaces::open(const std::filesystem::path& path) {
  if (fd_ < 0)
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
}

bool ChunkPlaces::there(std::uint64_t offset, std::span<const std::uint8_t> packed) {
  read_.resize(packed.size());
  std::size_t done = 0;
  while (done < packed.size()) {
    const ssize_t n = ::pread(fd_, read_.data() + done, packed.size() - done, off_t(offset + done));
    if (n <= 0)
      return false;
    done += std::size_t(n);
  }
  return std::memcmp(read_.data(), packed.data(), packed.size()) == 0;
}

FileRange ChunkPlaces::write(hid_t file, const std::filesystem::path& path, hid_t dataset,
                             const hsize_t* at, std::span<const std::uint8_t> packed,
                             const std::string& column) {
  open(path);
  hsize_t end = 0;
  h5::must(H5Fget_filesize(file, &end), concat("ask for the size of ", in_quotes(path)));
  // a place that held the same bytes before says nothing
  const std::array<std::uint64_t, 2> likely = {end, behind_small_};
  std::array<bool, 2> may{};
  for (std::size_t i = 0; i < likely.size(); ++i)
    may[i] = fd_ >= 0 && likely[i] > 0 && !there(likely[i], packed);
  write_chunk(dataset, at, packed, column);
  FileRange out;
  for (std::size_t i = 0; i < likely.size() && out.bytes == 0; ++i) {
    if (may[i] && there(likely[i], packed))
      out = {likely[i], packed.size()};
  }
  if (out.bytes == 0)
    out = searched(dataset, at, column);
  if (packed.size() < small)
    behind_small_ = out.offset + out.bytes;
  return out;
}

}  // namespace moe
