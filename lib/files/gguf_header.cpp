// The header of a GGUF file: magic, version, counts, typed keys, and where the tensors lie. It is
// read from the mapped file by a cursor that cannot leave it.
#include "lib/files/gguf_header.h"
#include "lib/files/foreign.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t least_key = 8 + 4 + 1;             // bytes of an entry: name, type, value
constexpr std::uint64_t least_tensor = 8 + 4 + 8 + 4 + 8;  // name, rank, a size, type, offset
constexpr std::uint32_t most_dims = 4;
constexpr Index usual_alignment = 32;

[[noreturn]] void refuse(const fs::path& path, const std::string& why,
                         const std::string& hint = "") {
  throw Error(Exit::input, concat(in_quotes(path), " ", why)).hint(hint);
}
[[noreturn]] void refuse_tensor(const fs::path& path, std::string_view name,
                                const std::string& why) {
  throw Error(Exit::input, concat("tensor ", in_quotes(name), " in ", in_quotes(path), " ", why));
}

// The rest of the file.
class Cursor {
 public:
  Cursor(const fs::path& path, std::span<const std::byte> file) : path_(path), left_(file) {}

  std::span<const std::byte> take(std::uint64_t n, const char* what) {
    if (n > left_.size())
      refuse(path_, concat("ends inside ", what), "the file is cut short, or is no GGUF file");
    const auto out = left_.first(std::size_t(n));
    left_ = left_.subspan(std::size_t(n));
    return out;
  }
  template <class T>
  T number(const char* what) {
    T v;
    std::memcpy(&v, take(sizeof v, what).data(), sizeof v);
    return v;
  }
  std::string_view string(const char* what) {
    const std::uint64_t n = number<std::uint64_t>(what);
    const auto bytes = take(n, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::span<const std::byte> left() const {
    return left_;
  }
  const fs::path& path() const {
    return path_;
  }

 private:
  const fs::path& path_;
  std::span<const std::byte> left_;
};

// Bytes of a value; 0: a string or an array, which say their own length.
std::uint64_t width_of(GgufType t) {
  constexpr std::array<std::uint8_t, 13> widths = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return widths[std::size_t(t)];
}

GgufType read_type(Cursor& at, std::string_view key) {
  const std::uint32_t id = at.number<std::uint32_t>("the type of a key");
  if (id > std::uint32_t(GgufType::f64)) {
    refuse(at.path(), concat("has the key ", in_quotes(key), " of type ", id,
                             ", and there are types 0 to 12"));
  }
  return GgufType(id);
}

// `count` elements one after the other.
std::span<const std::byte> read_elements(Cursor& at, GgufType type, std::uint64_t count,
                                         std::string_view key) {
  const std::uint64_t width = width_of(type);
  const std::uint64_t least = width == 0 ? 8 : width;
  const std::span<const std::byte> all = at.left();
  if (count > all.size() / least) {
    refuse(at.path(), concat("has the key ", in_quotes(key), " with ", count,
                             " elements, more than the file can hold"));
  }
  if (width > 0)
    return at.take(count * width, "the value of a key");
  for (std::uint64_t i = 0; i < count; ++i)
    at.string("the value of a key");
  return all.first(all.size() - at.left().size());
}

GgufValue read_value(Cursor& at, std::string_view key) {
  GgufValue v;
  v.type = read_type(at, key);
  std::uint64_t count = 1;
  if (v.type == GgufType::array) {
    v.array = true;
    v.type = read_type(at, key);
    if (v.type == GgufType::array)
      refuse(at.path(), concat("has arrays inside the array of the key ", in_quotes(key)));
    count = at.number<std::uint64_t>("the value of a key");
  }
  v.bytes = read_elements(at, v.type, count, key);
  v.count = Index(count);
  const auto neither = [](std::byte b) {
    return b > std::byte(1);
  };
  if (v.type == GgufType::boolean && std::ranges::any_of(v.bytes, neither))
    refuse(at.path(), concat("has the key ", in_quotes(key), " neither true nor false"));
  return v;
}

void read_keys(Cursor& at, std::uint64_t count, GgufHeader& out) {
  if (count > at.left().size() / least_key)
    refuse(at.path(), concat("says that it has ", count, " keys, more than the file can hold"));
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string key(at.string("its keys"));
    if (!out.keys.emplace(key, read_value(at, key)).second)
      refuse(at.path(), concat("has the key ", in_quotes(key), " twice"));
  }
}

void check_type(const fs::path& path, std::string_view name, std::uint32_t id) {
  const GgmlType* t = ggml_type(id);
  if (!t)
    refuse_tensor(path, name, concat("is of type ", id, ", which this program does not know"));
  if (t->use == GgmlType::Use::removed) {
    refuse_tensor(path, name,
                  concat("is of type ", id, " (", t->name, "), which was taken out of the format"));
  }
  if (t->use == GgmlType::Use::activations) {
    refuse_tensor(
        path, name,
        concat("is of type ", id, " (", t->name, "), which is for activations and never stored"));
  }
}

// In the file the size that lies next in memory comes first.
Dims read_dims(Cursor& at, std::string_view name) {
  const std::uint32_t rank = at.number<std::uint32_t>("its list of tensors");
  if (rank < 1 || rank > most_dims)
    refuse_tensor(at.path(), name, concat("has ", rank, " dimensions where 1 to 4 are expected"));
  Dims dims;
  for (std::uint32_t d = 0; d < rank; ++d) {
    const auto n = at.number<std::uint64_t>("its list of tensors");
    if (n == 0 || n > std::uint64_t(INT64_MAX))
      refuse_tensor(at.path(), name, concat("has a dimension of ", n));
    dims.insert(dims.begin(), Index(n));
  }
  return dims;
}

// Without the file's size, which is known behind the last entry.
GgufTensor read_tensor(Cursor& at) {
  GgufTensor t;
  t.name = at.string("its list of tensors");
  t.dims = read_dims(at, t.name);
  const auto id = at.number<std::uint32_t>("its list of tensors");
  check_type(at.path(), t.name, id);
  t.type = ggml_type(id);
  const auto offset = at.number<std::uint64_t>("its list of tensors");
  Index size = 0;
  if (!checked_size(t.dims, size)) {
    refuse_tensor(at.path(), t.name,
                  concat("has the shape ", text_of(t.dims), ", more numbers than can be counted"));
  }
  if (t.dims.back() % t.type->block != 0) {
    refuse_tensor(at.path(), t.name,
                  concat("is ", t.type->name, " with rows of ", t.dims.back(),
                         " numbers, no multiple of the ", t.type->block, " of a block"));
  }
  if (__builtin_mul_overflow(size / t.type->block, t.type->bytes, &t.bytes) ||
      offset > std::uint64_t(INT64_MAX)) {
    refuse_tensor(at.path(), t.name, "lies outside of the file");
  }
  t.offset = Index(offset);
  return t;
}

Index alignment_of(const fs::path& path, const GgufHeader& h) {
  const auto found = h.keys.find("general.alignment");
  if (found == h.keys.end())
    return usual_alignment;
  const GgufValue& v = found->second;
  std::uint32_t n = 0;
  if (v.type == GgufType::u32 && !v.array)
    std::memcpy(&n, v.bytes.data(), sizeof n);
  if (!std::has_single_bit(n))
    refuse(path, "has the key 'general.alignment', which is no power of two as a u32");
  return n;
}

// Offsets from the start of the file, and nothing outside of it or on top of another.
void place(const fs::path& path, Index data_at, Index alignment, Index file_size, GgufHeader& h) {
  for (GgufTensor& t : h.tensors) {
    if (t.offset % alignment != 0) {
      refuse_tensor(
          path, t.name,
          concat("has the offset ", t.offset, ", no multiple of the alignment ", alignment));
    }
    if (data_at > file_size || t.offset > file_size - data_at ||
        t.bytes > file_size - data_at - t.offset) {
      refuse_tensor(path, t.name,
                    concat("has ", t.bytes, " bytes at ", t.offset, " of the data, ",
                           "which ends at ", std::max<Index>(file_size - data_at, 0),
                           ": the file is cut short or its header is wrong"));
    }
    t.offset += data_at;
  }
  std::ranges::sort(h.tensors, {}, &GgufTensor::offset);
  for (std::size_t i = 1; i < h.tensors.size(); ++i) {
    const GgufTensor& before = h.tensors[i - 1];
    if (before.offset + before.bytes > h.tensors[i].offset)
      refuse_tensor(path, h.tensors[i].name, concat("overlaps ", in_quotes(before.name)));
  }
}

void read_tensors(Cursor& at, std::uint64_t count, GgufHeader& h) {
  if (count > at.left().size() / least_tensor) {
    refuse(at.path(), concat("says that it has ", count, " tensors, more than the file can hold"));
  }
  for (std::uint64_t i = 0; i < count; ++i)
    h.tensors.push_back(read_tensor(at));
}

// Magic and version, each refused in words that say what the file is instead.
void read_version(Cursor& at) {
  const auto magic = at.take(4, "its first four bytes");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) {
    refuse_foreign(at.path(), "a GGUF model");
    refuse(at.path(), "does not begin with the magic GGUF", "is it a GGUF file?");
  }
  const auto version = at.number<std::uint32_t>("its version");
  if ((version & 0xffff) == 0)
    refuse(at.path(), "is a big-endian GGUF file, and only little-endian ones are read");
  if (version != 2 && version != 3) {
    refuse(at.path(), concat("is of GGUF version ", version, ", and versions 2 and 3 are read"),
           "convert the model again with a newer llama.cpp");
  }
}

}  // namespace

GgufHeader read_gguf_header(const fs::path& path, std::span<const std::byte> file) {
  if (file.empty())
    refuse(path, "is empty");
  Cursor at(path, file);
  read_version(at);
  const auto tensors = at.number<std::uint64_t>("its counts");
  const auto keys = at.number<std::uint64_t>("its counts");
  GgufHeader h;
  read_keys(at, keys, h);
  read_tensors(at, tensors, h);
  const Index alignment = alignment_of(path, h);
  const Index header = Index(file.size() - at.left().size());
  const Index data_at = (header + alignment - 1) / alignment * alignment;
  place(path, data_at, alignment, Index(file.size()), h);
  std::ranges::sort(h.tensors, {}, &GgufTensor::name);
  const auto twice = std::ranges::adjacent_find(h.tensors, {}, &GgufTensor::name);
  if (twice != h.tensors.end())
    refuse_tensor(path, twice->name, "is listed twice");
  return h;
}

}  // namespace moe
