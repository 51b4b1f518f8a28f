// GoldenFile over the HDF5 C API: handles close themselves, libhdf5's own error printing is
// silenced while we ask.
#include "lib/trace/golden.h"

#include <hdf5.h>

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

class Handle {  // an HDF5 id with the function that closes it
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0)
      close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const {
    return id_;
  }
  bool ok() const {
    return id_ >= 0;
  }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

class Quiet {  // HDF5 prints a stack for every "not there": keep it off the user's screen
 public:
  Quiet() {
    H5Eget_auto2(H5E_DEFAULT, &call_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~Quiet() {
    H5Eset_auto2(H5E_DEFAULT, call_, data_);
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  H5E_auto2_t call_ = nullptr;
  void* data_ = nullptr;
};

template <class T>
hid_t memory_type();
template <>
hid_t memory_type<double>() {
  return H5T_NATIVE_DOUBLE;
}
template <>
hid_t memory_type<std::int64_t>() {
  return H5T_NATIVE_INT64;
}

herr_t collect_dataset(hid_t, const char* name, const H5O_info_t* info, void* out) {
  if (info->type == H5O_TYPE_DATASET)
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
  return 0;
}

herr_t collect_attribute(hid_t, const char* name, const H5A_info_t*, void* out) {
  static_cast<std::vector<std::string>*>(out)->emplace_back(name);
  return 0;
}

}  // namespace

struct GoldenFile::File {
  std::filesystem::path path;
  Handle id;

  [[noreturn]] void bad(std::string_view item, std::string_view what) const {
    throw Error(Exit::input, concat(path.string(), ": ", item, " ", what))
        .hint("the golden files may be damaged or of another version");
  }
  // True where every link on the way exists: H5Lexists wants the parents to be there.
  bool exists(const std::string& name) const {
    std::string prefix;
    for (const std::string& part : split(name, '/')) {
      prefix += prefix.empty() ? part : "/" + part;
      if (H5Lexists(id, prefix.c_str(), H5P_DEFAULT) <= 0)
        return false;
    }
    return !name.empty();
  }
  hid_t open_dataset(std::string_view name) const {
    if (!exists(std::string(name)))
      bad(name, "is not there");
    const hid_t set = H5Dopen2(id, std::string(name).c_str(), H5P_DEFAULT);
    if (set < 0)
      bad(name, "is not a dataset");
    return set;
  }
  template <class T>
  GoldenArray<T> read(std::string_view name) const {
    const Quiet quiet;
    const Handle set(open_dataset(name), H5Dclose);
    const Handle type(H5Dget_type(set), H5Tclose), space(H5Dget_space(set), H5Sclose);
    check_number<T>(type, name);
    GoldenArray<T> out = shaped<T>(space, name);
    if (out.size() &&
        H5Dread(set, memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, out.values.data()) < 0) {
      bad(name, "cannot be read");
    }
    return out;
  }
  GoldenArray<std::string> read_texts(std::string_view name) const {
    const Quiet quiet;
    const Handle set(open_dataset(name), H5Dclose);
    const Handle type(H5Dget_type(set), H5Tclose), space(H5Dget_space(set), H5Sclose);
    if (H5Tis_variable_str(type) <= 0)
      bad(name, "does not hold texts of variable length");
    GoldenArray<std::string> out = shaped<std::string>(space, name);
    std::vector<char*> read(out.values.size(), nullptr);
    if (!read.empty() && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, read.data()) < 0)
      bad(name, "cannot be read");
    for (std::size_t i = 0; i < read.size(); ++i)
      out.values[i] = read[i] ? read[i] : "";
    if (!read.empty())
      H5Dvlen_reclaim(type, space, H5P_DEFAULT, read.data());
    return out;
  }
  template <class T>
  std::vector<T> read_attribute(std::string_view name) const {
    const Quiet quiet;
    const Handle attribute(H5Aopen(id, std::string(name).c_str(), H5P_DEFAULT), H5Aclose);
    if (!attribute.ok())
      bad(concat("attribute ", name), "is not there");
    const Handle type(H5Aget_type(attribute), H5Tclose), space(H5Aget_space(attribute), H5Sclose);
    check_number<T>(type, name);
    GoldenArray<T> out = shaped<T>(space, name);
    if (out.size() && H5Aread(attribute, memory_type<T>(), out.values.data()) < 0)
      bad(name, "cannot be read");
    return out.values;
  }
  template <class T>
  void check_number(hid_t type, std::string_view name) const {
    const H5T_class_t kind = H5Tget_class(type);
    if (kind != H5T_INTEGER && (std::is_integral_v<T> || kind != H5T_FLOAT))
      bad(name, std::is_integral_v<T> ? "does not hold integers" : "does not hold numbers");
  }
  template <class T>
  GoldenArray<T> shaped(hid_t space, std::string_view name) const {
    const int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 0 || rank > 8)
      bad(name, "has no simple shape");
    std::vector<hsize_t> dims(static_cast<std::size_t>(rank));
    if (rank)
      H5Sget_simple_extent_dims(space, dims.data(), nullptr);
    hsize_t count = 1;
    for (const hsize_t d : dims) {
      if (d > (hsize_t{1} << 28) || (count *= d) > (hsize_t{1} << 28))
        bad(name, "is larger than a golden array may be");
    }
    return {std::vector<Index>(dims.begin(), dims.end()), std::vector<T>(count)};
  }
  H5T_class_t attribute_class(std::string_view name) const {
    const Quiet quiet;
    const Handle attribute(H5Aopen(id, std::string(name).c_str(), H5P_DEFAULT), H5Aclose);
    if (!attribute.ok())
      bad(concat("attribute ", name), "is not there");
    const Handle type(H5Aget_type(attribute), H5Tclose);
    return H5Tget_class(type);
  }
};

GoldenFile::GoldenFile(const std::filesystem::path& path) {
  const Quiet quiet;
  const hid_t id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  if (id < 0) {
    throw Error(Exit::input, concat("cannot open '", path.string(), "' as HDF5"))
        .hint("is it there, and whole?");
  }
  file_ = std::unique_ptr<File>(new File{path, {id, H5Fclose}});
}
GoldenFile::~GoldenFile() = default;
GoldenFile::GoldenFile(GoldenFile&&) noexcept = default;

bool GoldenFile::has(std::string_view dataset) const {
  const Quiet quiet;
  return file_->exists(std::string(dataset));
}
bool GoldenFile::has_attribute(std::string_view name) const {
  return H5Aexists(file_->id, std::string(name).c_str()) > 0;
}

std::vector<std::string> GoldenFile::datasets() const {
  std::vector<std::string> out;
  H5Ovisit(file_->id, H5_INDEX_NAME, H5_ITER_INC, collect_dataset, &out);
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> GoldenFile::attributes() const {
  std::vector<std::string> out;
  hsize_t at = 0;
  H5Aiterate2(file_->id, H5_INDEX_NAME, H5_ITER_INC, &at, collect_attribute, &out);
  std::sort(out.begin(), out.end());
  return out;
}

bool GoldenFile::is_text(std::string_view name) const {
  return file_->attribute_class(name) == H5T_STRING;
}
bool GoldenFile::is_real(std::string_view name) const {
  return file_->attribute_class(name) == H5T_FLOAT;
}

GoldenArray<double> GoldenFile::reals(std::string_view name) const {
  return file_->read<double>(name);
}
GoldenArray<std::string> GoldenFile::texts(std::string_view dataset) const {
  return file_->read_texts(dataset);
}
GoldenArray<std::int64_t> GoldenFile::integers(std::string_view name) const {
  return file_->read<std::int64_t>(name);
}
std::vector<double> GoldenFile::real_list(std::string_view name) const {
  return file_->read_attribute<double>(name);
}
std::vector<std::int64_t> GoldenFile::integer_list(std::string_view name) const {
  return file_->read_attribute<std::int64_t>(name);
}

double GoldenFile::real(std::string_view name) const {
  const auto list = real_list(name);
  if (list.size() != 1)
    file_->bad(concat("attribute ", name), "is not a scalar");
  return list[0];
}
std::int64_t GoldenFile::integer(std::string_view name) const {
  const auto list = integer_list(name);
  if (list.size() != 1)
    file_->bad(concat("attribute ", name), "is not a scalar");
  return list[0];
}

std::string GoldenFile::text(std::string_view name) const {
  const Quiet quiet;
  const Handle attribute(H5Aopen(file_->id, std::string(name).c_str(), H5P_DEFAULT), H5Aclose);
  if (!attribute.ok())
    file_->bad(concat("attribute ", name), "is not there");
  const Handle type(H5Aget_type(attribute), H5Tclose), space(H5Aget_space(attribute), H5Sclose);
  if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1)
    file_->bad(concat("attribute ", name), "is not one string");
  if (H5Tis_variable_str(type) > 0) {
    char* held = nullptr;
    if (H5Aread(attribute, type, &held) < 0)
      file_->bad(name, "cannot be read");
    const std::string out = held ? held : "";
    H5free_memory(held);
    return out;
  }
  std::string out(H5Tget_size(type), '\0');
  if (H5Aread(attribute, type, out.data()) < 0)
    file_->bad(name, "cannot be read");
  return out.substr(0, out.find('\0'));
}

}  // namespace moe
