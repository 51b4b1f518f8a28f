// Pictures and sounds from files: what is read, and that what is damaged, cut off or larger than it
// can be ends in a sentence that names the file.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numbers>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/signal/picture_file.h"
#include "lib/signal/sound_file.h"
#include "tests/skip.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

// Red, green; blue, (10,20,30).
const std::string png =
    "89504e470d0a1a0a0000000d4948445200000002000000020802000000fdd49a73000000134944415478da63f8cf"
    "c0c000c20cffb944e4001a58033ae2926ed90000000049454e44ae426082";
// Red, and nothing.
const std::string png_with_alpha =
    "89504e470d0a1a0a0000000d4948445200000002000000010806000000f4227f8a0000000f4944415478da63f8cf"
    "c000440c0c000cfc01ffe586a8d20000000049454e44ae426082";
// 8 x 8 of grey, 200 on the left and 40 on the right.
const std::string jpeg =
    "ffd8ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c0b0a0b0b0d0e12100d"
    "0e110e0b0b1016101113141515150c0f171816141812141514ffc0000b080008000801011100ffc4001400010000"
    "0000000000000000000000000005ffc40018100002030000000000000000000000000000094785c4ffda00080101"
    "00003f0029914776394fffd9";

std::string bytes_of(const std::string& hex) {
  std::string out;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    out += char(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

class Written {
 public:
  Written(const std::string& name, const std::string& bytes)
      : path_(fs::temp_directory_path() / concat("moe-signal-", ::getpid(), "-", name)) {
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  ~Written() {
    fs::remove(path_);
  }
  const fs::path& path() const {
    return path_;
  }

 private:
  fs::path path_;
};

// "3: sentence" without the file's name; "" where nothing is refused.
template <class Read>
std::string refusal(const std::string& bytes, Read read) {
  const Written file("file", bytes);
  try {
    read(file.path());
  } catch (const Error& e) {
    CHECK(!e.hint().empty());
    const std::string text = e.what();
    const std::string name = "'" + file.path().string() + "' ";
    CHECK(text.starts_with(name));
    return concat(int(e.code()), ": ", text.substr(std::min(name.size(), text.size())));
  }
  return "";
}
// Whether this program was built with what reads such files; if not, the test is skipped.
template <class Read>
bool can_read(const std::string& bytes, Read read) {
  const Written file("can", bytes);
  try {
    read(file.path());
  } catch (const Error& e) {
    CHECK(e.code() == Exit::environment);
    test::skip(e.what());
    return false;
  }
  return true;
}
bool can_read_pictures() {
  const auto read = [](const fs::path& path) {
    read_picture(path);
  };
  return can_read(bytes_of(png), read) && can_read(bytes_of(jpeg), read);
}

std::string refused_picture(const std::string& bytes) {
  return refusal(bytes, [](const fs::path& path) { read_picture(path); });
}

std::string number(std::uint32_t v, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i)
    out += char(v >> (8 * i));
  return out;
}

// 16 bits a sample, two channels that cancel but for half of a tone.
std::string wav(double hz, int rate, double seconds, std::uint32_t claimed = 0) {
  std::string samples;
  for (int i = 0; i < int(rate * seconds); ++i) {
    const int v = int(12000 * std::sin(2 * std::numbers::pi * hz * i / rate));
    samples += number(std::uint32_t(v), 2) + number(0, 2);
  }
  const std::uint32_t size = claimed ? claimed : std::uint32_t(samples.size());
  return "RIFF" + number(36 + size, 4) + "WAVEfmt " + number(16, 4) + number(1, 2) + number(2, 2) +
         number(std::uint32_t(rate), 4) + number(std::uint32_t(rate) * 4, 4) + number(4, 2) +
         number(16, 2) + "data" + number(size, 4) + samples;
}

}  // namespace

TEST_CASE("PNG, JPEG and PPM become red, green and blue") {
  const auto pixels = [](const std::string& name, const std::string& bytes) {
    const Written file(name, bytes);
    return read_picture(file.path());
  };
  if (can_read_pictures()) {
    const Picture p = pixels("a.png", bytes_of(png));
    CHECK(p.height == 2);
    CHECK(p.width == 2);
    CHECK(p.pixel == std::vector<std::uint8_t>{255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30});
    CHECK(pixels("b.png", bytes_of(png_with_alpha)).pixel ==
          std::vector<std::uint8_t>{255, 0, 0, 255, 255, 255});
    const Picture grey = pixels("c.jpg", bytes_of(jpeg));
    CHECK(grey.height == 8);
    for (int y = 0; y < 8; ++y) {
      for (int c = 0; c < 3; ++c) {
        CHECK(std::abs(int(grey.at(y, 1, c)) - 200) < 8);
        CHECK(std::abs(int(grey.at(y, 6, c)) - 40) < 8);
      }
    }
  }
  CHECK(pixels("d.ppm", "P6 # a comment\n2 1\n100\n\x64\x32\x01\x02\x03\x04").pixel ==
        std::vector<std::uint8_t>{255, 127, 2, 5, 7, 10});
  CHECK(pixels("e.pgm", "P5\n1 2\n255\n\x07\x09").pixel ==
        std::vector<std::uint8_t>{7, 7, 7, 9, 9, 9});
  CHECK(is_picture_name("x/Y.JPG"));
  CHECK_FALSE(is_picture_name("x.txt"));
}

TEST_CASE("pictures that are none, damaged, cut off or too large are refused by name") {
  CHECK(refused_picture("RIFF").starts_with("3: is neither PNG, JPEG, GIF, PPM (P6) nor PGM (P5)"));
  CHECK(refused_picture("").starts_with("3: is neither"));
  CHECK(refused_picture("P6 2 2 255\nabc") ==
        "3: is no PPM or PGM that can be read: 3 bytes stand where 2 x 2 pixels are");
  CHECK(refused_picture("P6 2 2 70000\nabc") ==
        "3: is no PPM or PGM that can be read: white is 70000, and 1 to 255 can be read");
  CHECK(refused_picture("P5 x") ==
        "3: is no PPM or PGM that can be read: a number is missing in "
        "its header");
  CHECK(refused_picture("P6 999999999 999999999 255\n").starts_with("3: is no PPM or PGM"));
  CHECK(refused_picture("P6 0 3 255\n").starts_with("3: has 0 x 3 pixels"));
  if (!can_read_pictures())
    return;
  const std::string whole = bytes_of(png);
  for (std::size_t n = 8; n + 12 < whole.size(); n += 7) {
    INFO(n);
    CHECK(refused_picture(whole.substr(0, n)).starts_with("3: is no PNG that can be read: "));
  }
  std::string huge = whole;
  huge[16] = huge[20] = '\x7f';  // width and height, whose checksum then is wrong too
  CHECK(refused_picture(huge).starts_with("3: "));
  const std::string photo = bytes_of(jpeg);
  for (std::size_t n = 2; n + 4 < photo.size(); n += 7) {
    INFO(n);
    CHECK(refused_picture(photo.substr(0, n)).starts_with("3: is no JPEG that can be read: "));
  }
}

TEST_CASE("damaged pictures never do more than be refused") {
  if (!can_read_pictures())
    return;
  for (const std::string& whole : {bytes_of(png), bytes_of(png_with_alpha), bytes_of(jpeg)}) {
    for (std::size_t at = 2; at < whole.size(); ++at) {
      for (const int bit : {0, 4, 7}) {
        std::string bytes = whole;
        bytes[at] = char(bytes[at] ^ (1 << bit));
        const std::string told = refused_picture(bytes);
        CHECK((told.empty() || told.starts_with("3: ")));
      }
    }
  }
}

TEST_CASE("a square is cut from the middle and each of its pixels is a mean") {
  Picture p{.height = 4, .width = 6, .channels = 1, .pixel = {}};
  for (int i = 0; i < 24; ++i)
    p.pixel.push_back(std::uint8_t(10 * (i % 6) + i / 6));
  const Picture half = square_of(p, 2);
  CHECK(half.pixel == std::vector<std::uint8_t>{16, 36, 18, 38});
  CHECK(square_of(p, 4).pixel[0] == 10);
  const Picture larger = square_of(p, 8);
  CHECK(larger.pixel[0] == 10);
  CHECK(larger.pixel[7] == 40);
  const Picture odd = square_of(p, 3);
  CHECK(odd.pixel.size() == 9);
  CHECK(odd.pixel[4] == 27);
}

TEST_CASE("sounds become one channel of 16 kHz, and damaged ones are refused by name") {
  const auto heard = [](const std::string& bytes, double seconds) {
    const Written file("a.wav", bytes);
    return read_sound(file.path(), seconds);
  };
  if (!can_read(wav(500, 16000, 0.1), [](const fs::path& path) { read_sound(path, 1); }))
    return;
  const std::vector<float> samples = heard(wav(500, 22050, 0.5), 10);
  CHECK(samples.size() == 8000);
  double error = 0;
  for (std::size_t i = 400; i < 7600; ++i) {
    const double want = 6000.0 / 32768 * std::sin(2 * std::numbers::pi * 500 * double(i) / 16000);
    error = std::max(error, std::abs(double(samples[i]) - want));
  }
  CHECK(error < 1e-3);
  // 11 kHz does not fit into 16 kHz, and comes back as nothing rather than as 5 kHz
  const std::vector<float> high = heard(wav(11000, 44100, 0.2), 1);
  double loudest = 0;  // but where the tone begins and ends
  for (std::size_t i = 100; i + 100 < high.size(); ++i)
    loudest = std::max(loudest, std::abs(double(high[i])));
  CHECK(loudest < 0.02);
  CHECK(heard(wav(500, 16000, 0.5), 0.1).size() == 1600);
  // a header that claims more than there is
  CHECK(heard(wav(500, 16000, 0.1, 0x7fffff00), 1e6).size() == 1600);
  const auto refused = [](const std::string& bytes) {
    return refusal(bytes, [](const fs::path& path) { read_sound(path, 1); });
  };
  CHECK(refused("no sound").starts_with("3: is no sound that can be read: "));
  CHECK(refused("").starts_with("3: is no sound that can be read: "));
  CHECK(refused(wav(500, 16000, 0)).starts_with("3: holds no sound"));
  const std::string whole = wav(500, 16000, 0.02);
  for (std::size_t at = 0; at < 44; ++at) {
    for (const int bit : {0, 3, 7}) {
      std::string bytes = whole;
      bytes[at] = char(bytes[at] ^ (1 << bit));
      const std::string told = refused(bytes);
      CHECK((told.empty() || told.starts_with("3: ")));
    }
  }
  CHECK(is_sound_name("x.FLAC"));
  CHECK_FALSE(is_sound_name("x.txt"));
}

namespace {

// The windowed sinc as it is defined, one sample after the other.
float at_other_rate(const std::vector<float>& x, double at, double cut) {
  const double reach = 16 / cut;
  const auto first = std::size_t(std::max(0.0, std::ceil(at - reach)));
  const auto last = std::min(x.size(), std::size_t(at + reach) + 1);
  double sum = 0;
  for (std::size_t n = first; n < last; ++n) {
    const double away = double(n) - at;
    const double a = std::numbers::pi * (cut * away);
    const double sinc = std::abs(a) < 1e-9 ? 1 : std::sin(a) / a;
    const double window = 0.5 + 0.5 * std::cos(std::numbers::pi * away / reach);
    sum += double(x[n]) * cut * sinc * window;
  }
  return float(sum);
}

}  // namespace

TEST_CASE("a sound at another rate is the windowed sinc, to the bit") {
  Rng rng(4);
  std::vector<float> x(20000);
  for (float& v : x)
    v = float(0.3 * rng.normal());
  for (const int from : {8000, 11025, 22050, 44100, 44101, 48000, 96000}) {
    const double step = double(from) / 16000;
    const std::vector<float> y = resampled(x, from, 16000);
    REQUIRE(y.size() == std::size_t(double(x.size()) / step));
    int differing = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      differing += y[i] != at_other_rate(x, double(i) * step, std::min(1.0, 1 / step));
    CAPTURE(from);
    CHECK(differing == 0);
  }
  CHECK(resampled({}, 44100, 16000).empty());
}
