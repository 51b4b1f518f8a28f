// GIFs: frames as Pillow composes them (recorded by tests/peers/record_gifs.py), what is a clip and
// what a picture, and files that are cut off or lie.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/signal/clip_file.h"
#include "lib/signal/picture_file.h"
#include "tests/skip.h"

using namespace moe;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

struct Case {
  const char *file, *shown;
};
const Case cases[] = {
#include "tests/signal/gif_cases.inc"
};

std::string bytes_of(const std::string& hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(char(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return out;
}

struct File {
  fs::path path = fs::temp_directory_path() / concat("moe-gif-", ::getpid(), ".gif");
  explicit File(const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  ~File() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
};

Gif read(const std::string& bytes) {
  return read_gif(std::as_bytes(std::span(bytes)), "'x.gif'");
}

// Whether this program was built with giflib.
bool has_giflib() {
  try {
    read(bytes_of(cases[0].file));
  } catch (const Error& e) {
    return e.code() != Exit::environment;
  }
  return true;
}

// One frame of one pixel of that colour number, shown for so long.
std::string frame(int number, const std::string& hundredths = "0400") {
  return bytes_of(concat("21f90400", hundredths, "0000", "2c0000000001000100000202",
                         number == 0 ? "44" : "4c", "0100"));
}
const std::string screen = bytes_of("47494638396101000100800000102030405060");

}  // namespace

TEST_CASE("frames of a GIF are those that Pillow composes") {
  if (!has_giflib()) {
    test::skip("built without giflib");
    return;
  }
  int frames = 0;
  for (const Case& c : cases) {
    const File file(bytes_of(c.file));
    const ClipFile clip(file.path);
    std::vector<int> all;
    for (int i = 0; i < clip.frames(); ++i)
      all.push_back(i);
    std::string got;
    for (const Picture& p : clip.read(all))
      got.append(p.pixel.begin(), p.pixel.end());
    INFO(c.file);
    CHECK(got == bytes_of(c.shown));
    frames += clip.frames();
    // frames that are asked for again, and out of order
    const std::vector<int> some{clip.frames() - 1, 0, 0};
    const auto picked = clip.read(some);
    const std::size_t size = picked[0].pixel.size();
    CHECK(std::string(picked[2].pixel.begin(), picked[2].pixel.end()) == got.substr(0, size));
    CHECK(std::string(picked[0].pixel.begin(), picked[0].pixel.end()) ==
          got.substr(got.size() - size));
  }
  CHECK(frames > 30);
}

TEST_CASE("a GIF of one frame is a picture, of several a clip with a rate") {
  if (!has_giflib()) {
    test::skip("built without giflib");
    return;
  }
  const File still(screen + frame(1) + ";");
  CHECK(is_clip_name(still.path));
  CHECK_FALSE(as_clip(still.path));
  CHECK(read_picture(still.path).pixel == std::vector<std::uint8_t>{0x40, 0x50, 0x60});
  const File moving(screen + frame(0) + frame(1, "0c00") + ";");
  CHECK(as_clip(moving.path));
  CHECK(ClipFile(moving.path).frames_a_second() == Approx(200.0 / 16));
  CHECK_THROWS_WITH(read_picture(moving.path), Contains("is a clip of 2 frames"));
  const File silent(screen + frame(0) + frame(1, "0000") + ";");
  CHECK(ClipFile(silent.path).frames_a_second() == 0);
}

TEST_CASE("GIFs that are damaged are refused by name") {
  if (!has_giflib()) {
    test::skip("built without giflib");
    return;
  }
  const auto why = [](const std::string& bytes) {
    try {
      read(bytes);
    } catch (const Error& e) {
      CHECK(e.code() == Exit::input);
      return std::string(e.what());
    }
    return std::string("read");
  };
  const std::string whole = screen + frame(0) + frame(1) + ";";
  CHECK(why(whole) == "read");
  for (std::size_t length = 0; length < whole.size(); ++length)
    CHECK_THAT(why(whole.substr(0, length)), Contains("'x.gif' is no GIF that can be read: "));
  CHECK_THAT(why(screen + ";"), Contains("it has no frames"));
  std::string outside = whole;
  outside[screen.size() + 8 + 5] = 2;  // the width of the first frame
  CHECK_THAT(why(outside), Contains("a frame of it is not inside its screen"));
  std::string wide = whole;
  wide[6] = wide[7] = wide[8] = wide[9] = char(255);
  CHECK_THAT(why(wide), Contains("65535 x 65535 pixels"));
}
