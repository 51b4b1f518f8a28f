// Zip files and NumPy headers that are written here are read by our own readers, in the form for
// small files and in the 64-bit form.
#include <catch2/catch.hpp>

#include "lib/core/error.h"
#include "lib/files/npy.h"
#include "lib/files/npy_write.h"
#include "lib/files/zip.h"
#include "lib/files/zip_write.h"
#include "tests/files/scratch.h"

using namespace moe;

namespace {

std::filesystem::path write_zip(const std::filesystem::path& path, Index narrow) {
  OutputFile file(path);
  ZipWriter zip(file, narrow);
  zip.begin("a.npy", 5);
  zip.write("he");
  zip.write("llo");
  zip.begin("empty", 0);
  zip.begin("b", 3);
  zip.write("abc");
  zip.finish();
  file.commit();
  return path;
}

}  // namespace

TEST_CASE("a zip file that was written in one pass is read back") {
  const test::Scratch folder;
  for (const Index narrow : {Index(0xFFFFFFFE), Index(4), Index(0)}) {
    INFO("narrow " << narrow);
    ZipFile zip(write_zip(folder / "a.zip", narrow));
    REQUIRE(zip.entries().size() == 3);
    CHECK(zip.read(*zip.find("a.npy")).text() == "hello");
    CHECK(zip.read(*zip.find("empty")).text().empty());
    CHECK(zip.read(*zip.find("b")).text() == "abc");
  }
}

TEST_CASE("an entry of a zip file gets the bytes that were said") {
  const test::Scratch folder;
  OutputFile file(folder / "a.zip");
  ZipWriter zip(file);
  zip.begin("a", 2);
  CHECK_THROWS_AS(zip.write("abc"), Error);
  zip.write("a");
  CHECK_THROWS_AS(zip.begin("b", 1), Error);
}

TEST_CASE("heads of NumPy arrays are read back, and are whole lines of 64 bytes") {
  for (const std::vector<Index>& shape :
       {std::vector<Index>{}, {3}, {2, 3}, {1, 2, 3}, {123'456'789, 61, 8}}) {
    const std::string head = npy_head("<i2", shape);
    CHECK(head.size() % 64 == 0);
    CHECK(head.back() == '\n');
    Index numbers = 1;
    for (const Index n : shape)
      numbers *= n;
    if (numbers > 100)
      continue;
    const NpyHeader h = npy_header(head + std::string(std::size_t(numbers) * 2, '\0'), "a");
    CHECK(h.shape == shape);
    CHECK(h.type == "<i2");
  }
}

TEST_CASE("text becomes characters, and bytes that are none are replaced") {
  CHECK(npy_characters("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80") == U"a\u00E9\u20AC\U0001F600");
  CHECK(npy_characters("\xC3(\xFF") == U"\uFFFD(\uFFFD");
}
