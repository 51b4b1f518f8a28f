// Numbers out of the block formats of GGUF: worked out by hand, recorded for every type, and held
// to the reference where its values are there.
#include "lib/checkpoint/quant/dequantise.h"

#include <cmath>
#include <limits>
#include <map>
#include <span>

#include "lib/checkpoint/quant/grids.h"
#include "lib/core/rng.h"
#include "lib/trace/golden.h"
#include "tests/checkpoint/help.h"
#include "tests/gguf_bytes.h"
#include "tests/skip.h"

using namespace moe;
using namespace moe::test;

namespace {

const GgmlType& type_named(std::string_view name) {
  for (const GgmlType& t : ggml_types()) {
    if (t.name == name)
      return t;
  }
  FAIL("no type " << name);
  return ggml_types()[0];
}

std::vector<float> decoded(std::string_view type, const std::string& bytes) {
  const GgmlType& t = type_named(type);
  std::vector<float> out(bytes.size() / std::size_t(t.bytes) * std::size_t(t.block));
  dequantise(t, std::as_bytes(std::span(bytes)), out);
  return out;
}

const std::string one = raw(std::uint16_t(0x3c00));   // 1 as float16
const std::string half = raw(std::uint16_t(0x3800));  // 0.5
const std::string two = raw(std::uint16_t(0x4000));

}  // namespace

TEST_CASE("blocks of 32 numbers, by hand") {
  std::string nibbles;
  for (int j = 0; j < 16; ++j)
    nibbles += char(j | (15 - j) << 4);
  const auto q4_0 = decoded("Q4_0", two + nibbles);
  const auto q4_1 = decoded("Q4_1", two + half + nibbles);
  const auto q5_0 = decoded("Q5_0", two + raw(std::uint32_t(0x80000001)) + nibbles);
  const auto q5_1 = decoded("Q5_1", two + half + raw(std::uint32_t(0x80000001)) + nibbles);
  const auto mxfp4 = decoded("MXFP4", std::string(1, char(128)) + nibbles);
  for (std::size_t j = 0; j < 16; ++j) {
    const float low = float(j);
    const float high = float(15 - j);
    CHECK(q4_0[j] == 2 * (low - 8));
    CHECK(q4_0[j + 16] == 2 * (high - 8));
    CHECK(q4_1[j] == 2 * low + 0.5f);
    CHECK(q4_1[j + 16] == 2 * high + 0.5f);
    CHECK(q5_0[j] == 2 * (low + (j == 0 ? 16 : 0) - 16));
    CHECK(q5_1[j + 16] == 2 * (high + (j == 15 ? 16 : 0)) + 0.5f);
  }
  CHECK(mxfp4[2] == 2);
  CHECK(mxfp4[7] == 12);
  CHECK(mxfp4[15] == -12);
  CHECK(mxfp4[16] == -12);
  std::string bytes;
  for (int j = 0; j < 32; ++j)
    bytes += char(j - 16);
  const auto q8_0 = decoded("Q8_0", half + bytes);
  CHECK(q8_0[0] == -8);
  CHECK(q8_0[31] == 7.5f);
}

TEST_CASE("plain formats keep every number, NaN and infinity included") {
  const float big = std::numeric_limits<float>::infinity();
  CHECK(decoded("F32", raw(1.5f) + raw(-big)) == std::vector<float>{1.5f, -big});
  CHECK(decoded("F64", raw(0.1)) == std::vector<float>{0.1f});
  CHECK(decoded("F16", raw(std::uint16_t(0x0001)))[0] == std::ldexp(1.0f, -24));
  CHECK(decoded("BF16", raw(std::uint16_t(0xc000)))[0] == -2);
  CHECK(std::isnan(decoded("F16", raw(std::uint16_t(0x7e00)))[0]));
}

TEST_CASE("the tables of the IQ formats") {
  using namespace moe::quant;
  // every choice of numbers once
  const auto distinct = [](std::span<const std::uint16_t> grid) {
    std::vector<std::uint16_t> all(grid.begin(), grid.end());
    std::ranges::sort(all);
    return std::ranges::adjacent_find(all) == all.end();
  };
  using Grid = std::span<const std::uint16_t>;
  for (const Grid grid :
       {Grid(iq1_s_grid), Grid(iq2_xxs_grid), Grid(iq2_xs_grid), Grid(iq2_s_grid)}) {
    CHECK(distinct(grid));
    for (const std::uint16_t entry : grid) {
      for (int i = 0; i < 8; ++i)
        REQUIRE((entry >> (2 * i) & 3) < 3);
    }
  }
  CHECK(distinct(iq3_xxs_grid));
  CHECK(distinct(iq3_s_grid));
}

namespace {

// Sum over the numbers of random blocks, each weighed by its place; scales that are no numbers come
// out as 0.
double digest(const GgmlType& type) {
  const int blocks = 64;
  std::string bytes(std::size_t(blocks * type.bytes), '\0');
  Rng rng(7);
  for (char& b : bytes)
    b = char(rng.next() & 255);
  const std::vector<float> out = decoded(type.name, bytes);
  double sum = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double v = std::isfinite(out[i]) ? double(out[i]) : 0;
    sum += v / (1 + std::abs(v)) * double(i % 97 + 1);
  }
  return sum;
}

}  // namespace

// Recorded when every type agreed with the reference's values bit for bit.
TEST_CASE("random blocks of every format come out as recorded") {
  const std::map<std::string_view, double> recorded{
      {"F32", -240.12133063878673},     {"F16", 32.553991441134755},
      {"Q4_0", -1795.2553499042153},    {"Q4_1", 1595.1826628643062},
      {"Q5_0", 854.58208167142209},     {"Q5_1", -9423.7648755973642},
      {"Q8_0", -3420.3773852474178},    {"Q2_K", 50449.558602699086},
      {"Q3_K", 5351.2513533878646},     {"Q4_K", -22408.228757370842},
      {"Q5_K", 123269.09962603859},     {"Q6_K", 10276.752489526376},
      {"IQ2_XXS", -1797.0585940607873}, {"IQ2_XS", 8808.4786593968347},
      {"IQ3_XXS", -5974.2425309134323}, {"IQ1_S", -1029.1544011308172},
      {"IQ4_NL", -1126.8515765973432},  {"IQ3_S", 2267.6786104534672},
      {"IQ2_S", 2060.5595427069093},    {"IQ4_XS", 5257.1012498642658},
      {"F64", 47.016151043108202},      {"IQ1_M", -11517.33285888401},
      {"BF16", 96.027474783529698},     {"TQ1_0", -4447.354740491377},
      {"TQ2_0", 19450.960575994588},    {"MXFP4", -3476.1819850982629},
      {"NVFP4", -3832.402800553923},    {"Q1_0", -4322.6581833737664},
      {"Q2_0", -2682.9759357975322}};
  std::size_t seen = 0;
  for (const GgmlType& t : ggml_types()) {
    INFO(t.name);
    CHECK(can_dequantise(t) == (t.use == GgmlType::Use::weights));
    if (!can_dequantise(t))
      continue;
    ++seen;
    REQUIRE(recorded.count(t.name) == 1);
    CHECK(digest(t) == Approx(recorded.at(t.name)).epsilon(1e-12));
  }
  CHECK(seen == recorded.size());
}

TEST_CASE("only whole blocks of weights are decoded") {
  std::vector<float> out(31);
  const std::string bytes(34, '\0');
  const auto from = std::as_bytes(std::span(bytes));
  CHECK(outcome([&] { dequantise(type_named("Q8_0"), from, out); }).code == Exit::bug);
  out.resize(64);
  CHECK(outcome([&] { dequantise(type_named("Q8_0"), from, out); }).code == Exit::bug);
  CHECK(outcome([&] { dequantise(type_named("Q8_K"), from, out); }).code == Exit::bug);
}

TEST_CASE("every format equals the reference, bit for bit") {
  const auto path = shared("golden/gguf/dequant.h5");
  if (!fs::exists(path))
    return skip("no recorded values at " + path.string());
  const GoldenFile golden(path);
  int compared = 0;
  for (const std::string& name : golden.datasets()) {
    if (!name.ends_with("/raw"))
      continue;
    const std::string group = name.substr(0, name.size() - 4);
    INFO(group);
    std::string bytes;
    for (const std::int64_t b : golden.integers(name).values)
      bytes += char(b);
    const std::vector<float> got = decoded(group.substr(0, group.find('/')), bytes);
    const std::vector<double> want = golden.reals(group + "/values").values;
    REQUIRE(got.size() == want.size());
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      wrong += !(double(got[i]) == want[i] || (std::isnan(got[i]) && std::isnan(want[i])));
    CHECK(wrong == 0);
    ++compared;
  }
  CHECK(compared == 54);
}

TEST_CASE("the tables equal those of the reference") {
  using namespace moe::quant;
  const auto path = shared("golden/gguf/grids.h5");
  if (!fs::exists(path))
    return skip("no recorded values at " + path.string());
  const GoldenFile golden(path);
  const auto same = [&](const char* name, std::span<const std::uint16_t> grid, int bits,
                        const std::int8_t* levels) {
    INFO(name);
    const auto want = golden.integers(name);
    REQUIRE(want.dims[0] == Index(grid.size()));
    const Index each = want.dims[1];
    for (Index i = 0; i < want.size(); ++i) {
      const int place = grid[std::size_t(i / each)] >> (bits * int(i % each)) & ((1 << bits) - 1);
      REQUIRE(levels[place] == want.values[std::size_t(i)]);
    }
  };
  same("iq1_s", iq1_s_grid, 2, iq1_levels);
  same("iq2_xxs", iq2_xxs_grid, 2, iq2_levels);
  same("iq2_xs", iq2_xs_grid, 2, iq2_levels);
  same("iq2_s", iq2_s_grid, 2, iq2_levels);
  same("iq3_xxs", iq3_xxs_grid, 3, iq3_xxs_levels);
  same("iq3_s", iq3_s_grid, 3, iq3_s_levels);
}
