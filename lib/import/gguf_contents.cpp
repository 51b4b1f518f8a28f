// Keys, tensor list, aligned data: see imatrix.h.
#include <cstring>

#include "lib/core/text.h"
#include "lib/import/imatrix.h"

namespace moe {
namespace {

constexpr std::uint64_t most_entries = 1 << 20, longest_text = 1 << 20;
constexpr std::uint32_t type_text = 8, type_array = 9, f32 = 0;

class Reader {
 public:
  explicit Reader(const ImportFile& f) : name_(f.quoted()) {
    const InputFile file(f.path);
    bytes_.owner = file.map();
    bytes_.span = {bytes_.owner.get(), std::size_t(file.size())};
  }
  [[noreturn]] void refuse(const std::string& why) const {
    refuse_import(name_, why, "the gguf file as llama-imatrix wrote it");
  }
  template <class T>
  T number() {
    T v{};
    std::memcpy(&v, take(sizeof v), sizeof v);
    return v;
  }
  std::string text() {
    const auto n = number<std::uint64_t>();
    if (n > longest_text)
      refuse("is a gguf file with a text of more than 1 MiB");
    const auto* at = reinterpret_cast<const char*>(take(n));
    return {at, std::size_t(n)};
  }
  const std::byte* take(std::uint64_t n) {
    if (n > bytes_.span.size() - at_)
      refuse("is a gguf file that is cut short");
    const std::byte* out = bytes_.span.data() + at_;
    at_ += std::size_t(n);
    return out;
  }
  std::uint64_t count(const char* what) {
    const auto n = number<std::uint64_t>();
    if (n > most_entries)
      refuse(concat("is a gguf file of ", n, " ", what));
    return n;
  }
  Bytes from(std::uint64_t at, std::uint64_t bytes, const std::string& tensor) const {
    if (at > bytes_.span.size() || bytes > bytes_.span.size() - at)
      refuse(concat("is a gguf file that is cut short in ", in_quotes(tensor)));
    return {bytes_.owner, bytes_.span.subspan(std::size_t(at), std::size_t(bytes))};
  }
  std::size_t at() const {
    return at_;
  }
  const std::string& name() const {
    return name_;
  }

 private:
  std::string name_;
  Bytes bytes_;
  std::size_t at_ = 0;
};

int width_of(std::uint32_t type) {
  static constexpr int widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < 13 ? widths[type] : 0;
}

void read_value(Reader& in, const std::string& key, GgufContents& out) {
  const auto type = in.number<std::uint32_t>();
  if (type == type_text) {
    out.texts[key] = in.text();
    return;
  }
  if (type == type_array) {
    const auto inner = in.number<std::uint32_t>();
    const auto n = in.number<std::uint64_t>();
    if (n > most_entries || (inner != type_text && width_of(inner) == 0))
      in.refuse(concat("is a gguf file with an impossible list ", in_quotes(key)));
    for (std::uint64_t i = 0; inner == type_text && i < n; ++i)
      in.text();
    if (inner != type_text)
      in.take(n * std::uint64_t(width_of(inner)));
    return;
  }
  const int width = width_of(type);
  if (width == 0)
    in.refuse(concat("is a gguf file with a value of the unknown type ", type));
  std::uint64_t v = 0;
  std::memcpy(&v, in.take(std::uint64_t(width)), std::size_t(width));
  out.numbers[key] = v;
}

struct Listed {
  std::string name;
  Dims shape;  // outermost first
  std::uint32_t type = 0;
  std::uint64_t offset = 0;
};

Listed read_listed(Reader& in) {
  Listed t;
  t.name = in.text();
  const auto axes = in.number<std::uint32_t>();
  if (axes > 4)
    in.refuse(concat("is a gguf file with a tensor of ", axes, " axes"));
  for (std::uint32_t a = 0; a < axes; ++a) {
    const auto n = in.number<std::uint64_t>();
    if (n > std::uint64_t(1) << 40)
      in.refuse(concat("is a gguf file in which ", in_quotes(t.name), " has an axis of ", n));
    t.shape.insert(t.shape.begin(), Index(n));
  }
  t.type = in.number<std::uint32_t>();
  t.offset = in.number<std::uint64_t>();
  return t;
}

}  // namespace

GgufContents read_gguf(const ImportFile& f) {
  Reader in(f);
  GgufContents out;
  in.take(4);
  if (const auto version = in.number<std::uint32_t>(); version != 3 && version != 2)
    in.refuse(concat("is a gguf file of version ", version, ", not 3"));
  const std::uint64_t tensors = in.count("tensors");
  const std::uint64_t values = in.count("values");
  for (std::uint64_t i = 0; i < values; ++i) {
    const std::string key = in.text();
    read_value(in, key, out);
  }
  std::vector<Listed> list;
  for (std::uint64_t i = 0; i < tensors; ++i)
    list.push_back(read_listed(in));
  const auto told = out.numbers.find("general.alignment");
  const std::uint64_t unit = told == out.numbers.end() ? 32 : told->second;
  if (unit == 0 || unit > 1 << 16)
    in.refuse(concat("is a gguf file with the alignment ", unit));
  const std::uint64_t data = (in.at() + unit - 1) / unit * unit;
  for (const Listed& t : list) {
    Index bytes = 0;
    if (t.type != f32 || !checked_bytes(DType::f32, t.shape, bytes))
      continue;
    if (t.offset > std::uint64_t(1) << 48)
      in.refuse(concat("is a gguf file in which ", in_quotes(t.name), " lies outside the file"));
    const Bytes at = in.from(data + t.offset, std::uint64_t(bytes), t.name);
    out.tensors.emplace(t.name,
                        checked_array(concat(in.name(), " ", t.name), DType::f32, t.shape, at));
  }
  return out;
}

}  // namespace moe
