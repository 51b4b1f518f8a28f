// GGUF files made by hand: keys and tensors in, bytes out, each piece to be damaged at will.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace moe::test {

template <class T>
std::string raw(T v) {
  std::string out(sizeof v, '\0');
  std::memcpy(out.data(), &v, sizeof v);
  return out;
}
inline std::string gguf_string(const std::string& s) {
  return raw(std::uint64_t(s.size())) + s;
}

struct GgufBytes {
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dims;  // as in the file, innermost first
    std::uint32_t type;
    std::string data;
    std::uint64_t offset;
  };
  std::uint32_t version = 3;
  std::string keys;
  std::uint64_t key_count = 0;
  std::vector<Tensor> tensors;
  std::uint64_t alignment = 32;

  void key(const std::string& name, std::uint32_t type, const std::string& value) {
    keys += gguf_string(name) + raw(type) + value;
    ++key_count;
  }
  void u32(const std::string& name, std::uint32_t v) {
    key(name, 4, raw(v));
  }
  void f32(const std::string& name, float v) {
    key(name, 6, raw(v));
  }
  void text(const std::string& name, const std::string& v) {
    key(name, 8, gguf_string(v));
  }
  void texts(const std::string& name, const std::vector<std::string>& all) {
    std::string v = raw(std::uint32_t(8)) + raw(std::uint64_t(all.size()));
    for (const std::string& s : all)
      v += gguf_string(s);
    key(name, 9, v);
  }
  // behind those that are there
  void tensor(const std::string& name, const std::vector<std::uint64_t>& dims, std::uint32_t type,
              const std::string& data) {
    std::uint64_t at = 0;
    for (const Tensor& t : tensors)
      at = up(t.offset + t.data.size());
    tensors.push_back({name, dims, type, data, at});
  }
  void floats(const std::string& name, const std::vector<std::uint64_t>& dims,
              const std::vector<float>& v) {
    std::string data(v.size() * sizeof(float), '\0');
    std::memcpy(data.data(), v.data(), data.size());
    tensor(name, dims, 0, data);
  }
  std::uint64_t up(std::uint64_t n) const {
    return (n + alignment - 1) / alignment * alignment;
  }
  std::string bytes() const {
    std::string out = "GGUF" + raw(version) + raw(std::uint64_t(tensors.size())) + raw(key_count);
    out += keys;
    for (const Tensor& t : tensors) {
      out += gguf_string(t.name) + raw(std::uint32_t(t.dims.size()));
      for (const std::uint64_t d : t.dims)
        out += raw(d);
      out += raw(t.type) + raw(t.offset);
    }
    out.resize(up(out.size()));
    const std::size_t data_at = out.size();
    for (const Tensor& t : tensors) {
      if (data_at + t.offset > out.size())
        out.resize(data_at + t.offset);
      out.replace(data_at + t.offset, t.data.size(), t.data);
    }
    return out;
  }
};

}  // namespace moe::test
