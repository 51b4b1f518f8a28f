// Files compressed with gzip and zstd: the same lines come out, several members follow one another,
// and what is cut off, damaged or followed by something else is refused in a sentence.
#include "lib/files/unpacked.h"

#include "lib/files/lines.h"
#include "tests/files/scratch.h"
#include "tests/packed_bytes.h"

using namespace moe;
using namespace moe::test;

namespace {

std::string unpacked(const std::filesystem::path& path, std::size_t step) {
  UnpackedFile file(path);
  std::string out;
  std::string part(step, '\0');
  while (const std::size_t n = file.read(part))
    out.append(part, 0, n);
  return out;
}

}  // namespace

TEST_CASE("compressed files are read as what they stand for, however much is asked for") {
  const Scratch folder;
  folder.put("a.gz", two_lines_gz());
  folder.put("a.zst", two_lines_zst());
  folder.put("two.gz", two_lines_gz() + two_lines_gz());
  folder.put("two.zst", two_lines_zst() + two_lines_zst());
  folder.put("plain.gz", "first line\nsecond line\n");
  const std::string text = "first line\nsecond line\n";
  for (const std::size_t step : {1, 3, 7, 4096}) {
    CHECK(unpacked(folder / "a.gz", step) == text);
    CHECK(unpacked(folder / "a.zst", step) == text);
    CHECK(unpacked(folder / "two.gz", step) == text + text);
    CHECK(unpacked(folder / "two.zst", step) == text + text);
    CHECK(unpacked(folder / "plain.gz", step) == text);
  }
  CHECK(UnpackedFile(folder / "a.gz").packed());
  CHECK_FALSE(UnpackedFile(folder / "plain.gz").packed());
}

TEST_CASE("a compressed file is read line by line") {
  const Scratch folder;
  folder.put("a.zst", many_lines_zst());
  LineReader lines(folder / "a.zst");
  std::string line;
  while (lines.next(line))
    REQUIRE(line == "a line of text");
  CHECK(lines.number() == 200'000);
}

TEST_CASE("every cut of a compressed file is refused, and nothing of it is taken for its end") {
  const Scratch folder;
  for (const std::string& whole : {two_lines_gz(), two_lines_zst()}) {
    for (std::size_t size = 4; size < whole.size(); ++size) {
      INFO(size << " of " << whole.size() << " bytes");
      folder.put("cut", whole.substr(0, size));
      CHECK_THAT(refusal([&] { unpacked(folder / "cut", 4096); }),
                 Catch::StartsWith("3: ") && Catch::Contains("is cut off"));
    }
  }
}

TEST_CASE("damaged bytes and bytes behind the end are refused") {
  const Scratch folder;
  int refused = 0;
  for (const std::string& whole : {two_lines_gz(), two_lines_zst()}) {
    for (std::size_t at = 4; at < whole.size(); ++at) {
      std::string other = whole;
      other[at] = char(other[at] ^ 0x55);
      folder.put("damaged", other);
      const std::string said = refusal([&] { unpacked(folder / "damaged", 4096); });
      CHECK(said.find('\n') == said.npos);
      refused += !said.empty();
    }
    folder.put("longer", whole + "more");
    CHECK_THAT(refusal([&] { unpacked(folder / "longer", 4096); }),
               Catch::Contains("is no whole") || Catch::Contains("is cut off"));
  }
  CHECK(refused > 40);  // gzip does not guard its time and system
}
