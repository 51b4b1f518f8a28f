#include "lib/trace/constants_hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "lib/core/error.h"
#include "lib/trace/h5.h"
#include "lib/trace/hash.h"

namespace moe {
namespace {

using h5::Handle;

constexpr std::uint64_t most_bytes = 1ull << 30, at_once = 16ull << 20;
constexpr hsize_t most_names = 4096;
// in the order in which they are hashed
constexpr std::array groups = {"counts", "domains",   "experts", "modalities", "model",
                               "router", "sequences", "steps",   "vocab"};
// known when the rest is
constexpr std::array later = {"complete", "constants_xxh3", "corpus_sha256", "num_tokens"};

class ConstantsHash {
 public:
  explicit ConstantsHash(hid_t file) : file_(file) {}

  std::uint64_t value() {
    attributes();
    for (const char* group : groups)
      datasets(group);
    return hash_.value();
  }

 private:
  void add(const std::string& name) {
    hash_.update({reinterpret_cast<const std::uint8_t*>(name.c_str()), name.size() + 1});
  }
  void add(std::uint64_t number) {
    std::array<std::uint8_t, 8> bytes{};
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = std::uint8_t(number >> (8 * i));
    hash_.update(bytes);
  }

  void attributes() {
    H5O_info_t info;
    h5::must(H5Oget_info2(file_, &info, H5O_INFO_NUM_ATTRS), "count the attributes");
    for (hsize_t i = 0; i < std::min(info.num_attrs, most_names); ++i) {
      const Handle a{
          H5Aopen_by_idx(file_, ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT, H5P_DEFAULT),
          "open an attribute"};
      std::array<char, 256> name{};
      h5::must(H5Aget_name(a, name.size(), name.data()), "name an attribute");
      const auto is_it = [&](const char* other) {
        return std::string_view(other) == name.data();
      };
      if (std::ranges::none_of(later, is_it))
        attribute(name.data(), a);
    }
  }
  void attribute(const std::string& name, hid_t a) {
    add(name);
    const Handle type{H5Aget_type(a), "read an attribute's type"};
    const Handle space{H5Aget_space(a), "read an attribute's shape"};
    const hssize_t n = H5Sget_simple_extent_npoints(space);
    if (varies(type) || n < 0)
      return;  // no writer of the format makes one
    std::vector<std::uint8_t> bytes(H5Tget_size(type) * std::size_t(n));
    if (!bytes.empty())
      h5::must(H5Aread(a, type, bytes.data()), "read the attribute " + name);
    hash_.update(bytes);
  }

  static bool varies(hid_t type) {
    return H5Tdetect_class(type, H5T_VLEN) != 0 || H5Tis_variable_str(type) != 0 ||
           H5Tdetect_class(type, H5T_REFERENCE) != 0;
  }

  void datasets(const std::string& group) {
    if (H5Lexists(file_, group.c_str(), H5P_DEFAULT) <= 0)
      return;
    const Handle g{H5Gopen2(file_, group.c_str(), H5P_DEFAULT), "open /" + group};
    H5G_info_t info;
    h5::must(H5Gget_info(g, &info), "list /" + group);
    for (hsize_t i = 0; i < std::min(info.nlinks, most_names); ++i) {
      std::array<char, 256> name{};
      h5::must(H5Lget_name_by_idx(g, ".", H5_INDEX_NAME, H5_ITER_INC, i, name.data(), name.size(),
                                  H5P_DEFAULT),
               "list /" + group);
      H5O_info_t kind;
      h5::must(H5Oget_info_by_name2(g, name.data(), &kind, H5O_INFO_BASIC, H5P_DEFAULT),
               "look at /" + group);
      if (kind.type == H5O_TYPE_DATASET)
        dataset(g, group + "/" + name.data(), name.data());
    }
  }

  void dataset(hid_t group, const std::string& path, const char* name) {
    const Handle d{H5Dopen2(group, name, H5P_DEFAULT), "open /" + path};
    const Handle type{H5Dget_type(d), "read the type of /" + path};
    const std::vector<std::uint64_t> dims = h5::dims_of(d);
    add(path);
    std::uint64_t row = H5Tget_size(type);
    for (std::size_t i = 0; i < dims.size(); ++i) {
      add(dims[i]);
      if (i > 0 && __builtin_mul_overflow(row, dims[i], &row))
        too_large(path);
    }
    const std::uint64_t rows = dims.empty() ? 1 : dims[0];
    std::uint64_t bytes = 0;
    if (__builtin_mul_overflow(row, rows, &bytes) || bytes > most_bytes)
      too_large(path);
    if (varies(type) || bytes == 0)
      return;
    cells(d, type, path, dims, row);
  }

  [[noreturn]] static void too_large(const std::string& path) {
    throw Error(Exit::input, fmt::format("/{} has more than {} bytes", path, most_bytes));
  }

  // Every cell as it lies in the file.
  void cells(hid_t d, hid_t type, const std::string& path, const std::vector<std::uint64_t>& dims,
             std::uint64_t row) {
    if (dims.empty()) {
      std::vector<std::uint8_t> cell(row);
      h5::must(H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, cell.data()), "read /" + path);
      return hash_.update(cell);
    }
    const std::uint64_t step = std::max<std::uint64_t>(1, at_once / row);
    std::vector<std::uint8_t> some;
    for (std::uint64_t first = 0; first < dims[0]; first += step) {
      std::vector<hsize_t> start(dims.size(), 0);
      std::vector<hsize_t> count(dims.begin(), dims.end());
      start[0] = first;
      count[0] = std::min(step, dims[0] - first);
      const Handle from{H5Dget_space(d), "read the shape of /" + path};
      h5::must(
          H5Sselect_hyperslab(from, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
          "choose rows of /" + path);
      const Handle to = h5::space({count.begin(), count.end()});
      some.resize(row * count[0]);
      h5::must(H5Dread(d, type, to, from, H5P_DEFAULT, some.data()), "read /" + path);
      hash_.update(some);
    }
  }

  hid_t file_;
  Xxh3 hash_;
};

}  // namespace

std::uint64_t constants_xxh3(hid_t file) {
  return ConstantsHash(file).value();
}

std::string constants_text(hid_t file) {
  return fmt::format("{:016x}", constants_xxh3(file));
}

}  // namespace moe
