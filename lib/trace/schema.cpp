// Checked reading of HDF5: see schema.h.
#include "lib/trace/schema.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/files/foreign.h"
#include "lib/trace/unmarked_copy.h"

namespace moe {
namespace {
constexpr std::uint64_t chunk_limit = 64ull << 20, whole_limit = 1ull << 30,
                        text_limit = 16ull << 20;
constexpr std::uint64_t deflate_ratio = 1100;  // deflate cannot do better than 1,032 to 1

// a*b*..., or nullopt where it passes 2^62
std::optional<std::uint64_t> product(const std::vector<std::uint64_t>& factors,
                                     std::uint64_t start) {
  std::uint64_t out = start;
  for (const std::uint64_t f : factors) {
    if (__builtin_mul_overflow(out, f, &out) || out >> 62)
      return std::nullopt;
  }
  return out;
}

[[noreturn]] void nothing_in(const std::filesystem::path& path) {
  throw Error(
      Exit::input,
      fmt::format("{} was stopped before its first row: there is nothing in it", path.string()))
      .hint("record it again, with --force");
}

hssize_t rows_of(hid_t dataset) {
  const h5::Handle extent{H5Dget_space(dataset), "read the shape of /commits"};
  return H5Sget_simple_extent_npoints(extent);
}

[[noreturn]] void another_writer(const std::filesystem::path& path) {
  throw Error(Exit::io,
              fmt::format("{}: another program has it open for writing, or did not close it",
                          in_quotes(path)))
      .hint("read it once that program has closed it; h5clear -s FILE, if there is none");
}

// Size of a regular, readable file that begins as HDF5 files do.
std::uint64_t checked_size(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int code = errno;
    throw Error(code == ENOENT || code == ENOTDIR ? Exit::input : Exit::io,
                fmt::format("cannot open {}: {}", path.string(), std::strerror(code)));
  }
  struct stat s {};
  char head[8] = {};
  const bool regular = ::fstat(fd, &s) == 0 && S_ISREG(s.st_mode);
  const ssize_t got = regular ? ::pread(fd, head, sizeof head, 0) : 0;
  ::close(fd);
  if (!regular)
    throw Error(Exit::input, fmt::format("{} is not a regular file", path.string()));
  const bool is_hdf5 = got == 8 && std::memcmp(head, "\211HDF\r\n\032\n", 8) == 0;
  if (!is_hdf5 && path.extension() == ".part")
    nothing_in(path);
  if (!is_hdf5) {
    refuse_foreign(path, "a trace");
    throw Error(Exit::input,
                fmt::format("{} is not an HDF5 file ({} bytes)", path.string(), s.st_size))
        .hint("a file made by moe trace");
  }
  return std::uint64_t(s.st_size);
}
}  // namespace

Schema::Schema(const std::filesystem::path& path) : path_(path), file_bytes_(checked_size(path)) {
  h5::start();
  open_file();
}

void Schema::open_file() {
  const h5::Handle access = h5::file_access(false);
  hid_t id = H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access);
  // the writer lives, or died: HDF5's own reading beside a writer, told not to retry a torn block
  // for ever
  bool writer = false;
  if (id < 0) {
    writer = h5::met_writer();
    interrupted_ = true;
    h5::must(H5Pset_metadata_read_attempts(access, 10), "prepare to read");
    id = H5Fopen(path_.c_str(), H5F_ACC_RDONLY | H5F_ACC_SWMR_READ, access);
  }
  try {
    file_ = h5::Handle{id, fmt::format("read {}", path_.string())};
  } catch (const Error& e) {
    const std::string_view why = e.what();
    const bool part = path_.extension() == ".part";
    if (writer && !part)
      another_writer(path_);
    // readers are let in before the first row is taken, to a file whose first pages are on disk
    constexpr std::uint64_t page = 4096;
    if (part && file_bytes_ < 4 * page && why.find("truncated file") != why.npos)
      nothing_in(path_);
    if (!part || why.find("not already open for SWMR") == why.npos)
      throw;
    open_unmarked();
  }
}

// HDF5 keeps the copy open when its name is gone.
void Schema::open_unmarked() {
  try {
    const UnmarkedCopy copy(path_);
    file_ = h5::Handle{H5Fopen(copy.name().c_str(), H5F_ACC_RDONLY, h5::file_access(false)),
                       fmt::format("read a copy of {}", path_.string())};
  } catch (const Error& e) {
    throw Error(e.code(),
                fmt::format("{} was stopped while HDF5 changed it: {}", path_.string(), e.what()))
        .hint("keep it: rows that were recorded are still in it");
  }
  if (!has_commits())
    nothing_in(path_);
}

// Where not even the names in it can be read, HDF5 had not written what it made: the writer died
// before it let readers in, and so before the first row.
bool Schema::has_commits() const {
  try {
    return has("/commits") && rows_of(open("/commits").dataset) > 0;
  } catch (const Error&) {
    return false;
  }
}

void Schema::refuse(const std::string& sentence) const {
  throw Error(Exit::input, fmt::format("{}: {}", path_.string(), sentence));
}

bool Schema::has(const std::string& path) const {
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    const htri_t there = H5Lexists(file_, part.c_str(), H5P_DEFAULT);
    if (there < 0)
      h5::must(there, fmt::format("look up {} in {}", part, path_.string()));
    if (there == 0)
      return false;
    H5L_info_t info;
    h5::must(H5Lget_info(file_, part.c_str(), &info, H5P_DEFAULT),
             fmt::format("look up {} in {}", part, path_.string()));
    if (info.type != H5L_TYPE_HARD)
      refuse(fmt::format("{} is a soft or external link, which traces do not have", part));
    if (end == std::string::npos)
      return true;
  }
}

std::vector<std::string> Schema::names(const std::string& group) const {
  std::vector<std::string> out;
  if (!has(group))
    return out;
  const h5::Handle g{H5Gopen2(file_, group.c_str(), H5P_DEFAULT),
                     fmt::format("open {} of {}", group, path_.string())};
  H5G_info_t info;
  h5::must(H5Gget_info(g, &info), "list " + group);
  constexpr hsize_t most = 256;  // names are looked up one by one
  if (info.nlinks > most)
    refuse(fmt::format("{} has {} entries, more than {}", group, info.nlinks, most));
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    char name[256];
    const ssize_t n =
        H5Lget_name_by_idx(g, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name, H5P_DEFAULT);
    h5::must(n, "list " + group);
    if (n < ssize_t(sizeof name))
      out.emplace_back(name, std::size_t(n));
  }
  return out;
}

DataInfo Schema::open(const std::string& path) const {
  DataInfo info;
  info.path = path;
  info.dataset = h5::Handle{H5Dopen2(file_, path.c_str(), H5P_DEFAULT),
                            fmt::format("open {} of {}", path, path_.string())};
  return info;
}

void Schema::check_filters(hid_t list, DataInfo& info, std::size_t cell_bytes) const {
  const auto n = int(h5::must(H5Pget_nfilters(list), "read the filters of " + info.path));
  for (int i = 0; i < n; ++i) {
    unsigned flags = 0;
    unsigned config = 0;
    unsigned values[8] = {};
    std::size_t count = 8;
    const H5Z_filter_t id =
        H5Pget_filter2(list, unsigned(i), &flags, &count, values, 0, nullptr, &config);
    h5::must(id, "read the filters of " + info.path);
    if (id != H5Z_FILTER_DEFLATE && id != H5Z_FILTER_SHUFFLE && id != H5Z_FILTER_FLETCHER32) {
      refuse(fmt::format("{} uses HDF5 filter {}; traces use shuffle, deflate and fletcher32 only",
                         info.path, int(id)));
    }
    if (id == H5Z_FILTER_SHUFFLE && count > 0 && values[0] != cell_bytes)
      info.plain_shuffle = false;
    info.pipeline.push_back(Filter(id));
  }
}

// Rows that take no bytes are a lie: a file of 1.4 KB can claim 2^50 of them.
void Schema::check_size(const DataInfo& info, std::size_t cell_bytes) const {
  const auto bytes = product(info.dims, cell_bytes);
  const std::uint64_t stored = info.chunk.empty() ? 0 : H5Dget_storage_size(info.dataset);
  std::error_code failed;
  // after that: a writer may be at it
  const std::uint64_t now = std::filesystem::file_size(path_, failed);
  const std::uint64_t file_bytes = failed ? file_bytes_ : now;
  if (!bytes)
    refuse(fmt::format("{} claims more than 2^62 bytes", info.path));
  if (info.chunk.empty() && *bytes > file_bytes)
    refuse(fmt::format("{} claims {} bytes in a file of {}", info.path, *bytes, file_bytes));
  if (info.chunk.empty())
    return;
  if (stored > file_bytes) {
    refuse(
        fmt::format("{} claims to store {} bytes in a file of {}", info.path, stored, file_bytes));
  }
  if (*bytes > (stored * deflate_ratio) + (1 << 20))
    refuse(fmt::format("{} claims {} bytes and stores only {}", info.path, *bytes, stored));
}

void Schema::check_layout(DataInfo& info, std::size_t cell_bytes, std::size_t rank) const {
  const h5::Handle list{H5Dget_create_plist(info.dataset), "read the layout of " + info.path};
  const h5::Handle extent{H5Dget_space(info.dataset), "read the shape of " + info.path};
  if (H5Sget_simple_extent_type(extent) != H5S_SIMPLE ||
      H5Sget_simple_extent_ndims(extent) != int(rank)) {
    refuse(
        fmt::format("{} has rank {}, not {}", info.path, H5Sget_simple_extent_ndims(extent), rank));
  }
  info.dims = h5::dims_of(info.dataset);
  const H5D_layout_t layout = H5Pget_layout(list);
  if (layout != H5D_COMPACT && layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED)
    refuse(fmt::format("{} is a virtual dataset, which traces do not have", info.path));
  if (layout != H5D_CHUNKED &&
      h5::must(H5Pget_external_count(list), "read the layout of " + info.path) != 0) {
    refuse(fmt::format("{} keeps its data in another file, which traces do not do", info.path));
  }
  if (layout == H5D_CHUNKED) {
    std::vector<hsize_t> chunk(rank);
    h5::must(H5Pget_chunk(list, int(rank), chunk.data()), "read the chunks of " + info.path);
    info.chunk.assign(chunk.begin(), chunk.end());
    const auto bytes = product(info.chunk, cell_bytes);
    if (!bytes || *bytes == 0 || *bytes > chunk_limit) {
      refuse(fmt::format("{} has chunks of {} bytes; 64 MiB is the limit", info.path,
                         bytes.value_or(0)));
    }
  }
  check_filters(list, info, cell_bytes);
  check_size(info, cell_bytes);
}

std::optional<DataInfo> Schema::find(const std::string& path, std::initializer_list<h5::Cell> cells,
                                     std::size_t rank) const {
  if (!has(path))
    return std::nullopt;
  DataInfo info = open(path);
  const h5::Handle type{H5Dget_type(info.dataset), "read the type of " + path};
  std::string wanted;
  for (const h5::Cell cell : cells) {
    if (H5Tequal(type, h5::type_of(cell)) > 0) {
      info.cell = cell;
      check_layout(info, h5::bytes_of(cell), rank);
      return info;
    }
    wanted += (wanted.empty() ? "" : " or ") + std::string(h5::name_of(cell));
  }
  refuse(fmt::format("{} has another element type than {}", path, wanted));
}

std::optional<DataInfo> Schema::find(const std::string& path, hid_t wanted,
                                     std::size_t rank) const {
  if (!has(path))
    return std::nullopt;
  DataInfo info = open(path);
  const h5::Handle type{H5Dget_type(info.dataset), "read the type of " + path};
  if (H5Tequal(type, wanted) <= 0)
    refuse(fmt::format("{} has another element type than the format says", path));
  check_layout(info, H5Tget_size(type), rank);
  return info;
}

std::vector<std::uint8_t> Schema::whole(const DataInfo& info, hid_t type,
                                        std::size_t cell_bytes) const {
  const std::uint64_t bytes = *product(info.dims, cell_bytes);  // check_size has seen it
  if (bytes > whole_limit)
    refuse(fmt::format("{} has {} bytes; 1 GiB is the limit for it", info.path, bytes));
  std::vector<std::uint8_t> out(bytes);
  if (bytes > 0) {
    h5::must(H5Dread(info.dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.data()),
             fmt::format("read {} of {}", info.path, path_.string()));
  }
  return out;
}

std::vector<std::string> Schema::texts(const std::string& path) const {
  std::vector<std::string> out;
  if (!has(path))
    return out;
  DataInfo info = open(path);
  const h5::Handle type{H5Dget_type(info.dataset), "read the type of " + path};
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0)
    refuse(fmt::format("{} is not fixed-length text", path));
  const std::size_t width = H5Tget_size(type);
  if (width == 0 || width > text_limit)
    refuse(fmt::format("{} has texts of {} bytes", path, width));
  check_layout(info, width, 1);
  const auto cells = whole(info, type, width);
  for (std::size_t at = 0; at < cells.size(); at += width) {
    std::string text(reinterpret_cast<const char*>(cells.data()) + at, width);
    out.push_back(text.substr(0, text.find_last_not_of('\0') + 1));
  }
  return out;
}

namespace {

// The value of an attribute of variable length, as h5py stores a Python string.
std::string variable_text(hid_t attribute, hid_t stored) {
  const h5::Handle type{H5Tcopy(H5T_C_S1), "make a text type"};
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5Tget_cset(stored));
  char* value = nullptr;
  h5::must(H5Aread(attribute, type, &value), "read a text of variable length");
  const std::string out = value ? value : "";
  H5free_memory(value);
  return out;
}

}  // namespace

std::string Schema::text(hid_t object, const char* attribute, const std::string& fallback) const {
  if (h5::must(H5Aexists(object, attribute), fmt::format("look up the attribute {}", attribute)) ==
      0) {
    return fallback;
  }
  const h5::Handle a{H5Aopen(object, attribute, H5P_DEFAULT),
                     fmt::format("open the attribute {}", attribute)};
  const h5::Handle type{H5Aget_type(a), "read a type"};
  const h5::Handle extent{H5Aget_space(a), "read a shape"};
  if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(extent) != 1)
    refuse(fmt::format("the attribute {} is not one text", attribute));
  if (H5Tis_variable_str(type) > 0) {
    const std::string out = variable_text(a, type);
    if (out.size() > text_limit)
      refuse(fmt::format("the attribute {} has {} bytes", attribute, out.size()));
    return out;
  }
  const std::size_t width = H5Tget_size(type);
  if (width > text_limit || width > file_bytes_)
    refuse(fmt::format("the attribute {} has {} bytes", attribute, width));
  std::string out(width, '\0');
  h5::must(H5Aread(a, type, out.data()), fmt::format("read the attribute {}", attribute));
  return out.substr(0, out.find_last_not_of('\0') + 1);
}

std::int64_t Schema::number(hid_t object, const char* attribute, std::int64_t fallback) const {
  if (h5::must(H5Aexists(object, attribute), fmt::format("look up the attribute {}", attribute)) ==
      0) {
    return fallback;
  }
  const h5::Handle a{H5Aopen(object, attribute, H5P_DEFAULT),
                     fmt::format("open the attribute {}", attribute)};
  const h5::Handle type{H5Aget_type(a), "read a type"};
  const h5::Handle extent{H5Aget_space(a), "read a shape"};
  if (H5Tget_class(type) != H5T_INTEGER || H5Tget_size(type) > 8 ||
      H5Sget_simple_extent_npoints(extent) != 1) {
    refuse(fmt::format("the attribute {} is not one whole number", attribute));
  }
  std::int64_t value = 0;  // u64 beyond 2^63 keeps its bits
  const bool is_signed = H5Tget_sign(type) == H5T_SGN_2;
  h5::must(H5Aread(a, is_signed ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64, &value),
           fmt::format("read the attribute {}", attribute));
  return value;
}

}  // namespace moe
