#include "lib/checkpoint/gguf_write.h"

#include <cstring>
#include <limits>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {
namespace {

constexpr Index alignment = 32;  // which files have that do not say another
constexpr std::uint32_t version = 3;

template <class T>
void append(std::string& out, T v) {
  const std::size_t at = out.size();
  out.resize(at + sizeof v);
  std::memcpy(out.data() + at, &v, sizeof v);
}
void append_string(std::string& out, const std::string& s) {
  append(out, std::uint64_t(s.size()));
  out += s;
}

Index aligned(Index n) {
  return (n + alignment - 1) / alignment * alignment;
}

// Zeros up to the next multiple of the alignment.
void pad(OutputFile& file) {
  const std::string zeros(std::size_t(aligned(file.written()) - file.written()), '\0');
  file.write(zeros);
}

std::string header_of(const GgufKeyWriter& keys, std::span<const GgufEntry> entries) {
  std::string out = "GGUF";
  append(out, version);
  append(out, std::uint64_t(entries.size()));
  append(out, std::uint64_t(keys.count()));
  out += keys.bytes();
  Index at = 0;
  for (const GgufEntry& e : entries) {
    append_string(out, e.name);
    append(out, std::uint32_t(e.dims.size()));
    for (auto d = e.dims.rbegin(); d != e.dims.rend(); ++d)
      append(out, std::uint64_t(*d));
    append(out, e.type->id);
    append(out, std::uint64_t(at));
    at = aligned(at + e.bytes());
  }
  return out;
}

template <class T>
void append_whole(std::string& out, std::int64_t v) {
  if (v < 0 || std::uint64_t(v) > std::uint64_t(std::numeric_limits<T>::max()))
    throw Error(Exit::bug, concat("the key cannot hold ", v));
  append(out, T(v));
}

}  // namespace

void GgufKeyWriter::begin(const std::string& key, GgufType type) {
  append_string(bytes_, key);
  append(bytes_, std::uint32_t(type));
  ++count_;
}

void GgufKeyWriter::copy(const std::string& key, const GgufValue& v) {
  begin(key, v.array ? GgufType::array : v.type);
  if (v.array) {
    append(bytes_, std::uint32_t(v.type));
    append(bytes_, std::uint64_t(v.count));
  }
  bytes_.append(reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size());
}

void GgufKeyWriter::u32(const std::string& key, std::uint32_t v) {
  begin(key, GgufType::u32);
  append(bytes_, v);
}

void GgufKeyWriter::f32(const std::string& key, float v) {
  begin(key, GgufType::f32);
  append(bytes_, v);
}

void GgufKeyWriter::flag(const std::string& key, bool v) {
  begin(key, GgufType::boolean);
  append(bytes_, std::uint8_t(v));
}

void GgufKeyWriter::text(const std::string& key, const std::string& v) {
  begin(key, GgufType::string);
  append_string(bytes_, v);
}

void GgufKeyWriter::begin_array(const std::string& key, GgufType of, std::size_t count) {
  begin(key, GgufType::array);
  append(bytes_, std::uint32_t(of));
  append(bytes_, std::uint64_t(count));
}

void GgufKeyWriter::texts(const std::string& key, const std::vector<std::string>& all) {
  begin_array(key, GgufType::string, all.size());
  for (const std::string& v : all)
    append_string(bytes_, v);
}

void GgufKeyWriter::wholes(const std::string& key, const std::vector<int>& all) {
  begin_array(key, GgufType::i32, all.size());
  for (const int v : all)
    append(bytes_, std::int32_t(v));
}

void GgufKeyWriter::reals(const std::string& key, const std::vector<float>& all) {
  begin_array(key, GgufType::f32, all.size());
  for (const float v : all)
    append(bytes_, v);
}

void GgufKeyWriter::raw_bytes(const std::string& key, const std::string& all) {
  begin_array(key, GgufType::u8, all.size());
  bytes_ += all;
}

void GgufKeyWriter::whole(const std::string& key, GgufType type, std::int64_t v) {
  begin(key, type);
  switch (type) {
    case GgufType::u8:
      return append_whole<std::uint8_t>(bytes_, v);
    case GgufType::i8:
      return append_whole<std::int8_t>(bytes_, v);
    case GgufType::u16:
      return append_whole<std::uint16_t>(bytes_, v);
    case GgufType::i16:
      return append_whole<std::int16_t>(bytes_, v);
    case GgufType::u32:
      return append_whole<std::uint32_t>(bytes_, v);
    case GgufType::i32:
      return append_whole<std::int32_t>(bytes_, v);
    case GgufType::u64:
      return append_whole<std::uint64_t>(bytes_, v);
    case GgufType::i64:
      return append_whole<std::int64_t>(bytes_, v);
    default:
      throw Error(Exit::bug, concat("the key '", key, "' is no integer"));
  }
}

Index GgufEntry::bytes() const {
  Index size = 0;
  if (dims.empty() || !checked_size(dims, size) || dims.back() % type->block != 0)
    throw Error(Exit::bug, concat("tensor '", name, "' cannot be ", type->name));
  return size / type->block * type->bytes;
}

WrittenFile write_gguf(const std::filesystem::path& path, const GgufKeyWriter& keys,
                       std::span<const GgufEntry> entries) {
  const std::string header = header_of(keys, entries);
  Index need = aligned(Index(header.size()));
  for (const GgufEntry& e : entries)
    need += aligned(e.bytes());
  OutputFile file(path, need);
  file.write(header);
  pad(file);
  for (const GgufEntry& e : entries) {
    const Index before = file.written();
    e.write(file);
    if (file.written() - before != e.bytes()) {
      throw Error(Exit::bug, concat("tensor '", e.name, "' was announced with ", e.bytes(),
                                    " bytes and wrote ", file.written() - before));
    }
    pad(file);
  }
  file.commit();
  return {path.filename().native(), file.written(), file.hash()};
}

}  // namespace moe
