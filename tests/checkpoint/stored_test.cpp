// Quantised weights as numbers: against values worked out by hand and by plain loops, ragged edges,
// part by part, and what is refused.
#include <cmath>
#include <map>

#include "lib/checkpoint/stored.h"
#include "tests/checkpoint/help.h"

using namespace moe;
using namespace moe::test;

namespace {

Tensor bytes_tensor(DType t, Dims dims, const std::function<std::uint8_t(Index)>& value) {
  Tensor out(t, std::move(dims));
  for (Index i = 0; i < out.size(); ++i)
    out.mutable_bytes()[std::size_t(i)] = std::byte(value(i));
  return out;
}
Tensor floats(Dims dims, const std::function<float(Index)>& value) {
  Tensor out(DType::f32, std::move(dims));
  for (Index i = 0; i < out.size(); ++i)
    out.mutable_view<float>().data[i] = value(i);
  return out;
}

std::string refused(const std::vector<NamedTensor>& list, const std::string& name,
                    const Dims& dims) {
  const Scratch s;
  write_safetensors(s / "model.safetensors", list);
  const Tensors tensors(s / "model.safetensors");
  const Outcome o = outcome([&] { Stored(tensors, name, dims); });
  CHECK(o.code == Exit::input);
  return o.what;
}

// The whole at once equals any cut into rows.
void check_parts(const Stored& s, const std::function<float(Index row, Index col)>& want) {
  Matrix<float> whole(s.rows(), s.cols());
  s.to_float(0, whole.view());
  int wrong = 0;
  for (Index r = 0; r < s.rows(); ++r) {
    for (Index c = 0; c < s.cols(); ++c)
      wrong += !(whole(r, c) == want(r, c));
  }
  CHECK(wrong == 0);
  for (Index first = 0; first < s.rows(); first += 37) {
    Matrix<float> part(std::min<Index>(37, s.rows() - first), s.cols());
    s.to_float(first, part.view());
    CHECK(std::ranges::equal(part.flat(), whole.view().slice(first, part.rows()).flat()));
  }
}

}  // namespace

TEST_CASE("FP8 with a scale for each block of 128, the ragged ones included") {
  const Index rows = 300;
  const Index cols = 200;  // 3x2 blocks
  const auto code = [](Index i) {
    return std::uint8_t(i * 7 % 256 == 0x7f || i * 7 % 256 == 0xff ? 0x38 : i * 7 % 256);
  };
  const auto scale = [](Index i) {
    return 0.25f * float(i + 1);
  };
  const Scratch s;
  write_safetensors(
      s / "model.safetensors",
      std::vector<NamedTensor>{{"a.weight", bytes_tensor(DType::f8_e4m3, {rows, cols}, code)},
                               {"a.weight_scale_inv", floats({3, 2}, scale)}});
  const Tensors tensors(s / "model.safetensors");
  const Stored a(tensors, "a.weight", {rows, cols});
  CHECK(a.quantised());
  CHECK(a.tensors() == std::vector<std::string>{"a.weight", "a.weight_scale_inv"});
  check_parts(a, [&](Index r, Index c) {
    return f8_to_float(DType::f8_e4m3, code(r * cols + c)) * scale(r / 128 * 2 + c / 128);
  });
  CHECK(a.numbers().dtype() == DType::f32);
}

TEST_CASE("MXFP4 in groups of 32, seen the other way round") {
  const Index experts = 2;
  const Index in = 64;
  const Index out = 5;
  const auto byte = [](Index i) {
    return std::uint8_t(i * 37 + 11);
  };
  const auto scale = [](Index i) {
    return std::uint8_t(120 + i % 15);
  };
  const Scratch s;
  write_safetensors(s / "model.safetensors",
                    std::vector<NamedTensor>{
                        {"x_blocks", bytes_tensor(DType::u8, {experts, out, in / 32, 16}, byte)},
                        {"x_scales", bytes_tensor(DType::u8, {experts, out, in / 32}, scale)}});
  const Tensors tensors(s / "model.safetensors");
  const Stored x(tensors, "x", {experts, in, out});
  const float table[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  check_parts(x, [&](Index r, Index o) {
    const Index e = r / in;
    const Index i = r % in;
    const Index place = (e * out + o) * 2 + i / 32;
    const int half = byte(place * 16 + i % 32 / 2) >> (i % 2 * 4) & 15;
    return std::ldexp((half & 8 ? -1.0f : 1.0f) * table[half & 7], int(scale(place)) - 127);
  });
}

TEST_CASE("plain weights of any width come as they are") {
  const Scratch s;
  const std::vector<float> v = {1.5f, -2, 0.25f, 3, 0, -0.5f};
  std::vector<NamedTensor> list;
  for (const DType t : {DType::f32, DType::bf16, DType::f16, DType::f64})
    list.emplace_back(std::string(name_of(t)), Tensor::from_float(t, {2, 3}, v));
  write_safetensors(s / "model.safetensors", list);
  const Tensors tensors(s / "model.safetensors");
  for (const NamedTensor& n : list) {
    const Stored t(tensors, n.name, {2, 3});
    CHECK_FALSE(t.quantised());
    CHECK(t.numbers().dtype() == n.dtype);
    check_parts(t, [&](Index r, Index c) { return v[std::size_t(r * 3 + c)]; });
  }
}

TEST_CASE("quantised weights that do not fit are refused by name") {
  const auto zeros = [](DType t, Dims d) {
    return bytes_tensor(t, std::move(d), [](Index) { return 0; });
  };
  const auto zero = [](Index) {
    return 0.0f;
  };
  CHECK(refused({{"a", zeros(DType::f8_e4m3, {4, 4})}}, "a", {4, 4})
            .find("there is no 'a_scale_inv'") != std::string::npos);
  CHECK(refused({{"a", zeros(DType::f8_e4m3, {576, 4})}, {"a_scale_inv", floats({4, 1}, zero)}},
                "a", {576, 4})
            .find("[4, 1] where [5, 1]") != std::string::npos);
  CHECK(refused({{"a", zeros(DType::f8_e4m3, {2, 2, 2})}, {"a_scale_inv", floats({1, 1}, zero)}},
                "a", {2, 2, 2})
            .find("where a matrix belongs") != std::string::npos);
  CHECK(refused({{"a", zeros(DType::f8_e4m3, {4, 4})}, {"a_scale_inv", zeros(DType::i8, {1, 1})}},
                "a", {4, 4})
            .find("no format of scales") != std::string::npos);
  CHECK(refused({{"a", zeros(DType::i8, {4, 4})}}, "a", {4, 4})
            .find("needs scales and there is no 'a_scale'") != std::string::npos);
  CHECK(refused({{"a_blocks", zeros(DType::u8, {2, 5, 2, 16})},
                 {"a_scales", zeros(DType::u8, {2, 5, 1})}},
                "a", {2, 64, 5})
            .find("[2, 5, 1] where [2, 5, 2]") != std::string::npos);
  CHECK(refused({{"a_blocks", zeros(DType::u8, {2, 5, 2, 16})},
                 {"a_scales", zeros(DType::u8, {2, 5, 2})}},
                "a", {2, 60, 5})
            .find("groups of 32 and 60") != std::string::npos);
  CHECK(refused({{"a_blocks", zeros(DType::i8, {2, 5, 2, 16})},
                 {"a_scales", zeros(DType::u8, {2, 5, 2})}},
                "a", {2, 64, 5})
            .find("'a_blocks'") != std::string::npos);
  CHECK(refused({{"a_blocks", zeros(DType::u8, {2, 5, 2, 16})}}, "a", {2, 64, 5})
            .find("tensor 'a' is missing") != std::string::npos);
}
