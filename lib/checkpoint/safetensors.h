// Named tensors in safetensors files: one file, or shards with an index. The header is checked
// against every rule of the format and against the size of the file before anything is believed;
// the numbers are mapped, so a model larger than memory can be opened.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/tensor.h"

namespace moe {

struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  Dims dims;
  Index offset = 0, bytes = 0;  // from the start of its file
  int file = 0;                 // Tensors::file(info)
};

inline constexpr Index max_header_bytes = 100'000'000;
// of a tensor that may be listed; Tensor holds max_rank
inline constexpr std::size_t max_file_rank = 8;

// What a header says, checked: names unique, tensors contiguous and exactly as long as the file.
// Sorted by name.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};
// throws Error(input), one sentence with file, tensor and numbers
SafetensorsHeader read_safetensors_header(class InputFile&);

class Tensors {
 public:
  // A .safetensors file, an .index.json, or a folder with model.safetensors,
  // model.safetensors.index.json or all of its shards. What an index says wrongly is an error where
  // somebody needs it, and a note else.
  explicit Tensors(std::filesystem::path);

  const std::filesystem::path& path() const {
    return path_;
  }
  std::span<const TensorInfo> list() const& {
    return tensors_;
  }  // sorted by name
  std::span<const TensorInfo> list() const&& = delete;
  std::vector<std::string> names() const;
  const TensorInfo* find(std::string_view name) const;
  // throws Error(input) with the nearest name
  const TensorInfo& at(std::string_view name) const;
  // mapped, or a copy where the file does not align it
  Tensor get(std::string_view name) const;
  // throws Error(input) with both shapes
  Tensor get(std::string_view name, const Dims& expected) const;
  const std::filesystem::path& file(const TensorInfo& t) const {
    return files_[std::size_t(t.file)].path;
  }
  const std::map<std::string, std::string>& metadata() const {
    return metadata_;
  }
  // sentences on tensors in shards that the index does not name, and the other way round
  const std::vector<std::string>& notes() const {
    return notes_;
  }
  // names that the index has and no shard holds; at() says of each where it should be
  std::vector<std::string> absent() const;

 private:
  struct File {
    std::filesystem::path path;
    std::shared_ptr<const std::byte> bytes;
  };
  std::vector<TensorInfo> add(const std::filesystem::path& file);
  void open_folder();
  void read_index(const std::filesystem::path& index);
  void read_shard(const std::filesystem::path& index, const std::filesystem::path& path,
                  const std::vector<std::string>& wanted);
  void take_unlisted(const std::filesystem::path& index);
  void miss(const std::filesystem::path& index, const std::filesystem::path& path,
            const std::set<std::string>& missing, const char* why);

  std::filesystem::path path_;
  std::vector<File> files_;
  std::vector<TensorInfo> tensors_;
  std::vector<TensorInfo> unlisted_;  // while an index is read: in a shard, and not said to be
  std::map<std::string, std::string> metadata_;
  // tensors that the index names and no shard holds: a sentence about each
  std::map<std::string, std::string, std::less<>> absent_;
  std::vector<std::string> notes_;
};

// A tensor to be written. `make` is called once, when its turn comes, so that one tensor at a time
// needs to be in memory.
struct NamedTensor {
  NamedTensor(std::string n, Tensor t)
      : name(std::move(n)),
        dtype(t.dtype()),
        dims(t.dims()),
        make([t = std::move(t)] { return t; }) {}
  NamedTensor(std::string n, DType d, Dims s, std::function<Tensor()> m)
      : name(std::move(n)), dtype(d), dims(std::move(s)), make(std::move(m)) {}
  std::string name;
  DType dtype;
  Dims dims;
  std::function<Tensor()> make;
};

struct WrittenFile {
  std::string name;  // without the folder
  Index bytes = 0;
  std::uint64_t hash = 0;  // XXH3-64
};

// One file, whole or absent, in the published order (wider types first, then by name). `metadata`
// is added to {"format":"pt"}. Throws Error(io) naming the path, the bytes written, needed and
// free.
WrittenFile write_safetensors(const std::filesystem::path&, std::span<const NamedTensor>,
                              const std::map<std::string, std::string>& metadata = {});

// STEM.safetensors, or where the tensors take more than `shard_bytes`:
// STEM-00001-of-000NN.safetensors and STEM.safetensors.index.json.
std::vector<WrittenFile> write_sharded(const std::filesystem::path& folder,
                                       std::span<const NamedTensor>,
                                       Index shard_bytes = 50'000'000'000,
                                       std::string_view stem = "model");

DType dtype_of_name(std::string_view safetensors_name, bool& known);  // "BF16" -> bf16
std::string safetensors_name(DType);

}  // namespace moe
