// GGUF, the file format of llama.cpp (versions 2 and 3, little-endian): typed keys, and named
// tensors in block formats, in one file or split over several. The files are mapped; every count,
// length and offset is held against the size of its file before anything is allocated or read.
// What the bytes of a tensor mean as numbers is said in lib/checkpoint/quant.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/tensor.h"

namespace moe {

// Types of keys, numbered as in the file.
enum class GgufType : std::uint8_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};
std::string_view name_of(GgufType);

// A value where it lies in the mapped file, checked to its last byte.
struct GgufValue {
  GgufType type = GgufType::u8;  // of the elements where it is an array
  bool array = false;
  Index count = 1;                   // elements
  std::span<const std::byte> bytes;  // of the elements, without the array's type and count
};

// A format of tensors: `block` numbers take `bytes` bytes.
struct GgmlType {
  std::uint32_t id = 0;
  std::string_view name;  // "Q4_K"; empty: there is no such id
  Index block = 1, bytes = 0;
  // how it stands to models: weights, or of integers, of activations, taken out of the format
  enum class Use { weights, integers, activations, removed } use = Use::weights;
};
// nullptr where no id is known
const GgmlType* ggml_type(std::uint32_t id);
std::span<const GgmlType> ggml_types();

struct GgufTensor {
  std::string name;
  Dims dims;  // outermost first, as in PyTorch: the reverse of the order in the file
  const GgmlType* type = nullptr;
  Index offset = 0, bytes = 0;  // from the start of its file
  int file = 0;                 // GgufFile::file(tensor)

  Index size() const {
    return bytes / type->bytes * type->block;
  }  // numbers
};

class GgufFile {
 public:
  // A .gguf file, or the first of NAME-00001-of-0000N.gguf; the others must stand beside it. Throws
  // Error(input), one sentence with file and key or tensor.
  explicit GgufFile(std::filesystem::path);

  const std::filesystem::path& path() const {
    return path_;
  }
  std::span<const GgufTensor> tensors() const& {
    return tensors_;
  }  // sorted by name
  std::span<const GgufTensor> tensors() const&& = delete;
  const GgufTensor* find(std::string_view name) const;
  // throws Error(input) with the nearest name
  const GgufTensor& at(std::string_view name) const;
  std::span<const std::byte> bytes(const GgufTensor&) const;  // mapped as long as this lives
  Index size() const;                                         // bytes of all parts
  const std::filesystem::path& file(const GgufTensor& t) const {
    return parts_[std::size_t(t.file)].path;
  }

  // Keys of the first file. All but has() throw Error(input) naming file and key where it is of
  // another type, and without a fallback where it is missing.
  const std::map<std::string, GgufValue, std::less<>>& keys() const {
    return keys_;
  }
  bool has(std::string_view key) const;
  bool is_array(std::string_view key) const;
  std::string text(std::string_view key) const;
  std::string text(std::string_view key, const std::string& fallback) const;
  std::int64_t whole(std::string_view key) const;  // of any type of integers
  std::int64_t whole(std::string_view key, std::int64_t fallback) const;
  double real(std::string_view key) const;  // a float, or an integer
  double real(std::string_view key, double fallback) const;
  bool flag(std::string_view key, bool fallback) const;
  std::vector<std::string_view> texts(std::string_view key) const;  // an array; into the file
  // an array, or one number; true is 1
  std::vector<std::int64_t> wholes(std::string_view key) const;
  std::vector<double> reals(std::string_view key) const;  // an array, or one number

  // one sentence: file and `why`
  [[noreturn]] void refuse(const std::string& why, const std::string& hint = "") const;

 private:
  struct Part {
    std::filesystem::path path;
    std::shared_ptr<const std::byte> bytes;
    Index size = 0;
  };
  // part `number` (from 0) of `count`, which must say so
  GgufFile(std::filesystem::path, int number, int count);
  void open_others();
  void check_whole();  // of all parts together; sorts the tensors
  const GgufValue& value(std::string_view key) const;
  const GgufValue& one(std::string_view key, const char* wanted) const;

  std::filesystem::path path_;
  std::vector<Part> parts_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, GgufValue, std::less<>> keys_;
};

// The file that a path means where it is a GGUF model: a file that ends in .gguf or begins with its
// magic, or the only one (or first of a split one) in a folder without config.json; else nothing.
std::optional<std::filesystem::path> gguf_file_of(const std::filesystem::path&);

}  // namespace moe
