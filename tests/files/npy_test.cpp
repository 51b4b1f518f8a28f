// NumPy files: every whole-number type reads back, in pieces of any size, and a file that is not
// what it says is refused before it costs anything.
#include <catch2/catch.hpp>
#include <limits>
#include <numeric>

#include "lib/files/npy.h"
#include "tests/files/scratch.h"

using namespace moe;
using moe::test::refusal;
using moe::test::Scratch;

namespace {

// magic, version 1.0, length of the header, the header
std::string header(const std::string& dictionary, int version = 1) {
  std::string out = "\x93NUMPY";
  out += char(version);
  out += char(0);
  for (int i = 0; i < (version > 1 ? 4 : 2); ++i)
    out += char(dictionary.size() >> (8 * i) & 255);
  return out + dictionary;
}
std::string dictionary(const std::string& type, const std::string& shape,
                       const std::string& fortran = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
}
template <class T>
std::string npy(const std::string& type, const std::string& shape, const std::vector<T>& values) {
  return header(dictionary(type, shape))
      .append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::vector<std::int64_t> read_all(const std::filesystem::path& path, std::size_t at_once) {
  NpyFile file(path);
  std::vector<std::int64_t> out, part(at_once);
  while (const std::size_t n = file.read(part))
    out.insert(out.end(), part.begin(), part.begin() + std::ptrdiff_t(n));
  return out;
}

template <class T>
void reads_back(const Scratch& folder, const std::string& type) {
  CAPTURE(type);
  const std::vector<T> values = {0, 1, std::numeric_limits<T>::max(), std::numeric_limits<T>::min(),
                                 7};
  folder.put("a.npy", npy(type, "(5,)", values));
  const std::vector<std::int64_t> want(values.begin(), values.end());
  for (const std::size_t at_once : {1, 2, 5, 100})
    CHECK(read_all(folder / "a.npy", at_once) == want);
}

}  // namespace

TEST_CASE("whole numbers of every type read back, however many at once") {
  const Scratch folder;
  reads_back<std::uint8_t>(folder, "|u1");
  reads_back<std::int8_t>(folder, "|i1");
  reads_back<std::uint16_t>(folder, "<u2");
  reads_back<std::int16_t>(folder, "<i2");
  reads_back<std::uint32_t>(folder, "<u4");
  reads_back<std::int32_t>(folder, "<i4");
  reads_back<std::int64_t>(folder, "<i8");
}

TEST_CASE("a file larger than the buffer reads in order") {
  const Scratch folder;
  std::vector<std::uint32_t> values(300'001);
  std::iota(values.begin(), values.end(), 5u);
  folder.put("a.npy", npy("<u4", "(300001,)", values));
  CHECK(read_all(folder / "a.npy", 77'777) ==
        std::vector<std::int64_t>(values.begin(), values.end()));
}

TEST_CASE("the header says type, shape and where the numbers begin") {
  const Scratch folder;
  folder.put("a.npy", npy<std::int16_t>("<i2", "(2, 3)", {1, 2, 3, 4, 5, 6}));
  const NpyHeader h = NpyFile(folder / "a.npy").header();
  CHECK(h.type == "<i2");
  CHECK(h.kind == 'i');
  CHECK(h.width == 2);
  CHECK(h.shape == std::vector<Index>{2, 3});
  CHECK(h.numbers == 6);
  CHECK(h.data_at + 12 == Index(std::filesystem::file_size(folder / "a.npy")));

  // version 2 has four bytes of length; a scalar has no dimension; a length may be 0
  folder.put("b.npy", header(dictionary("<u2", "()"), 2) + std::string("\x05\x00", 2));
  CHECK(NpyFile(folder / "b.npy").header().shape.empty());
  CHECK(read_all(folder / "b.npy", 4) == std::vector<std::int64_t>{5});
  folder.put("c.npy", header(dictionary("<u2", "(3, 0)")));
  CHECK(read_all(folder / "c.npy", 4).empty());
}

TEST_CASE("a NumPy file that is not what it says is refused by name") {
  const Scratch folder;
  const std::string good = npy<std::uint16_t>("<u2", "(2,)", {1, 2});
  const auto says = [&](const std::string& bytes, const std::string& part) {
    folder.put("x.npy", bytes);
    const std::string what = refusal([&] { read_all(folder / "x.npy", 10); });
    INFO(what);
    CHECK(what.starts_with("3: '" + (folder / "x.npy").native() + "' "));
    CHECK(what.find(part) != what.npos);
    CHECK(what.find("[no hint]") == what.npos);
  };
  // cut anywhere
  for (std::size_t n = 0; n < good.size(); ++n) {
    CAPTURE(n);
    says(good.substr(0, n), n < 10                ? "is not a NumPy file"
                            : n < good.size() - 4 ? "ends inside its NumPy header"
                                                  : "bytes behind its header");
  }
  says(good + "x", "has 5 bytes behind its header");
  says("PK\x03\x04 this is an npz archive", "is not a NumPy file");
  // a header of 4 GB that is not there, and one that is there and too long
  says(std::string("\x93NUMPY\x02\x00\xFF\xFF\xFF\xFF", 12), "its NumPy header has 4294967295");
  says(header(dictionary("<u2", "(2,)") + std::string(70'000, ' '), 2), "header has 70");
  // types
  says(npy<float>("<f4", "(1,)", {std::numeric_limits<float>::quiet_NaN()}), "the type '<f4'");
  says(npy<double>("<f8", "(1,)", {std::numeric_limits<double>::quiet_NaN()}), "the type '<f8'");
  says(npy<std::uint16_t>(">u2", "(1,)", {1}), "the type '>u2'");
  says(npy<std::uint8_t>("|b1", "(1,)", {1}), "the type '|b1'");
  says(npy<std::uint8_t>("<i16", "(1,)", std::vector<std::uint8_t>(16)), "the type '<i16'");
  says(npy<std::uint8_t>("<u-2", "(1,)", {1}), "the type '<u-2'");
  says(npy<std::uint8_t>("", "(1,)", {1}), "the type ''");
  says(npy<std::uint8_t>("|O", "(1,)", {1}), "Python objects (dtype object)");
  says(header("{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (1,), }"), "the type [");
  says(npy<std::uint64_t>("<u8", "(2,)", {1, ~std::uint64_t(0)}), "18446744073709551615 at");
}

TEST_CASE("a NumPy file whose shape or keys say nothing is refused by name") {
  const Scratch folder;
  const auto says = [&](const std::string& bytes, const std::string& part) {
    folder.put("x.npy", bytes);
    const std::string what = refusal([&] { read_all(folder / "x.npy", 10); });
    INFO(what);
    CHECK(what.starts_with("3: '" + (folder / "x.npy").native() + "' "));
    CHECK(what.find(part) != what.npos);
    CHECK(what.find("[no hint]") == what.npos);
  };
  // shapes: too large to count, negative, no number
  says(npy<std::uint16_t>("<u2", "(4611686018427387904, 4)", {1}), "bytes behind its header");
  says(npy<std::uint16_t>("<u2", "(9223372036854775807,)", {1}), "bytes behind its header");
  says(npy<std::uint16_t>("<u2", "(99999999999999999999,)", {1}), "the shape");
  says(npy<std::uint16_t>("<u2", "(-1,)", {1}), "the shape (-1,)");
  says(npy<std::uint16_t>("<u2", "(1x,)", {1}), "the shape (1x,)");
  says(npy<std::uint16_t>("<u2", "7", {1}), "the shape 7");
  says(npy<std::uint16_t>("<u2", "(7", {1}), "cut short");
  // keys
  says(header("{'fortran_order': False, 'shape': (1,), }"), "no 'descr'");
  says(header("{'descr':      "), "cut short");
  says(header("{'descr': '<u2', 'fortran_order': False, }"), "no 'shape'");
  says(header(dictionary("<u2", "(2, 1)", "True")), "column by column");
}

TEST_CASE("a NumPy file that is missing or a folder is refused") {
  const Scratch folder;
  CHECK(refusal([&] { NpyFile(folder / "none.npy"); }).find("No such file") != std::string::npos);
  CHECK(refusal([&] { NpyFile(folder / "."); }).find("not a regular file") != std::string::npos);
}
