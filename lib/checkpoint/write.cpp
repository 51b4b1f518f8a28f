// Writing safetensors: the header is known before the first byte, so tensors are asked for one at a
// time and streamed.
#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <numeric>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/files/json.h"

namespace moe {
namespace {

// Tensors::get() folds the first sizes of a shape of more than max_rank into one.
bool same_shape(const Dims& made, const Dims& said) {
  if (made == said || said.size() <= max_rank)
    return made == said;
  Index a = 0;
  Index b = 0;
  return checked_size(made, a) && checked_size(said, b) && a == b;
}

// The published order: wider types first, among equal widths as the reference writer has them.
int order_of(DType t) {
  constexpr std::array last_first = {
      DType::boolean,     DType::f4,      DType::f6_e2m3, DType::f6_e3m2, DType::u8,
      DType::i8,          DType::f8_e5m2, DType::f8_e4m3, DType::f8_e8m0, DType::f8_e4m3fnuz,
      DType::f8_e5m2fnuz, DType::i16,     DType::u16,     DType::f16,     DType::bf16,
      DType::i32,         DType::u32,     DType::f32,     DType::c64,     DType::f64,
      DType::i64,         DType::u64};
  static_assert(last_first.size() == dtype_count);
  return int(last_first.end() - std::ranges::find(last_first, t));
}

std::vector<const NamedTensor*> sorted(std::span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> out;
  for (const NamedTensor& t : tensors)
    out.push_back(&t);
  std::ranges::sort(out, {}, [](const NamedTensor* t) {
    return std::pair(order_of(t->dtype), std::string_view(t->name));
  });
  return out;
}

Index bytes_of(const NamedTensor& t) {
  Index bytes = 0;
  if (!checked_bytes(t.dtype, t.dims, bytes)) {
    throw Error(Exit::bug,
                fmt::format("tensor {} has the impossible shape {} for {}", in_quotes(t.name),
                            text_of(t.dims), safetensors_name(t.dtype)));
  }
  return bytes;
}

std::string header_text(const std::vector<const NamedTensor*>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  const auto text = [](const std::string& s) {
    return Json(s).dump();
  };
  std::map<std::string, std::string> all = metadata;
  all.emplace("format", "pt");
  std::string out = "{\"__metadata__\":{";
  for (bool first = true; const auto& [key, value] : all)
    out += fmt::format("{}{}:{}", std::exchange(first, false) ? "" : ",", text(key), text(value));
  out += "}";
  Index at = 0;
  for (const NamedTensor* t : tensors) {
    const Index end = at + bytes_of(*t);
    out += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                       text(t->name), safetensors_name(t->dtype), fmt::join(t->dims, ","), at, end);
    at = end;
  }
  out += "}";
  return out.append((8 - out.size() % 8) % 8, ' ');
}

void check_names(std::span<const NamedTensor> tensors) {
  std::vector<std::string_view> names;
  for (const NamedTensor& t : tensors)
    names.push_back(t.name);
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end()) {
    throw Error(Exit::bug,
                fmt::format("two tensors to be written are named {}", in_quotes(*twice)));
  }
  if (std::ranges::binary_search(names, "__metadata__"))
    throw Error(Exit::bug, "a tensor cannot be named '__metadata__'");
}

}  // namespace

WrittenFile write_safetensors(const std::filesystem::path& path,
                              std::span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata) {
  check_names(tensors);
  const auto order = sorted(tensors);
  const std::string header = header_text(order, metadata);
  const Index data =
      std::accumulate(order.begin(), order.end(), Index{0},
                      [](Index sum, const NamedTensor* t) { return sum + bytes_of(*t); });
  OutputFile file(path, 8 + Index(header.size()) + data);
  std::array<std::byte, 8> length{};
  for (std::size_t i = 0; i < 8; ++i)
    length[i] = std::byte(std::uint64_t(header.size()) >> (8 * i) & 255);
  file.write(length);
  file.write(header);
  for (const NamedTensor* t : order) {
    const Tensor made = t->make();
    if (made.dtype() != t->dtype || !same_shape(made.dims(), t->dims)) {
      throw Error(Exit::bug, fmt::format("tensor {} was announced as {} {} but is {} {}",
                                         in_quotes(t->name), name_of(t->dtype), text_of(t->dims),
                                         name_of(made.dtype()), text_of(made.dims())));
    }
    file.write(made.bytes());
  }
  file.commit();
  return {path.filename().native(), file.written(), file.hash()};
}

namespace {
struct Shards {
  std::vector<std::size_t> first{0};  // tensor of each shard
  Index bytes = 0, numbers = 0;       // of all
};
Shards shards_of(std::span<const NamedTensor> tensors, Index shard_bytes) {
  Shards s;
  Index in_shard = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Index bytes = bytes_of(tensors[i]);
    if (in_shard > 0 && in_shard + bytes > shard_bytes) {
      s.first.push_back(i);
      in_shard = 0;
    }
    in_shard += bytes;
    s.bytes += bytes;
    Index size = 0;
    checked_size(tensors[i].dims, size);
    s.numbers += size;
  }
  return s;
}
}  // namespace

std::vector<WrittenFile> write_sharded(const std::filesystem::path& folder,
                                       std::span<const NamedTensor> tensors, Index shard_bytes,
                                       std::string_view stem) {
  check_names(tensors);
  const auto [first, total, numbers] = shards_of(tensors, shard_bytes);
  if (first.size() == 1)
    return {write_safetensors(folder / fmt::format("{}.safetensors", stem), tensors)};
  std::vector<WrittenFile> written;
  Json map = Json::object();
  for (std::size_t s = 0; s < first.size(); ++s) {
    const std::size_t end = s + 1 < first.size() ? first[s + 1] : tensors.size();
    const std::string name =
        fmt::format("{}-{:05}-of-{:05}.safetensors", stem, s + 1, first.size());
    written.push_back(write_safetensors(folder / name, tensors.subspan(first[s], end - first[s])));
    for (std::size_t i = first[s]; i < end; ++i)
      map[tensors[i].name] = name;
  }
  const std::string index = fmt::format("{}.safetensors.index.json", stem);
  OutputFile file(folder / index);
  file.write(json_text(
      {{"metadata", {{"total_parameters", numbers}, {"total_size", total}}}, {"weight_map", map}}));
  file.commit();
  written.push_back({index, file.written(), file.hash()});
  return written;
}

}  // namespace moe
