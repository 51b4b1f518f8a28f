// Looks at an HDF5 file that may mean harm: every link, type, rank, size, filter and layout is
// checked before a byte of data is asked for or a vector is sized by it. What does not fit the
// format is refused in one sentence.
#pragma once
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "lib/trace/filter.h"
#include "lib/trace/h5.h"

namespace moe {

struct DataInfo {
  h5::Handle dataset;
  std::string path;
  h5::Cell cell{};
  std::vector<std::uint64_t> dims, chunk;  // chunk empty = contiguous or compact
  std::vector<Filter> pipeline;
  bool plain_shuffle = true;  // shuffled by the bytes of its own elements
};

class Schema {
 public:
  // opens: plainly, else as a reader of a file that is being written, else from a copy without
  // HDF5's mark
  explicit Schema(const std::filesystem::path&);

  hid_t file() const {
    return file_;
  }
  bool interrupted() const {
    return interrupted_;
  }                                         // the plain way did not open it
  bool has(const std::string& path) const;  // refuses links that are not hard
  std::vector<std::string> names(const std::string& group) const;

  // A dataset of one of these element types and this rank; nullopt where there is none.
  std::optional<DataInfo> find(const std::string& path, std::initializer_list<h5::Cell>,
                               std::size_t rank) const;
  std::optional<DataInfo> find(const std::string& path, hid_t type, std::size_t rank) const;

  // The whole of a small dataset (at most 1 GiB); empty where there is none.
  template <class T>
  std::vector<T> all(const std::string& path, h5::Cell cell, std::size_t rank,
                     std::vector<std::uint64_t>* dims = nullptr) const {
    const auto info = find(path, {cell}, rank);
    if (!info)
      return {};
    if (dims)
      *dims = info->dims;
    const auto bytes = whole(*info, h5::type_of(cell), sizeof(T));
    std::vector<T> out(bytes.size() / sizeof(T));
    if (!out.empty())
      std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  std::vector<std::uint8_t> whole(const DataInfo&, hid_t type, std::size_t cell_bytes) const;
  std::vector<std::string> texts(const std::string& path) const;

  std::string text(hid_t object, const char* attribute, const std::string& fallback) const;
  std::int64_t number(hid_t object, const char* attribute, std::int64_t fallback) const;

  // Error(input) that begins with the file's name
  [[noreturn]] void refuse(const std::string& sentence) const;

 private:
  void open_file();
  void open_unmarked();
  bool has_commits() const;
  DataInfo open(const std::string& path) const;
  void check_layout(DataInfo&, std::size_t cell_bytes, std::size_t rank) const;
  void check_filters(hid_t list, DataInfo&, std::size_t cell_bytes) const;
  void check_size(const DataInfo&, std::size_t cell_bytes) const;

  std::filesystem::path path_;
  std::uint64_t file_bytes_ = 0;
  h5::Handle file_;
  bool interrupted_ = false;
};

}  // namespace moe
