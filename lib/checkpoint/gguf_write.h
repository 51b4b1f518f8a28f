// Writing GGUF version 3: keys, then tensors as they are asked for, so that one at a time needs to
// be in memory. The file is whole or absent.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "lib/checkpoint/safetensors.h"
#include "lib/files/gguf.h"

namespace moe {

class OutputFile;

// Keys in the order in which they are added.
class GgufKeyWriter {
 public:
  void copy(const std::string& key, const GgufValue&);
  void u32(const std::string& key, std::uint32_t);
  void f32(const std::string& key, float);
  void flag(const std::string& key, bool);
  void text(const std::string& key, const std::string&);
  // arrays; of i32 and f32
  void texts(const std::string& key, const std::vector<std::string>&);
  void wholes(const std::string& key, const std::vector<int>&);
  void reals(const std::string& key, const std::vector<float>&);
  void raw_bytes(const std::string& key, const std::string&);  // an array of u8
  // an integer in the type that a key has already
  void whole(const std::string& key, GgufType, std::int64_t);

  Index count() const {
    return count_;
  }
  const std::string& bytes() const {
    return bytes_;
  }

 private:
  void begin(const std::string& key, GgufType);
  void begin_array(const std::string& key, GgufType of, std::size_t count);
  std::string bytes_;
  Index count_ = 0;
};

struct GgufEntry {
  std::string name;
  Dims dims;  // outermost first; the last a multiple of the type's block
  const GgmlType* type = nullptr;
  // writes exactly bytes() of them
  std::function<void(OutputFile&)> write;

  Index bytes() const;  // throws Error(bug) where the shape is none of whole blocks
};

// Throws Error(io) naming the path, the bytes written, needed and free.
WrittenFile write_gguf(const std::filesystem::path&, const GgufKeyWriter&,
                       std::span<const GgufEntry>);

}  // namespace moe
