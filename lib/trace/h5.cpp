// Checked HDF5 calls for writing and what both sides share; checked reading is in schema.cpp.
#include "lib/trace/h5.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe::h5 {
namespace {

struct Reason {
  std::string text;
  int code = 0;  // errno, where HDF5 quotes one
};

// HDF5 names the errno only inside a sentence of its innermost frame: "errno = 28, error message =
// '...'".
herr_t collect(unsigned, const H5E_error2_t* frame, void* out) {
  auto& reason = *static_cast<Reason*>(out);
  const std::string text = frame->desc ? frame->desc : "";
  if (const auto at = text.find("errno = "); at != std::string::npos) {
    reason.code = std::atoi(text.c_str() + at + 8);
    reason.text = std::strerror(reason.code);
  }
  if (reason.text.empty())
    reason.text = text;
  return 0;
}

Reason last_reason() {
  Reason reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &reason);
  H5Eclear2(H5E_DEFAULT);
  if (reason.text.empty())
    reason.text = "HDF5 gives no reason";
  return reason;
}

Handle scalar() {
  return {H5Screate(H5S_SCALAR), "make a scalar"};
}

void write_attribute(hid_t object, const char* name, hid_t type, const void* value, bool make) {
  const Handle attribute{make ? H5Acreate2(object, name, type, scalar(), H5P_DEFAULT, H5P_DEFAULT)
                              : H5Aopen(object, name, H5P_DEFAULT),
                         concat("write the attribute ", name)};
  must(H5Awrite(attribute, type, value), concat("write the attribute ", name));
}

Handle half_type() {  // IEEE binary16: HDF5 1.10 has no name for it
  Handle type{H5Tcopy(H5T_IEEE_F32LE), "make the f16 type"};
  must(H5Tset_fields(type, 15, 10, 5, 0, 10), "make the f16 type");
  must(H5Tset_ebias(type, 15), "make the f16 type");
  must(H5Tset_size(type, 2), "make the f16 type");
  return type;
}

}  // namespace

void start() {
  static const bool started = [] {
    H5dont_atexit();
    must(H5open(), "start HDF5");
    must(H5PLset_loading_state(0), "switch HDF5 plugins off");
    return true;
  }();
  thread_local const bool quiet = started && H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  (void)quiet;
}

std::int64_t must(std::int64_t result, std::string_view doing) {
  if (result >= 0)
    return result;
  const Reason reason = last_reason();
  const bool disk = reason.code == ENOSPC || reason.code == EFBIG || reason.code == EDQUOT ||
                    reason.code == EIO || reason.code == EACCES || reason.code == EROFS ||
                    reason.code == EPERM;
  throw Error(disk ? Exit::io : Exit::input, concat("cannot ", doing, ": ", reason.text));
}

bool met_writer() {
  const Reason reason = last_reason();
  return reason.code == EAGAIN || reason.text.find("already open for write") != std::string::npos;
}

Handle::~Handle() {
  if (id_ >= 0 && H5Iis_valid(id_) > 0)
    H5Idec_ref(id_);
  id_ = -1;
}

void Handle::close(std::string_view doing) {
  const hid_t id = std::exchange(id_, -1);
  if (id < 0)
    return;
  const H5I_type_t kind = H5Iget_type(id);
  must(kind == H5I_FILE      ? H5Fclose(id)
       : kind == H5I_DATASET ? H5Dclose(id)
                             : H5Idec_ref(id),
       doing);
}

std::string_view name_of(Cell c) {
  constexpr std::string_view names[] = {"u8", "u16", "u32", "u64", "i32", "i64", "f16", "f32"};
  return names[std::size_t(c)];
}

hid_t type_of(Cell c) {
  static const Handle half = half_type();
  switch (c) {
    case Cell::u8:
      return H5T_STD_U8LE;
    case Cell::u16:
      return H5T_STD_U16LE;
    case Cell::u32:
      return H5T_STD_U32LE;
    case Cell::u64:
      return H5T_STD_U64LE;
    case Cell::i32:
      return H5T_STD_I32LE;
    case Cell::i64:
      return H5T_STD_I64LE;
    case Cell::f16:
      return half;
    default:
      return H5T_IEEE_F32LE;
  }
}

Handle file_access(bool edit) {
  Handle list{H5Pcreate(H5P_FILE_ACCESS), "prepare a file"};
  // network and read-only file systems refuse flock
  must(H5Pset_file_locking(list, false, true), "prepare a file");
  must(H5Pset_fclose_degree(list, H5F_CLOSE_STRONG), "prepare a file");
  if (edit)
    must(H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110), "prepare a file");
  return list;
}

Handle group(hid_t file, const std::string& path) {
  const Handle list{H5Pcreate(H5P_GROUP_CREATE), "prepare a group"};
  must(H5Pset_obj_track_times(list, false), "prepare a group");
  must(H5Pset_link_phase_change(list, 64, 32), "prepare a group");
  return {H5Gcreate2(file, path.c_str(), H5P_DEFAULT, list, H5P_DEFAULT),
          concat("make the group ", path)};
}

Handle text_type(std::size_t bytes) {
  Handle type{H5Tcopy(H5T_C_S1), "make a text type"};
  must(H5Tset_size(type, bytes ? bytes : 1), "make a text type");
  must(H5Tset_cset(type, H5T_CSET_UTF8), "make a text type");
  must(H5Tset_strpad(type, H5T_STR_NULLPAD), "make a text type");
  return type;
}

Handle space(const std::vector<std::uint64_t>& dims, bool grows) {
  std::vector<hsize_t> now(dims.begin(), dims.end());
  std::vector<hsize_t> most = now;
  if (grows)
    most[0] = H5S_UNLIMITED;
  return {H5Screate_simple(int(now.size()), now.data(), most.data()), "make a data space"};
}

void put(hid_t object, const char* name, std::string_view text, std::size_t room) {
  std::string padded(text);
  padded.resize(std::max<std::size_t>({text.size(), room, 1}), '\0');
  write_attribute(object, name, text_type(padded.size()), padded.data(), true);
}
void put(hid_t object, const char* name, Cell cell, const void* value) {
  write_attribute(object, name, type_of(cell), value, true);
}

void set(hid_t object, const char* name, std::string_view text) {
  write_attribute(object, name, text_type(text.size()), std::string(text).data(), false);
}
void set(hid_t object, const char* name, Cell cell, const void* value) {
  write_attribute(object, name, type_of(cell), value, false);
}

Handle dataset(hid_t file, const std::string& path, hid_t type, const Layout& layout) {
  const Handle list{H5Pcreate(H5P_DATASET_CREATE), "prepare a dataset"};
  must(H5Pset_obj_track_times(list, false), "prepare a dataset");
  if (layout.chunk.empty()) {
    must(H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY), "prepare a dataset");
  } else {
    const std::vector<hsize_t> chunk(layout.chunk.begin(), layout.chunk.end());
    must(H5Pset_chunk(list, int(chunk.size()), chunk.data()), "prepare a dataset");
  }
  if (layout.filtered) {
    if (H5Tget_size(type) > 1)
      must(H5Pset_shuffle(list), "prepare a dataset");
    must(H5Pset_deflate(list, unsigned(layout.deflate)), "prepare a dataset");
    must(H5Pset_fletcher32(list), "prepare a dataset");
  }
  return {H5Dcreate2(file, path.c_str(), type, space(layout.dims, layout.grows), H5P_DEFAULT, list,
                     H5P_DEFAULT),
          concat("make ", path)};
}

void resize(hid_t dataset, const std::vector<std::uint64_t>& dims, std::string_view path) {
  const std::vector<hsize_t> wanted(dims.begin(), dims.end());
  must(H5Dset_extent(dataset, wanted.data()), concat("extend ", path));
}

void write(hid_t dataset, hid_t type, const void* cells, std::string_view path) {
  must(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, cells), concat("write ", path));
  // A few numbers wait in a buffer of libhdf5 until the dataset is closed. Where they cannot be
  // written then, closing fails half way, and a later call dies of a signal.
  must(H5Dflush(dataset), concat("write ", path));
}

void texts(hid_t file, const std::string& path, const std::vector<std::string>& values) {
  std::size_t width = 1;
  for (const auto& v : values)
    width = std::max(width, v.size());
  std::string cells;
  for (const auto& v : values)
    (cells += v).append(width - v.size(), '\0');
  const Handle type = text_type(width);
  const Handle d = dataset(file, path, type, {{values.size()}, {}});
  write(d, type, cells.data(), path);
}

void write_rows(hid_t dataset, hid_t type, std::uint64_t first, std::uint64_t count,
                const void* cells, std::string_view path) {
  if (count == 0)
    return;
  const hsize_t start = first;
  const hsize_t length = count;
  const Handle there{H5Dget_space(dataset), concat("write ", path)};
  must(H5Sselect_hyperslab(there, H5S_SELECT_SET, &start, nullptr, &length, nullptr),
       concat("write ", path));
  must(H5Dwrite(dataset, type, space({count}), there, H5P_DEFAULT, cells), concat("write ", path));
}

std::vector<std::uint64_t> dims_of(hid_t dataset) {
  const Handle extent{H5Dget_space(dataset), "read a shape"};
  const auto rank = std::size_t(must(H5Sget_simple_extent_ndims(extent), "read a shape"));
  std::vector<hsize_t> dims(rank);
  if (rank > 0)
    must(H5Sget_simple_extent_dims(extent, dims.data(), nullptr), "read a shape");
  return {dims.begin(), dims.end()};
}

}  // namespace moe::h5
