#include "lib/signal/gif.h"

#include <algorithm>
#include <cctype>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr int colours = 3;
constexpr int clear_it = 2;  // and above: put back what was there

}  // namespace

double Gif::frames_a_second() const {
  Index sum = 0;
  for (const GifFrame& f : frame) {
    if (f.hundredths <= 0)
      return 0;
    sum += f.hundredths;
  }
  return sum > 0 ? 100.0 * double(frame.size()) / double(sum) : 0;
}

bool is_gif_name(const std::filesystem::path& path) {
  std::string ending = path.extension().string();
  std::ranges::transform(ending, ending.begin(),
                         [](unsigned char c) { return char(std::tolower(c)); });
  return ending == ".gif";
}

GifScreen::GifScreen(const Gif& gif) : gif_(gif) {
  const GifFrame& first = gif.frame.at(0);
  transparent_ = first.transparent >= 0;
  screen_.assign(std::size_t(gif.width) * std::size_t(gif.height),
                 shown(first, std::max(0, first.transparent)));
}

// The colour of a number; one that has none is black.
GifScreen::Pixel GifScreen::shown(const GifFrame& f, int number) const {
  Pixel out;
  const std::size_t first = std::size_t(number) * colours;
  for (std::size_t c = 0; c < colours; ++c) {
    if (f.colour.empty())
      out.colour[c] = std::uint8_t(number);
    else if (first + c < f.colour.size())
      out.colour[c] = f.colour[first + c];
  }
  out.seen = !transparent_ || number != f.transparent;
  return out;
}

GifScreen::Pixel GifScreen::cleared(const GifFrame& f) const {
  const int number = f.transparent >= 0 ? f.transparent : gif_.background;
  const bool there = f.colour.empty() || std::size_t(number) * colours + colours <= f.colour.size();
  Pixel out = shown(f, there ? number : 0);
  out.seen = !transparent_ || f.transparent < 0;
  return out;
}

GifScreen::Kept GifScreen::kept(const GifFrame& f) const {
  const bool first = next_ == 0;
  if (disposal_ < clear_it || (first && disposal_ > clear_it && f.transparent < 0))
    return {};
  Kept out{.frame = &f, .pixel = {}};
  if (first || disposal_ == clear_it) {
    out.pixel.assign(f.number.size(), cleared(f));
    return out;
  }
  for (int y = 0; y < f.height; ++y) {
    const auto row = screen_.begin() + std::ptrdiff_t(f.top + y) * gif_.width + f.left;
    out.pixel.insert(out.pixel.end(), row, row + f.width);
  }
  return out;
}

void GifScreen::draw(const GifFrame& f) {
  const bool first = next_ == 0;
  for (int y = 0; y < f.height; ++y) {
    for (int x = 0; x < f.width; ++x) {
      const int number = f.number[std::size_t(y) * std::size_t(f.width) + std::size_t(x)];
      if (first || number != f.transparent)
        at(f, y, x) = shown(f, number);
    }
  }
}

void GifScreen::next() {
  const GifFrame& f = gif_.frame.at(next_);
  for (std::size_t i = 0; i < kept_.pixel.size(); ++i) {
    const int width = kept_.frame->width;
    at(*kept_.frame, int(i) / width, int(i) % width) = kept_.pixel[i];
  }
  disposal_ = f.disposal > 0 ? f.disposal : disposal_;
  kept_ = kept(f);
  draw(f);
  ++next_;
}

Picture GifScreen::picture() const {
  Picture out{.height = gif_.height, .width = gif_.width, .channels = colours, .pixel = {}};
  out.pixel.reserve(screen_.size() * colours);
  for (const Pixel& p : screen_) {
    for (const std::uint8_t v : p.colour)
      out.pixel.push_back(p.seen ? v : std::uint8_t(255));
  }
  return out;
}

}  // namespace moe
