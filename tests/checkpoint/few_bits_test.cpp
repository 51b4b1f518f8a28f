// Matrices in few bits: each number against the nearest that its format has, found by looking at
// all of them, and the file's tensors against what is read of them.
#include <cmath>
#include <map>

#include "lib/checkpoint/quant/few_bits.h"
#include "lib/checkpoint/stored.h"
#include "lib/core/rng.h"
#include "tests/checkpoint/help.h"

using namespace moe;
using namespace moe::test;

namespace {

Matrix<float> drawn(Index rows, Index cols, std::uint64_t seed) {
  Rng rng(seed);
  Matrix<float> out(rows, cols);
  for (float& v : out.flat())
    v = float(rng.normal() * 0.05);
  for (Index c = 0; c < std::min<Index>(cols, 32); ++c)
    out(0, c) = 0;  // a block of zeros
  return out;
}

Tensor tensor_of(const Matrix<float>& m) {
  return Tensor::from_float(DType::f32, {m.rows(), m.cols()}, m.flat());
}

float largest(std::span<const float> x) {
  float most = 0;
  for (const float v : x)
    most = std::max(most, std::abs(v));
  return most;
}

// Of all numbers the nearest; two that are as near both count.
bool is_nearest(float got, float x, const std::vector<float>& all) {
  float best = INFINITY;
  for (const float v : all)
    best = std::min(best, std::abs(v - x));
  return std::abs(std::abs(got - x) - best) <= 1e-6f * std::abs(x);
}

// The numbers that a block of x may become.
std::vector<float> numbers_of(const FewBitsFormat& f, std::span<const float> block) {
  std::vector<float> out;
  const float most = largest(block);
  if (f.kind == FewBits::int8 || f.kind == FewBits::int4) {
    const int steps = f.kind == FewBits::int8 ? 127 : 7;
    for (int q = -steps; q <= steps; ++q)
      out.push_back(float(q) * (most / float(steps)));
  } else if (f.kind == FewBits::mxfp4) {
    const float scale = most > 0 ? std::exp2(std::floor(std::log2(most)) - 2) : 1;
    for (const float v : {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f}) {
      out.push_back(v * scale);
      out.push_back(-v * scale);
    }
  } else {
    for (int code = 0; code < 256; ++code) {
      const float v = f8_to_float(DType::f8_e4m3, std::uint8_t(code));
      if (std::isfinite(v))
        out.push_back(v * (most > 0 ? most / 448 : 1));
    }
  }
  return out;
}

void check_rows(const FewBitsFormat& f, const Matrix<float>& from, const Matrix<float>& to) {
  const Index each = f.kind == FewBits::mxfp4 ? 32 : f.block > 0 ? f.block : from.cols();
  int far = 0;
  for (Index r = 0; r < from.rows(); ++r) {
    for (Index b = 0; b < from.cols(); b += each) {
      const auto block = from.row(r).subspan(std::size_t(b), std::size_t(each));
      const std::vector<float> all = numbers_of(f, block);
      for (Index i = 0; i < each; ++i)
        far += !is_nearest(to(r, b + i), block[std::size_t(i)], all);
    }
  }
  CHECK(far == 0);
}

}  // namespace

TEST_CASE("every number becomes the nearest of its format") {
  for (const std::string name : {"int8", "int8:block=32", "int4", "int4:block=64", "mxfp4"}) {
    INFO(name);
    const FewBitsFormat f = few_bits_format(name);
    CHECK(text_of(f) == name);
    const Matrix<float> from = drawn(5, 192, 1);
    Matrix<float> to = from;
    round_to(f, to.view());
    check_rows(f, from, to);
    const Matrix<float> once = to;
    round_to(f, to.view());
    CHECK(largest(once.flat()) == Approx(largest(to.flat())));
  }
}

TEST_CASE("fp8 has a scale for each 128x128 numbers, the ragged blocks too") {
  const FewBitsFormat f = few_bits_format("fp8");
  const Matrix<float> from = drawn(130, 200, 2);
  Matrix<float> to = from;
  round_to(f, to.view());
  int far = 0;
  for (Index r0 = 0; r0 < from.rows(); r0 += 128) {
    for (Index c0 = 0; c0 < from.cols(); c0 += 128) {
      std::vector<float> block;
      for (Index r = r0; r < std::min<Index>(r0 + 128, from.rows()); ++r) {
        for (Index c = c0; c < std::min<Index>(c0 + 128, from.cols()); ++c)
          block.push_back(from(r, c));
      }
      const std::vector<float> all = numbers_of(f, block);
      for (Index r = r0; r < std::min<Index>(r0 + 128, from.rows()); ++r) {
        for (Index c = c0; c < std::min<Index>(c0 + 128, from.cols()); ++c)
          far += !is_nearest(to(r, c), from(r, c), all);
      }
    }
  }
  CHECK(far == 0);
}

TEST_CASE("a matrix in few bits is read as it was rounded, in as many bytes as stated") {
  for (const std::string name : {"int8", "int8:block=32", "int4", "fp8", "mxfp4"}) {
    INFO(name);
    const FewBitsFormat f = few_bits_format(name);
    const Matrix<float> from = drawn(131, 160, 3);
    Matrix<float> want = from;
    round_to(f, want.view());
    const std::vector<NamedTensor> list = in_few_bits({"w.weight", tensor_of(from)}, f);
    const Scratch s;
    write_safetensors(s / "model.safetensors", list);
    const Tensors tensors(s / "model.safetensors");
    Index bytes = 0;
    for (const TensorInfo& t : tensors.list())
      bytes += t.bytes;
    CHECK(bytes == bytes_of(f, from.rows(), from.cols()));
    const Stored stored(tensors, "w.weight", {from.rows(), from.cols()});
    CHECK(stored.quantised());
    CHECK(stored.tensors().size() >= list.size());
    Matrix<float> got(from.rows(), from.cols());
    stored.to_float(0, got.view());
    CHECK(std::ranges::equal(got.flat(), want.flat()));
    Matrix<float> part(3, from.cols());
    stored.to_float(64, part.view());
    CHECK(std::ranges::equal(part.flat(), want.view().slice(64, 3).flat()));
  }
}

TEST_CASE("what does not fit a format is refused") {
  CHECK(cannot_hold(few_bits_format("mxfp4"), 4, 48).find("do not divide by 32") !=
        std::string::npos);
  CHECK(cannot_hold(few_bits_format("int8:block=32"), 4, 48).find("do not divide by 32") !=
        std::string::npos);
  CHECK(cannot_hold(few_bits_format("int4:block=4"), 4, 12).find("do not divide by 8") !=
        std::string::npos);
  CHECK(cannot_hold(few_bits_format("int8"), 4, 49).empty());
  CHECK(cannot_hold(few_bits_format("fp8"), 4, 49).empty());
  CHECK(outcome([] { few_bits_format("int3"); }).code == Exit::usage);
  CHECK(outcome([] { few_bits_format("fp8:block=3"); }).code == Exit::usage);
}

TEST_CASE("tensors of few bits that do not belong together are refused by name") {
  const FewBitsFormat f = few_bits_format("int8");
  std::vector<NamedTensor> list = in_few_bits({"w.weight", tensor_of(drawn(4, 64, 4))}, f);
  const auto said = [&](const Dims& dims) {
    const Scratch s;
    write_safetensors(s / "model.safetensors", list);
    const Tensors tensors(s / "model.safetensors");
    const Outcome o = outcome([&] { Stored(tensors, "w.weight", dims); });
    CHECK(o.code == Exit::input);
    return o.what;
  };
  CHECK(said({4, 32}).find("[4, 64]") != std::string::npos);
  list.emplace_back("w.weight_zero_point", Tensor(DType::i8, {4, 1}));
  CHECK(said({4, 64}).find("zero points") != std::string::npos);
  list.erase(list.begin() + 1, list.end());
  CHECK(said({4, 64}).find("w.weight_scale") != std::string::npos);
  list.emplace_back("w.weight_scale", Tensor(DType::f32, {4, 5}));
  CHECK(said({4, 64}).find("no scales of [4, 64]") != std::string::npos);
}
