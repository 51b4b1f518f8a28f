// GIF by giflib, record by record: sizes are checked before room is made for what a file claims.
#include "lib/signal/gif.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include <gif_lib.h>

#include "lib/core/text.h"
#include "lib/signal/picture_file.h"

namespace moe {
namespace {

constexpr std::size_t most_numbers = std::size_t(1) << 30;
constexpr int steps = 4;  // in which the rows of an interlaced frame come (GIF89a, appendix E)
constexpr int step_from[steps] = {0, 4, 2, 1};
constexpr int step_by[steps] = {8, 8, 4, 2};

struct Bytes {
  std::span<const std::byte> left;
};

int take(GifFileType* file, GifByteType* to, int count) {
  auto& bytes = *static_cast<Bytes*>(file->UserData);
  const std::size_t n = std::min(bytes.left.size(), std::size_t(std::max(0, count)));
  std::memcpy(to, bytes.left.data(), n);
  bytes.left = bytes.left.subspan(n);
  return int(n);
}

void close(GifFileType* file) {
  int ignored = 0;
  DGifCloseFile(file, &ignored);
}

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& name)
      : name_(name), bytes_{bytes}, file_(nullptr, close) {
    int error = 0;
    file_.reset(DGifOpen(&bytes_, take, &error));
    if (!file_)
      fail(error);
  }
  Gif read();

 private:
  [[noreturn]] void fail(int error) const {
    const char* why = GifErrorString(error);
    bad_picture(name_, "GIF", why ? why : "it is damaged");
  }
  void check(int result) const {
    if (result == GIF_ERROR)
      fail(file_->Error);
  }
  void read_extension(GifFrame& next);
  void read_frame(GifFrame&);
  void read_row(GifFrame& f, int y) {
    check(DGifGetLine(file_.get(), f.number.data() + std::ptrdiff_t(y) * f.width, f.width));
  }

  const std::string& name_;
  Bytes bytes_;
  std::unique_ptr<GifFileType, decltype(&close)> file_;
  std::size_t numbers_ = 0;  // of all frames so far
};

// What stands before a frame and is of it: how long it is shown, what is transparent, what becomes
// of its place.
void Reader::read_extension(GifFrame& next) {
  int code = 0;
  GifByteType* block = nullptr;
  check(DGifGetExtension(file_.get(), &code, &block));
  if (code == GRAPHICS_EXT_FUNC_CODE && block && block[0] >= 4) {
    next.disposal = block[1] >> 2 & 7;
    next.hundredths = block[2] | block[3] << 8;
    if (block[1] & 1)
      next.transparent = block[4];
  }
  while (block)
    check(DGifGetExtensionNext(file_.get(), &block));
}

void Reader::read_frame(GifFrame& f) {
  check(DGifGetImageDesc(file_.get()));
  const GifImageDesc& image = file_->Image;
  f.left = image.Left;
  f.top = image.Top;
  f.width = image.Width;
  f.height = image.Height;
  const bool inside = f.left >= 0 && f.top >= 0 && f.width > 0 && f.height > 0 &&
                      f.left + f.width <= file_->SWidth && f.top + f.height <= file_->SHeight;
  if (!inside)
    bad_picture(name_, "GIF", "a frame of it is not inside its screen");
  const std::size_t count = std::size_t(f.width) * std::size_t(f.height);
  numbers_ += count;
  if (numbers_ > most_numbers)
    bad_picture(name_, "GIF", "its frames have more than 1,073,741,824 pixels");
  if (const ColorMapObject* map = image.ColorMap ? image.ColorMap : file_->SColorMap) {
    for (int i = 0; i < map->ColorCount; ++i) {
      const GifColorType& c = map->Colors[i];
      f.colour.insert(f.colour.end(), {c.Red, c.Green, c.Blue});
    }
  }
  f.number.resize(count);
  if (!image.Interlace) {
    for (int y = 0; y < f.height; ++y)
      read_row(f, y);
    return;
  }
  for (int step = 0; step < steps; ++step) {
    for (int y = step_from[step]; y < f.height; y += step_by[step])
      read_row(f, y);
  }
}

Gif Reader::read() {
  Gif out{.width = file_->SWidth,
          .height = file_->SHeight,
          .background = file_->SColorMap ? file_->SBackGroundColor : 0,
          .frame = {}};
  picture_of(std::uint64_t(std::max(0, out.width)), std::uint64_t(std::max(0, out.height)), name_);
  GifFrame next;
  for (GifRecordType type = UNDEFINED_RECORD_TYPE; type != TERMINATE_RECORD_TYPE;) {
    check(DGifGetRecordType(file_.get(), &type));
    if (type == EXTENSION_RECORD_TYPE)
      read_extension(next);
    if (type != IMAGE_DESC_RECORD_TYPE)
      continue;
    read_frame(next);
    out.frame.push_back(std::exchange(next, {}));
  }
  if (out.frame.empty())
    bad_picture(name_, "GIF", "it has no frames");
  return out;
}

}  // namespace

Gif read_gif(std::span<const std::byte> bytes, const std::string& name) {
  return Reader(bytes, name).read();
}

}  // namespace moe
