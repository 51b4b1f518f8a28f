#include "lib/signal/picture_file.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/signal/gif.h"

namespace moe {
namespace {

constexpr std::uint64_t most_pixels = std::uint64_t(1) << 26;
constexpr Index most_bytes = Index(1) << 30;  // of a file

std::string ending_of(const std::filesystem::path& path) {
  std::string out = path.extension().string();
  for (char& c : out)
    c = char(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool begins(std::span<const std::byte> bytes, std::string_view with) {
  return bytes.size() >= with.size() &&
         std::equal(with.begin(), with.end(), bytes.begin(),
                    [](char c, std::byte b) { return std::byte(c) == b; });
}

// The words and numbers at the front of a PPM or PGM, with # comments between.
class Front {
 public:
  Front(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}
  std::uint64_t number() {
    skip();
    std::uint64_t out = 0;
    const std::size_t first = at_;
    for (; at_ < bytes_.size() && std::isdigit(int(bytes_[at_])) && at_ - first < 10; ++at_)
      out = out * 10 + std::uint64_t(int(bytes_[at_]) - '0');
    if (at_ == first)
      bad_picture(name_, "PPM or PGM", "a number is missing in its header");
    return out;
  }
  // One blank follows the last number, then the pixels.
  std::span<const std::byte> rest() const {
    return at_ < bytes_.size() ? bytes_.subspan(at_ + 1) : std::span<const std::byte>();
  }

 private:
  void skip() {
    while (at_ < bytes_.size() && (std::isspace(int(bytes_[at_])) || bytes_[at_] == std::byte('#')))
      at_ = bytes_[at_] == std::byte('#') ? end_of_line() : at_ + 1;
  }
  std::size_t end_of_line() const {
    std::size_t at = at_;
    while (at < bytes_.size() && bytes_[at] != std::byte('\n'))
      ++at;
    return at;
  }

  std::span<const std::byte> bytes_;
  const std::string& name_;
  std::size_t at_ = 2;  // behind "P6"
};

}  // namespace

void bad_picture(const std::string& name, const char* format, const std::string& why) {
  throw Error(Exit::input, concat(name, " is no ", format, " that can be read: ", why))
      .hint("open it in an image viewer and save it again, or leave it out");
}

Picture picture_of(std::uint64_t width, std::uint64_t height, const std::string& name) {
  if (width == 0 || height == 0 || width > most_pixels || height > most_pixels / width) {
    throw Error(Exit::input, concat(name, " has ", width, " x ", height, " pixels, and 1 to ",
                                    most_pixels, " can be read"))
        .hint("a smaller picture");
  }
  Picture out{.height = int(height), .width = int(width), .channels = 3, .pixel = {}};
  out.pixel.resize(std::size_t(width * height * 3));
  return out;
}

Picture read_netpbm(std::span<const std::byte> bytes, const std::string& name) {
  const bool grey = begins(bytes, "P5");
  Front front(bytes, name);
  const std::uint64_t width = front.number();
  const std::uint64_t height = front.number();
  const std::uint64_t white = front.number();
  if (white < 1 || white > 255)
    bad_picture(name, "PPM or PGM", concat("white is ", white, ", and 1 to 255 can be read"));
  const auto pixels = front.rest();
  const std::uint64_t each = grey ? 1 : 3;
  // before room is made for what the header claims
  if (width > most_pixels || height > most_pixels || pixels.size() < width * height * each)
    bad_picture(name, "PPM or PGM",
                concat(pixels.size(), " bytes stand where ", width, " x ", height, " pixels are"));
  Picture out = picture_of(width, height, name);
  for (std::size_t i = 0; i < out.pixel.size(); ++i) {
    const std::uint64_t v = std::uint64_t(pixels[grey ? i / 3 : i]);
    out.pixel[i] = std::uint8_t(std::min(v, white) * 255 / white);
  }
  return out;
}

bool is_picture_name(const std::filesystem::path& path) {
  const std::string ending = ending_of(path);
  for (const char* known : {".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".gif"}) {
    if (ending == known)
      return true;
  }
  return false;
}

namespace {

Picture still_of(const Gif& gif, const std::string& name) {
  if (gif.frame.size() > 1) {
    throw Error(Exit::input, concat(name, " is a clip of ", gif.frame.size(),
                                    " frames, and one picture is wanted here"))
        .hint("a GIF of one frame; clips are read by published models that see them");
  }
  GifScreen screen(gif);
  screen.next();
  return screen.picture();
}

}  // namespace

Picture read_picture(const std::filesystem::path& path) {
  const std::string name = in_quotes(path);
  const std::string text = read_file(path, most_bytes);
  const auto bytes = std::as_bytes(std::span(text));
  if (begins(bytes, "\x89PNG"))
    return read_png(bytes, name);
  if (begins(bytes, "\xFF\xD8"))
    return read_jpeg(bytes, name);
  if (begins(bytes, "P6") || begins(bytes, "P5"))
    return read_netpbm(bytes, name);
  if (begins(bytes, "GIF8"))
    return still_of(read_gif(bytes, name), name);
  throw Error(Exit::input, concat(name, " is neither PNG, JPEG, GIF, PPM (P6) nor PGM (P5)"))
      .hint("convert it: ImageMagick's `convert x.webp x.png`");
}

namespace {

// What a pixel of the smaller picture covers along one side: from `first` up to but not including
// `last`, the ones at either end in part.
struct Stretch {
  double from, to;
  int first, last;
  double share(int pixel) const {
    return std::min(pixel + 1.0, to) - std::max(double(pixel), from);
  }
};
Stretch covered(int i, double step, int end) {
  const int first = int(i * step);
  const int last = std::clamp(int(std::ceil((i + 1) * step)), first + 1, end);
  return {i * step, (i + 1) * step, first, last};
}

}  // namespace

Picture square_of(const Picture& p, int side) {
  const int cut = std::min(p.height, p.width);
  const double step = double(cut) / side;
  const int top = (p.height - cut) / 2;
  const int left = (p.width - cut) / 2;
  const auto mean = [&](const Stretch& down, const Stretch& across, int c) {
    double sum = 0;
    double weight = 0;
    for (int y = down.first; y < down.last; ++y) {
      for (int x = across.first; x < across.last; ++x) {
        const double share = down.share(y) * across.share(x);
        sum += share * p.at(top + y, left + x, c);
        weight += share;
      }
    }
    return sum / weight;
  };
  Picture out{.height = side, .width = side, .channels = p.channels, .pixel = {}};
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      for (int c = 0; c < p.channels; ++c) {
        const double v = mean(covered(y, step, cut), covered(x, step, cut), c);
        out.pixel.push_back(std::uint8_t(std::clamp(v + 0.5, 0.0, 255.0)));
      }
    }
  }
  return out;
}

}  // namespace moe
