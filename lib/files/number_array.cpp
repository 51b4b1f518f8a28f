// Arrays of numbers where they lie: see number_array.h.
#include "lib/files/number_array.h"

#include <array>
#include <cstring>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/npy.h"

namespace moe {
namespace {

template <class T>
T load(const std::byte* at) {
  T v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

DType dtype_of_npy(const NpyHeader& h, const std::string& name) {
  static constexpr std::array<std::pair<std::string_view, DType>, 12> types = {
      {{"i1", DType::i8},
       {"u1", DType::u8},
       {"b1", DType::boolean},
       {"i2", DType::i16},
       {"u2", DType::u16},
       {"f2", DType::f16},
       {"i4", DType::i32},
       {"u4", DType::u32},
       {"f4", DType::f32},
       {"i8", DType::i64},
       {"u8", DType::u64},
       {"f8", DType::f64}}};
  for (const auto& [text, type] : types) {
    if (std::string_view(h.type).substr(1) == text)
      return type;
  }
  throw Error(Exit::input, concat(name, " holds numbers of the type '", h.type, "'"))
      .hint("plain whole numbers or floats: a.astype('float32')");
}

void append_utf8(std::string& out, std::uint32_t c) {
  if (c < 0x80) {
    out += char(c);
    return;
  }
  const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  static constexpr int lead[] = {0, 0xc0, 0xe0, 0xf0};
  out += char(lead[more] | int(c >> (6 * more) & 0x3f));
  for (int i = more - 1; i >= 0; --i)
    out += char(0x80 | int(c >> (6 * i) & 0x3f));
}

std::vector<std::string> npy_texts(const NpyHeader& h, std::string_view data) {
  std::vector<std::string> out;
  const auto width = std::size_t(h.width);
  for (std::size_t i = 0; i < std::size_t(h.numbers); ++i) {
    std::string& text = out.emplace_back();
    for (std::size_t c = 0; c < width; ++c) {
      if (h.kind == 'S') {
        text += data[i * width + c];
        continue;
      }
      std::uint32_t code = 0;
      std::memcpy(&code, data.data() + (i * width + c) * 4, 4);
      if (code != 0 && code < 0x110000)
        append_utf8(text, code);
    }
    while (text.ends_with('\0'))
      text.pop_back();
  }
  return out;
}

}  // namespace

Dims strides_of(const Dims& shape) {
  Dims out(shape.size(), 1);
  for (std::size_t a = shape.size(); a-- > 1;)
    out[a - 1] = out[a] * std::max<Index>(shape[a], 1);
  return out;
}

Index NumberArray::size() const {
  Index n = 1;
  return checked_size(shape, n) ? n : 0;
}

bool NumberArray::is_whole() const {
  switch (dtype) {
    case DType::i64:
    case DType::i32:
    case DType::i16:
    case DType::i8:
    case DType::u64:
    case DType::u32:
    case DType::u16:
    case DType::u8:
      return !is_text();
    default:
      return false;
  }
}

std::int64_t NumberArray::whole(Index place) const {
  const std::byte* at = bytes.span.data() + place * bytes_of(dtype);
  switch (dtype) {
    case DType::i64:
    case DType::u64:
      return load<std::int64_t>(at);
    case DType::i32:
      return load<std::int32_t>(at);
    case DType::u32:
      return load<std::uint32_t>(at);
    case DType::i16:
      return load<std::int16_t>(at);
    case DType::u16:
      return load<std::uint16_t>(at);
    case DType::i8:
      return load<std::int8_t>(at);
    case DType::u8:
    case DType::boolean:
      return load<std::uint8_t>(at);
    default:
      throw Error(Exit::bug, concat(name, " was read as whole numbers"));
  }
}

double NumberArray::real(Index place) const {
  const std::byte* at = bytes.span.data() + place * bytes_of(dtype);
  switch (dtype) {
    case DType::f64:
      return load<double>(at);
    case DType::f32:
      return double(load<float>(at));
    case DType::f16:
      return double(f16_to_float(load<std::uint16_t>(at)));
    case DType::bf16:
      return double(bf16_to_float(load<std::uint16_t>(at)));
    default:
      return double(whole(place));
  }
}

NumberArray NumberArray::at(Index index) const {
  NumberArray out = *this;
  out.name = concat(name, "[", index, "]");
  const auto skipped = std::size_t(place(index) * bytes_of(dtype));
  out.bytes.span = bytes.span.subspan(std::min(skipped, bytes.span.size()));
  out.shape.erase(out.shape.begin());
  out.stride.erase(out.stride.begin());
  return out;
}

void NumberArray::refuse(const std::string& why, const std::string& hint) const {
  throw Error(Exit::input, concat(name, " ", why)).hint(hint);
}

void NumberArray::must_be_whole() const {
  if (!is_whole()) {
    refuse(concat("holds ", is_text() ? "text" : name_of(dtype), ", not whole numbers"),
           "a.astype('int32') before it is saved");
  }
}

void NumberArray::must_have(int wanted, const char* meaning) const {
  if (axes() != wanted) {
    refuse(concat("has ", axes(), axes() == 1 ? " axis, " : " axes, ", text_of(shape), ", not ",
                  wanted, ": ", meaning),
           concat("an array of the shape ", meaning));
  }
  // any number of empty rows costs a file nothing
  if (wanted > 1 && shape[0] > 0 && size() == 0)
    refuse(concat("has the shape ", text_of(shape), ", in which nothing lies"), meaning);
}

NumberArray checked_array(const std::string& name, DType type, const Dims& shape,
                          const Bytes& bytes) {
  Index need = 0;
  NumberArray out{name, type, shape, strides_of(shape), bytes, {}};
  if (!checked_bytes(type, shape, need) || need > Index(bytes.span.size())) {
    out.refuse(concat("has the shape ", text_of(shape), " of ", name_of(type), ", but only ",
                      bytes.span.size(), " bytes"),
               "the file is cut short");
  }
  return out;
}

NumberArray npy_array(const Bytes& file, const std::string& name) {
  const NpyHeader h = npy_header(file.text(), name);
  NumberArray out;
  out.name = name;
  out.shape = h.shape;
  out.stride = strides_of(h.shape);
  out.bytes = {file.owner, file.span.subspan(std::size_t(h.data_at))};
  if (h.kind == 'U' || h.kind == 'S') {
    out.texts = npy_texts(h, out.bytes.text());
    return out;
  }
  out.dtype = dtype_of_npy(h, name);
  if (h.by_column) {
    Index step = 1;
    for (std::size_t a = 0; a < h.shape.size(); ++a) {
      out.stride[a] = step;
      step *= h.shape[a];
    }
  }
  return out;
}

}  // namespace moe
