// FP8: w = e4m3 * scale[r/128][c/128]. MXFP4: a byte holds two numbers of a table, the low half
// first, times 2^(scale-127).
#include "lib/checkpoint/stored.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/checkpoint/quant/dots.h"
#include "lib/core/error.h"
#include "lib/files/file.h"

namespace moe {
namespace {

const std::array<float, 256>& e4m3() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> t{};
    for (int i = 0; i < 256; ++i)
      t[std::size_t(i)] = f8_to_float(DType::f8_e4m3, std::uint8_t(i));
    return t;
  }();
  return table;
}

bool is_fp8(DType t) {
  return t == DType::f8_e4m3 || t == DType::f8_e5m2;
}

[[noreturn]] void refuse(const Tensors& tensors, const std::string& name, const std::string& why) {
  const TensorInfo* t = tensors.find(name);
  throw Error(Exit::input, fmt::format("tensor {} in {} {}", in_quotes(name),
                                       in_quotes(t ? tensors.file(*t) : tensors.path()), why));
}

Index up(Index n, Index by) {
  return (n + by - 1) / by;
}

// Packed numbers of four bits in an element; 1 = none are packed.
int packed_numbers(const TensorInfo& t) {
  const bool packed = t.name.ends_with("_packed") || t.name.ends_with("_blocks");
  return !packed ? 1 : t.dtype == DType::i32 ? 8 : 2;
}

}  // namespace

std::string format_in_file(const TensorInfo& t) {
  if (packed_numbers(t) > 1)
    return t.dtype == DType::i32 ? "int4" : "mxfp4";
  if (t.dtype == DType::i8)
    return "int8";
  return is_fp8(t.dtype) ? "fp8" : std::string(name_of(t.dtype));
}

double numbers_in_file(const TensorInfo& t) {
  Index size = 0;
  for (const char* beside : {"_scale", "_scales", "_scale_inv", "_shape"}) {
    if (t.name.ends_with(beside))
      return 0;
  }
  return checked_size(t.dims, size) ? double(size) * packed_numbers(t) : 0;
}

Stored::Stored(const Tensors& tensors, const std::string& name, const Dims& dims)
    : StoredRows(name, dims) {
  const TensorInfo* t = tensors.find(name);
  if (!t && tensors.find(name + "_blocks") && tensors.find(name + "_scales")) {
    open_mxfp4(tensors);
    return;
  }
  if (!t && tensors.find(name + "_packed")) {
    open_few_bits(tensors, name + "_packed");
    return;
  }
  if (t && t->dtype == DType::i8) {
    open_few_bits(tensors, name);
    return;
  }
  values_ = tensors.get(name, dims);
  if (is_fp8(values_.dtype()))
    open_fp8(tensors);
  const bool numbers = values_.dtype() == DType::f64 || values_.dtype() == DType::f32 ||
                       values_.dtype() == DType::bf16 || values_.dtype() == DType::f16;
  const bool ids =
      holds_ids(name) && (values_.dtype() == DType::i64 || values_.dtype() == DType::i32);
  if (kind_ == Kind::plain && !numbers && !ids) {
    refuse(tensors, name,
           fmt::format("is stored as {}, which is no format of weights", name_of(values_.dtype())));
  }
}

void Stored::open_fp8(const Tensors& tensors) {
  kind_ = Kind::fp8;
  const std::string scale = name() + "_scale_inv";
  if (!tensors.find(scale)) {
    refuse(tensors, name(),
           fmt::format("is stored as {} and there is no {}", name_of(values_.dtype()),
                       in_quotes(scale)));
  }
  if (dims().size() != 2) {
    refuse(tensors, name(),
           fmt::format("is stored in blocks and has the shape {} where a matrix belongs",
                       text_of(dims())));
  }
  scales_ = tensors.get(scale, {up(dims()[0], block), up(dims()[1], block)});
  if (scales_.dtype() != DType::f32 && scales_.dtype() != DType::bf16 &&
      scales_.dtype() != DType::f8_e8m0) {
    refuse(tensors, scale,
           fmt::format("is stored as {}, which is no format of scales", name_of(scales_.dtype())));
  }
}

void Stored::open_mxfp4(const Tensors& tensors) {
  kind_ = Kind::mxfp4;
  if (dims().size() < 2) {
    refuse(tensors, name() + "_blocks",
           fmt::format("has the shape {} where a matrix is expected", text_of(dims())));
  }
  const Index in = dims()[dims().size() - 2];
  const Index out = dims().back();
  Dims outer(dims().begin(), dims().end() - 2);
  if (in % group != 0) {
    refuse(tensors, name() + "_blocks",
           fmt::format("holds groups of {} and {} numbers are expected in a row", group, in));
  }
  if (outer.size() > 1) {
    refuse(tensors, name() + "_blocks",
           fmt::format("has the shape {}, more than three dimensions", text_of(dims())));
  }
  outer.insert(outer.end(), {out, in / group});
  scales_ = tensors.get(name() + "_scales", outer);
  outer.push_back(group / 2);
  values_ = tensors.get(name() + "_blocks", outer);
  for (const Tensor* t : {&values_, &scales_}) {
    if (t->dtype() != DType::u8) {
      refuse(tensors, name() + (t == &values_ ? "_blocks" : "_scales"),
             fmt::format("is stored as {} where u8 belongs", name_of(t->dtype())));
    }
  }
}

// Numbers of a row that share a scale, as the shape of the scales has it; 0 = all of them.
Index Stored::block_of_scales(const Tensors& tensors) const {
  const std::string scale = name() + "_scale";
  const TensorInfo* t = tensors.find(scale);
  if (!t)
    refuse(tensors, stored_as_, fmt::format("needs scales and there is no {}", in_quotes(scale)));
  const Index rows = dims()[0];
  const Index cols = dims()[1];
  const bool shaped =
      t->dims.size() == 2 && t->dims[0] == rows && t->dims[1] > 0 && cols % t->dims[1] == 0;
  if (!shaped) {
    refuse(tensors, scale,
           fmt::format("has the shape {}, which are no scales of [{}, {}] numbers",
                       text_of(t->dims), rows, cols));
  }
  return t->dims[1] == 1 ? 0 : cols / t->dims[1];
}

void Stored::refuse_variants(const Tensors& tensors) const {
  if (dims().size() != 2) {
    refuse(tensors, stored_as_,
           fmt::format("has scales and the shape {} where a matrix belongs", text_of(dims())));
  }
  for (const char* other : {"_zero_point", "_g_idx"}) {
    if (tensors.find(name() + other)) {
      refuse(tensors, name() + other,
             "is there, and weights with zero points or an order of their own are not read");
    }
  }
}

// Packed whole numbers (I32), packed MXFP4 (U8), or bytes.
void Stored::open_few_bits(const Tensors& tensors, const std::string& tensor) {
  kind_ = Kind::few_bits;
  stored_as_ = tensor;
  refuse_variants(tensors);
  const Index rows = dims()[0];
  const Index cols = dims()[1];
  const DType type = tensors.at(tensor).dtype;
  format_.kind = type == DType::i8    ? FewBits::int8
                 : type == DType::i32 ? FewBits::int4
                                      : FewBits::mxfp4;
  format_.block = format_.kind == FewBits::mxfp4 ? 0 : block_of_scales(tensors);
  if (const std::string why = cannot_hold(format_, rows, cols); !why.empty())
    refuse(tensors, tensor, fmt::format("is no {} matrix: {}", text_of(format_), why));
  const Index packed = format_.kind == FewBits::int8 ? 1 : format_.kind == FewBits::int4 ? 8 : 2;
  values_ = tensors.get(tensor, {rows, cols / packed});
  const bool bytes = format_.kind == FewBits::mxfp4;
  const Index each = bytes ? group : format_.block > 0 ? format_.block : cols;
  scales_ = tensors.get(name() + "_scale", {rows, cols / each});
  if (tensors.find(name() + "_shape"))
    shape_ = tensors.get(name() + "_shape");
  const DType scale = scales_.dtype();
  const bool known = bytes ? scale == DType::u8
                           : scale == DType::f32 || scale == DType::bf16 || scale == DType::f16;
  if (!known || (bytes && type != DType::u8)) {
    refuse(tensors, known ? tensor : name() + "_scale",
           fmt::format("is stored as {}, which is not read here", name_of(known ? type : scale)));
  }
}

std::vector<std::string> Stored::tensors() const {
  if (kind_ == Kind::few_bits)
    return {stored_as_, name() + "_scale", name() + "_shape"};
  if (kind_ == Kind::mxfp4)
    return {name() + "_blocks", name() + "_scales"};
  if (kind_ == Kind::fp8)
    return {name(), name() + "_scale_inv"};
  return {name()};
}

std::optional<FewBitsFormat> Stored::few_bits() const {
  if (kind_ == Kind::few_bits)
    return format_;
  if (kind_ == Kind::fp8)
    return FewBitsFormat{.kind = FewBits::fp8};
  return {};
}

std::vector<NamedTensor> Stored::in_file(const std::string& as) const {
  const auto named = [&](const std::string& stored) {
    return as + stored.substr(name().size());
  };
  const std::vector<std::string> names = tensors();
  std::vector<NamedTensor> out;
  out.emplace_back(named(names[0]), values_);
  if (kind_ != Kind::plain)
    out.emplace_back(named(names[1]), scales_);
  if (kind_ == Kind::few_bits && !shape_.bytes().empty())
    out.emplace_back(named(names[2]), shape_);
  return out;
}

void Stored::convert(Index first, View<float> out) const {
  if (kind_ == Kind::fp8)
    return from_fp8(first, out);
  if (kind_ == Kind::mxfp4)
    return from_mxfp4(first, out);
  if (kind_ == Kind::few_bits)
    return from_few_bits(first, out);
  values_.to_float(first, out);
}

Tensor Stored::numbers() const {
  return kind_ == Kind::plain ? values_ : StoredRows::numbers();
}

// Rows `first` and `rows` more of those of a tensor that has `all` of them; of MXFP4, which has the
// rows of one matrix side by side, all of each matrix.
std::vector<std::span<const std::byte>> Stored::bytes(Index first, Index rows) const {
  std::vector<std::span<const std::byte>> out;
  const auto add = [&](const Tensor& t, Index all, Index from, Index to) {
    if (t.owned() || t.bytes().empty() || from >= to)
      return;
    const Index each = Index(t.bytes().size()) / all;
    out.push_back(t.bytes().subspan(std::size_t(from * each), std::size_t((to - from) * each)));
  };
  if (kind_ == Kind::mxfp4) {
    const Index in = dims()[dims().size() - 2];
    const Index matrices = this->rows() / in;
    for (const Tensor* t : {&values_, &scales_})
      add(*t, matrices, first / in, (first + rows + in - 1) / in);
    return out;
  }
  add(values_, this->rows(), first, first + rows);
  if (kind_ == Kind::few_bits)
    add(scales_, this->rows(), first, first + rows);
  return out;
}

// Of these rows, all of which have as many.
std::span<const std::byte> Stored::bytes_of(const Tensor& t, Index first, Index rows) const {
  const Index each = Index(t.bytes().size()) / this->rows();
  return t.bytes().subspan(std::size_t(first * each), std::size_t(rows * each));
}

FewBitsRow Stored::few_bits_row(Index row) const {
  return {bytes_of(values_, row, 1).data(), bytes_of(scales_, row, 1).data(), scales_.dtype()};
}

void Stored::from_few_bits(Index first, View<float> out) const {
  for (Index r = 0; r < out.rows; ++r)
    decode_row(format_, few_bits_row(first + r), out.row(r));
}

bool Stored::has_dots() const {
  if (kind_ == Kind::few_bits)
    return quant::has_dots(format_, cols());
  return kind_ == Kind::plain && quant::row_dots(values_.dtype()) != nullptr;
}

bool Stored::has_byte_dots() const {
  return kind_ == Kind::few_bits && has_dots();
}

bool Stored::dots(Index first, Index rows, const ActivationRow& x, float* y) const {
  if (!has_dots())
    return false;
  if (kind_ == Kind::plain) {
    quant::row_dots(values_.dtype())(bytes_of(values_, first, rows).data(), x.number, y, rows,
                                     cols());
    return true;
  }
  for (Index r = 0; r < rows; ++r)
    y[r] = quant::few_bits_dot(format_, few_bits_row(first + r), x, cols());
  return true;
}

bool Stored::finite(Index first, Index rows) const {
  if (kind_ == Kind::plain && has_dots())
    return quant::all_finite(values_.dtype(), bytes_of(values_, first, rows));
  if (kind_ == Kind::few_bits && has_dots())
    return quant::all_finite(scales_.dtype(), bytes_of(scales_, first, rows));
  return StoredRows::finite(first, rows);
}

void Stored::from_fp8(Index first, View<float> out) const {
  const bool table = values_.dtype() == DType::f8_e4m3;
  std::vector<float> scale(std::size_t(scales_.cols()));
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(values_.bytes().data());
  for (Index r = 0; r < out.rows; ++r) {
    const Index row = first + r;
    if (r == 0 || row % block == 0)
      scales_.to_float(row / block, {scale.data(), 1, Index(scale.size())});
    const std::uint8_t* from = bytes + row * out.cols;
    float* to = out.row(r).data();
    for (Index c = 0; c < out.cols; ++c) {
      to[c] = (table ? e4m3()[from[c]] : f8_to_float(values_.dtype(), from[c])) *
              scale[std::size_t(c / block)];
    }
  }
}

// Row (e, i) of the numbers is column i of the stored rows (e, 0..out).
void Stored::from_mxfp4(Index first, View<float> out) const {
  const Index in = dims()[dims().size() - 2];
  const Index outs = dims().back();
  const Index groups = in / group;
  const auto* blocks = reinterpret_cast<const std::uint8_t*>(values_.bytes().data());
  const auto* scales = reinterpret_cast<const std::uint8_t*>(scales_.bytes().data());
  for (Index at = 0; at < out.rows;) {
    const Index e = (first + at) / in;
    const Index i = (first + at) % in;
    const Index g = i / group;
    // rows of one expert and group
    const Index count = std::min({out.rows - at, group - i % group});
    for (Index o = 0; o < outs; ++o) {
      const Index place = (e * outs + o) * groups + g;
      const float scale = f8_to_float(DType::f8_e8m0, scales[place]);
      for (Index n = 0; n < count; ++n) {
        const Index k = i % group + n;
        out(at + n, o) =
            e2m1_numbers[(blocks[place * (group / 2) + k / 2] >> (k % 2 * 4)) & 15] * scale;
      }
    }
    at += count;
  }
}

}  // namespace moe
