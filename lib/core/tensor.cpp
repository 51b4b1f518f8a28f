#include "lib/core/tensor.h"

#include <cstring>
#include <new>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::align_val_t alignment{64};

template <class T>
T load(const std::byte* at) {  // files do not promise alignment
  T v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

template <class Stored, class Convert>
void convert(const std::byte* from, std::span<float> out, Convert&& value) {
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = value(load<Stored>(from + i * sizeof(Stored)));
}

template <class Stored>
void cast(const std::byte* from, std::span<float> out) {
  convert<Stored>(from, out, [](Stored v) { return float(v); });
}

}  // namespace

std::string text_of(const Dims& dims) {
  std::string out = "[";
  for (std::size_t i = 0; i < dims.size(); ++i)
    out += concat(i ? ", " : "", dims[i]);
  return out + "]";
}

bool checked_size(const Dims& dims, Index& size) {
  size = 1;
  for (const Index d : dims) {
    if (d < 0 || __builtin_mul_overflow(size, d, &size))
      return false;
  }
  return true;
}

bool checked_bytes(DType t, const Dims& dims, Index& bytes) {
  Index size = 0;
  if (!checked_size(dims, size))
    return false;
  const Index rest = size % 8 * bits_of(t);  // eight elements of any type end on a byte
  return rest % 8 == 0 && !__builtin_mul_overflow(size / 8, bits_of(t), &bytes) &&
         !__builtin_add_overflow(bytes, rest / 8, &bytes);
}

Tensor::Tensor(DType t, Dims dims, std::shared_ptr<const std::byte> bytes)
    : dtype_(t), dims_(std::move(dims)), bytes_(std::move(bytes)) {
  if (dims_.size() > max_rank) {
    throw Error(Exit::input, concat("a tensor of shape ", text_of(dims_), " has more than ",
                                    max_rank, " dimensions"));
  }
  if (!checked_size(dims_, size_) || !checked_bytes(t, dims_, byte_count_)) {
    throw Error(Exit::input, concat("a tensor of type ", name_of(t), " and shape ", text_of(dims_),
                                    " has no possible size"));
  }
}

Tensor::Tensor(DType t, Dims dims) : Tensor(t, std::move(dims), nullptr) {
  try {
    writable_ = static_cast<std::byte*>(::operator new(std::size_t(byte_count_), alignment));
  } catch (const std::bad_alloc&) {
    throw Error(Exit::memory,
                concat("cannot allocate ", byte_count_, " bytes for a tensor of type ", name_of(t),
                       " and shape ", text_of(dims_)));
  }
  bytes_ = std::shared_ptr<const std::byte>(writable_, [](const std::byte* p) {
    ::operator delete(const_cast<std::byte*>(p), alignment);
  });
  if (byte_count_)
    std::memset(writable_, 0, std::size_t(byte_count_));
}

Tensor Tensor::from_float(DType t, Dims dims, std::span<const float> values) {
  Tensor out(t, std::move(dims));
  if (out.size() != Index(values.size())) {
    throw Error(Exit::bug, concat(values.size(), " values do not fill a tensor of shape ",
                                  text_of(out.dims())));
  }
  std::byte* to = out.writable_;
  const auto store = [&](auto v) {
    std::memcpy(to, &v, sizeof v);
    to += sizeof v;
  };
  switch (t) {
    case DType::f64:
      for (const float v : values)
        store(double(v));
      break;
    case DType::f32:
      out.fill_bytes(std::as_bytes(values));
      break;
    case DType::bf16:
      for (const float v : values)
        store(float_to_bf16(v));
      break;
    case DType::f16:
      for (const float v : values)
        store(float_to_f16(v));
      break;
    default:
      throw Error(Exit::bug, concat("rounding f32 to ", name_of(t), " is not defined"));
  }
  return out;
}

std::span<std::byte> Tensor::mutable_bytes() {
  if (!writable_ && byte_count_) {
    throw Error(Exit::bug,
                concat("a mapped tensor of shape ", text_of(dims_), " cannot be written"));
  }
  return {writable_, std::size_t(byte_count_)};
}

void Tensor::fill_bytes(std::span<const std::byte> from) {
  if (!from.empty())
    std::memcpy(mutable_bytes().data(), from.data(), from.size());
}

void Tensor::check_type(DType wanted, std::size_t alignment_wanted) const {
  const bool raw = wanted == DType::u16 || wanted == DType::u8 || wanted == DType::u32;
  if (wanted != dtype_ && !(raw && bits_of(wanted) == bits_of(dtype_))) {
    throw Error(Exit::bug,
                concat("a tensor of type ", name_of(dtype_), " was viewed as ", name_of(wanted)));
  }
  if (reinterpret_cast<std::uintptr_t>(bytes_.get()) % alignment_wanted != 0)
    throw Error(Exit::bug, concat("a mapped tensor of type ", name_of(dtype_), " is not aligned"));
}

bool Tensor::aligned() const {
  const Index width = bytes_of(dtype_);
  return width == 0 || reinterpret_cast<std::uintptr_t>(bytes_.get()) % std::size_t(width) == 0;
}

Tensor Tensor::copy() const {
  Tensor out(dtype_, dims_);
  out.fill_bytes(bytes());
  return out;
}

namespace {
// Each returns false where the numbers are of another kind.
bool from_floats(DType type, const std::byte* from, std::span<float> to) {
  switch (type) {
    case DType::f64:
      cast<double>(from, to);
      return true;
    case DType::f32:
      cast<float>(from, to);
      return true;
    case DType::bf16:
      convert<std::uint16_t>(from, to, bf16_to_float);
      return true;
    case DType::f16:
      convert<std::uint16_t>(from, to, f16_to_float);
      return true;
    case DType::f8_e4m3:
    case DType::f8_e5m2:
    case DType::f8_e8m0:
    case DType::f8_e4m3fnuz:
    case DType::f8_e5m2fnuz:
      convert<std::uint8_t>(from, to, [type](std::uint8_t v) { return f8_to_float(type, v); });
      return true;
    default:
      return false;
  }
}
bool from_integers(DType type, const std::byte* from, std::span<float> to) {
  switch (type) {
    case DType::i64:
      cast<std::int64_t>(from, to);
      return true;
    case DType::u64:
      cast<std::uint64_t>(from, to);
      return true;
    case DType::i32:
      cast<std::int32_t>(from, to);
      return true;
    case DType::u32:
      cast<std::uint32_t>(from, to);
      return true;
    case DType::i16:
      cast<std::int16_t>(from, to);
      return true;
    case DType::u16:
      cast<std::uint16_t>(from, to);
      return true;
    case DType::i8:
      cast<std::int8_t>(from, to);
      return true;
    case DType::u8:
      cast<std::uint8_t>(from, to);
      return true;
    case DType::boolean:
      convert<std::uint8_t>(from, to, [](std::uint8_t v) { return v ? 1.0f : 0.0f; });
      return true;
    default:
      return false;
  }
}
}  // namespace

void Tensor::to_float(Index first, View<float> out) const {
  if (first < 0 || out.rows < 0 || first > rows() - out.rows || out.cols != cols()) {
    throw Error(Exit::bug, concat("rows ", first, " to ", first + out.rows, " of ", out.cols,
                                  " numbers requested from a tensor of shape ", text_of(dims_)));
  }
  const std::byte* from = bytes_.get() + first * cols() * bytes_of(dtype_);
  if (!from_floats(dtype_, from, out.flat()) && !from_integers(dtype_, from, out.flat())) {
    throw Error(Exit::input,
                concat("a tensor of type ", name_of(dtype_), " cannot be read as numbers"));
  }
}

Matrix<float> Tensor::to_float() const {
  Matrix<float> out(rows(), cols());
  to_float(0, out.view());
  return out;
}

}  // namespace moe
