// Sums over rows as files hold them, against the decoded rows in double.
#include "lib/checkpoint/quant/dots.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "lib/checkpoint/quant/dequantise.h"
#include "lib/core/byte_rows.h"
#include "lib/core/rng.h"

namespace moe {
namespace {

const GgmlType& type_named(const std::string& name) {
  for (const GgmlType& t : ggml_types()) {
    if (t.name == name)
      return t;
  }
  throw std::runtime_error(name);
}

// Random bytes whose float16 scales are small finite numbers.
std::vector<std::byte> random_blocks(const GgmlType& type, Index blocks, Rng& rng) {
  std::vector<std::byte> out(std::size_t(blocks * type.bytes));
  for (std::byte& b : out)
    b = std::byte(rng.below(256));
  for (Index b = 0; b < blocks; ++b) {
    std::byte* at = out.data() + b * type.bytes;
    const bool end = type.name == "Q6_K";
    const int scales = type.name == "Q4_K" ? 2 : 1;
    for (int s = 0; s < scales; ++s) {
      std::byte* scale = at + (end ? 208 : 2 * s);
      scale[1] = std::byte(0x20 + rng.below(16) + (rng.below(2) << 7));  // 2^-7 to 2^-4
    }
  }
  return out;
}

std::vector<float> random_row(Index n, Rng& rng) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x)
    v = float(rng.normal());
  return x;
}

struct Exact {
  double sum = 0, size = 0;  // of the terms, and of their sizes
};
Exact exact(std::span<const float> w, std::span<const float> x) {
  Exact out;
  for (std::size_t i = 0; i < w.size(); ++i) {
    out.sum += double(w[i]) * double(x[i]);
    out.size += std::abs(double(w[i]) * double(x[i]));
  }
  return out;
}

void check(float found, const Exact& want, Index n) {
  CHECK(std::abs(double(found) - want.sum) <= double(n) * 0x1p-23 * want.size);
}

void check_type(const std::string& name, Index rows, Index n) {
  const GgmlType& type = type_named(name);
  const quant::RowDots dots = quant::row_dots(type);
  if (!dots)
    return;  // a processor without AVX2
  Rng rng{std::uint64_t(n)};
  const std::vector<std::byte> w = random_blocks(type, rows * n / type.block, rng);
  const std::vector<float> x = random_row(n, rng);
  std::vector<float> decoded(std::size_t(rows * n));
  dequantise(type, w, decoded);
  std::vector<float> y(static_cast<std::size_t>(rows));
  dots(w.data(), x.data(), y.data(), rows, n);
  INFO(name << " " << rows << " x " << n);
  for (Index r = 0; r < rows; ++r) {
    check(y[std::size_t(r)],
          exact(std::span(decoded).subspan(std::size_t(r * n), std::size_t(n)), x), n);
  }
}

// A row of activations as the definition rounds it, and its bytes.
struct Rounded {
  Matrix<float> numbers;
  ByteRows bytes;
  explicit Rounded(const std::vector<float>& x) : numbers(1, Index(x.size())) {
    const View<const float> row{x.data(), 1, Index(x.size())};
    rounded_to_bytes(row, numbers.view());
    bytes = ByteRows(row);
  }
};

// Every level that the processor has, against decoded rows times rounded activations in double; and
// all levels give the same bytes.
void check_bytes(const std::string& name, Index rows, const std::vector<float>& x) {
  const GgmlType& type = type_named(name);
  const auto n = Index(x.size());
  Rng rng{std::uint64_t(n)};
  const std::vector<std::byte> w = random_blocks(type, rows * n / type.block, rng);
  std::vector<float> decoded(std::size_t(rows * n));
  dequantise(type, w, decoded);
  const Rounded rounded(x);
  std::vector<float> first;
  for (const quant::RowByteDots dots : quant::byte_dots_of_levels(type)) {
    std::vector<float> y(static_cast<std::size_t>(rows));
    dots(w.data(), rounded.bytes.row(0), y.data(), rows, n);
    INFO(name << " " << rows << " x " << n);
    for (Index r = 0; r < rows; ++r) {
      const auto row = std::span(decoded).subspan(std::size_t(r * n), std::size_t(n));
      check(y[std::size_t(r)], exact(row, rounded.numbers.row(0)), n);
    }
    if (first.empty())
      first = y;
    CHECK(y == first);
  }
}

std::vector<float> scaled_row(Index n, float by) {
  Rng rng{std::uint64_t(n)};
  std::vector<float> x = random_row(n, rng);
  for (float& v : x)
    v *= by;
  return x;
}

}  // namespace

TEST_CASE("sums of whole numbers are those of decoded rows and rounded activations") {
  for (const char* type : {"Q8_0", "Q4_0", "Q4_K", "Q6_K"}) {
    const bool small = std::string(type).ends_with("_0");
    for (const Index n : small ? std::vector<Index>{32, 64, 96, 160, 1024, 4064}
                               : std::vector<Index>{256, 512, 2048}) {
      check_bytes(type, 5, scaled_row(n, 1));
      check_bytes(type, 1, scaled_row(n, 1e30f));
      check_bytes(type, 3, scaled_row(n, 1e-25f));
      check_bytes(type, 2, std::vector<float>(std::size_t(n), 0.0f));
      check_bytes(type, 2, std::vector<float>(std::size_t(n), -3.0f));
    }
  }
}

TEST_CASE("a number that is not finite is in every sum of whole numbers") {
  for (const float broken : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x(256, 1.0f);
    x[70] = broken;
    const Rounded rounded(x);
    CHECK(std::isnan(rounded.numbers(0, 70)));
    CHECK(rounded.numbers(0, 0) == 1);
    for (const char* name : {"Q8_0", "Q4_0", "Q4_K", "Q6_K"}) {
      const GgmlType& type = type_named(name);
      Rng rng(1);
      const std::vector<std::byte> w = random_blocks(type, 256 / type.block, rng);
      for (const quant::RowByteDots dots : quant::byte_dots_of_levels(type)) {
        float y = 0;
        dots(w.data(), rounded.bytes.row(0), &y, 1, 256);
        CHECK(std::isnan(y));
      }
    }
  }
}

TEST_CASE("sums over quantised rows are those of the decoded rows") {
  for (const char* type : {"Q8_0", "Q4_0"}) {
    for (const Index n : {32, 64, 96, 160, 1024, 4064})
      check_type(type, 5, n);
  }
  for (const char* type : {"Q4_K", "Q6_K"}) {
    for (const Index n : {256, 512, 2048})
      check_type(type, 5, n);
  }
}

TEST_CASE("sums over plain numbers of any length") {
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    const quant::RowDots dots = quant::row_dots(type);
    if (!dots)
      return;
    for (const Index n : {1, 15, 16, 17, 63, 64, 100, 1000}) {
      Rng rng{std::uint64_t(n)};
      const std::vector<float> w = random_row(3 * n, rng);
      const std::vector<float> x = random_row(n, rng);
      const Tensor narrow = Tensor::from_float(type, {3, n}, w);
      const Matrix<float> read = narrow.to_float();
      float y[3];
      dots(narrow.bytes().data(), x.data(), y, 3, n);
      for (Index r = 0; r < 3; ++r)
        check(y[r], exact(read.row(r), x), n);
    }
  }
}

TEST_CASE("sums over int8 and int4 with scales beside them") {
  for (const char* text : {"int8", "int8:block=32", "int4", "int4:block=64"}) {
    const FewBitsFormat format = few_bits_format(text);
    const Index n = 192;
    if (!quant::has_dots(format, n))
      return;
    Rng rng(1);
    const Tensor matrix = Tensor::from_float(DType::f32, {3, n}, random_row(3 * n, rng));
    const std::vector<NamedTensor> stored =
        in_few_bits(NamedTensor("w", DType::f32, {3, n}, [&] { return matrix; }), format);
    Matrix<float> rounded = matrix.to_float();
    round_to(format, rounded.view());
    const std::vector<float> x = random_row(n, rng);
    const Tensor numbers = stored[0].make();
    const Tensor scales = stored[1].make();
    for (Index r = 0; r < 3; ++r) {
      const auto row = [&](const Tensor& t) {
        return t.bytes().data() + std::size_t(r) * t.bytes().size() / 3;
      };
      const float y = quant::few_bits_dot(format, {row(numbers), row(scales), scales.dtype()},
                                          {.number = x.data()}, n);
      check(y, exact(rounded.row(r), x), n);
      const Rounded near(x);
      const float whole = quant::few_bits_dot(format, {row(numbers), row(scales), scales.dtype()},
                                              {.number = x.data(), .bytes = near.bytes.row(0)}, n);
      check(whole, exact(rounded.row(r), near.numbers.row(0)), n);
    }
  }
}

TEST_CASE("what is not finite is found in scales and numbers") {
  const GgmlType& q8 = type_named("Q8_0");
  Rng rng(1);
  std::vector<std::byte> blocks = random_blocks(q8, 4, rng);
  CHECK(quant::all_finite(q8, blocks));
  blocks[std::size_t(2 * q8.bytes + 1)] = std::byte(0x7c);
  blocks[std::size_t(2 * q8.bytes)] = std::byte(0);
  CHECK_FALSE(quant::all_finite(q8, blocks));
  std::vector<float> numbers(100, 1.0f);
  CHECK(quant::all_finite(DType::f32, std::as_bytes(std::span(numbers))));
  numbers[70] = -INFINITY;
  CHECK_FALSE(quant::all_finite(DType::f32, std::as_bytes(std::span(numbers))));
}

}  // namespace moe
