// Inputs that a fuzzer once broke a reader with (tests/fuzz/corpus/READER), and damaged small files
// of each kind: read or refused in a sentence. scripts/fuzz.sh looks for more.
#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/fuzz/readers.h"

namespace fs = std::filesystem;
using namespace moe::fuzz;

namespace {

std::vector<std::uint8_t> bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("inputs that once broke a reader are read or refused") {
  int tried = 0;
  for (const auto& folder :
       fs::directory_iterator(fs::path(MOE_SOURCE_DIR) / "tests/fuzz/corpus")) {
    const Reader* reader = find_reader(folder.path().filename().string());
    CAPTURE(folder.path().string());
    REQUIRE(reader);
    for (const auto& file : fs::directory_iterator(folder.path())) {
      CAPTURE(file.path().string());
      CHECK_NOTHROW(try_bytes(*reader, bytes_of(file.path())));
      ++tried;
    }
  }
  CHECK(tried > 0);
}

TEST_CASE("every reader refuses no bytes, one byte and a page of zeros") {
  for (const Reader& reader : readers()) {
    CAPTURE(std::string(reader.name));
    for (const std::size_t n : {0, 1, 4096})
      CHECK_NOTHROW(try_bytes(reader, std::vector<std::uint8_t>(n)));
  }
}
