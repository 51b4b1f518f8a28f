// Clips from files: folders of numbered pictures, arrays of bytes, and what is neither.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/signal/clip_file.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / concat("moe-clips-", ::getpid());
  Folder() {
    fs::remove_all(path);
    fs::create_directories(path / "walk.clip");
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

// One pixel of that level of grey.
void write_grey(const fs::path& path, int level) {
  std::ofstream(path, std::ios::binary) << "P5\n1 1\n255\n" << char(level);
}

void write_npy(const fs::path& path, const std::string& type, const std::string& shape,
               const std::string& data) {
  std::string header =
      concat("{'descr': '", type, "', 'fortran_order': False, 'shape': ", shape, "}");
  header.resize(117, ' ');
  header += '\n';
  std::ofstream out(path, std::ios::binary);
  out << std::string("\x93NUMPY\x01\x00", 8) << char(header.size()) << char(0) << header << data;
}

}  // namespace

TEST_CASE("the frames of a clip come by the numbers in their names") {
  const Folder f;
  write_grey(f.path / "walk.clip" / "frame-10.pgm", 30);
  write_grey(f.path / "walk.clip" / "frame-9.pgm", 20);
  write_grey(f.path / "walk.clip" / "frame-2.pgm", 10);
  std::ofstream(f.path / "walk.clip" / "notes.txt") << "no frame";
  const ClipFile clip(f.path / "walk.clip");
  REQUIRE(clip.frames() == 3);
  CHECK(clip.size().height == 1);
  const std::vector<int> all{0, 1, 2, 2};
  const std::vector<Picture> read = clip.read(all);
  REQUIRE(read.size() == 4);
  CHECK(read[0].at(0, 0, 0) == 10);
  CHECK(read[1].at(0, 0, 0) == 20);
  CHECK(read[3].at(0, 0, 0) == 30);
}

TEST_CASE("an array of bytes is a clip, row by row") {
  const Folder f;
  write_npy(f.path / "a.npy", "|u1", "(2, 1, 2, 3)", "abcdefghijkl");
  const ClipFile clip(f.path / "a.npy");
  CHECK(clip.frames() == 2);
  CHECK(clip.size().width == 2);
  const std::vector<int> second{1};
  const Picture p = clip.read(second).at(0);
  CHECK(p.at(0, 0, 0) == 'g');
  CHECK(p.at(0, 1, 2) == 'l');
}

TEST_CASE("what is no clip is refused by its name") {
  const Folder f;
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(ClipFile(f.path / "walk.clip"),
                    Contains("walk.clip") && Contains("holds no frames"));
  write_npy(f.path / "a.npy", "<f4", "(1, 1, 1, 3)", std::string(12, 'x'));
  CHECK_THROWS_WITH(ClipFile(f.path / "a.npy"), Contains("1 x 1 x 1 x 3") && Contains("<f4"));
  write_npy(f.path / "a.npy", "|u1", "(4, 3)", std::string(12, 'x'));
  CHECK_THROWS_WITH(ClipFile(f.path / "a.npy"), Contains("4 x 3") && Contains("no clip"));
  write_npy(f.path / "a.npy", "|u1", "(4, 1, 1, 3)", std::string(11, 'x'));
  CHECK_THROWS_WITH(ClipFile(f.path / "a.npy"), Contains("a.npy"));
  write_grey(f.path / "walk.clip" / "1.pgm", 1);
  std::ofstream(f.path / "walk.clip" / "2.pgm") << "P5";
  const ClipFile broken(f.path / "walk.clip");
  const std::vector<int> second{1};
  CHECK_THROWS_WITH(broken.read(second), Contains("2.pgm"));
}
