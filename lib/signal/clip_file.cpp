#include "lib/signal/clip_file.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/npy.h"
#include "lib/signal/picture_file.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr Index most_bytes = Index(1) << 30;
constexpr int colours = 3;

// The number that a name ends with, and -1 where it has none: "frame-12" is 12, behind "frame-9".
Index number_of(const fs::path& file) {
  const std::string stem = file.stem().string();
  std::size_t first = stem.size();
  while (first > 0 && stem[first - 1] >= '0' && stem[first - 1] <= '9' && stem.size() - first < 15)
    --first;
  return first == stem.size() ? -1 : std::stoll(stem.substr(first));
}

std::vector<fs::path> pictures_in(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (is_picture_name(entry.path()) && entry.path().filename().string()[0] != '.')
      out.push_back(entry.path());
  }
  std::ranges::sort(out, [](const fs::path& a, const fs::path& b) {
    return std::pair(number_of(a), a.filename()) < std::pair(number_of(b), b.filename());
  });
  return out;
}

Gif read_gif_file(const fs::path& path) {
  const std::string bytes = read_file(path, most_bytes);
  return read_gif(std::as_bytes(std::span(bytes)), in_quotes(path));
}

}  // namespace

bool is_clip_name(const fs::path& path) {
  return path.extension() == ".clip" || path.extension() == ".npy" || is_gif_name(path);
}

std::optional<ClipFile> as_clip(const fs::path& path) {
  if (!is_clip_name(path))
    return {};
  ClipFile clip(path);
  if (is_gif_name(path) && clip.frames() == 1)
    return {};
  return clip;
}

ClipFile::ClipFile(const fs::path& path) {
  if (is_gif_name(path)) {
    gif_ = read_gif_file(path);
    frames_ = int(gif_->frame.size());
    height_ = gif_->height;
    width_ = gif_->width;
    return;
  }
  if (!fs::is_directory(path)) {
    read_array(path);
    return;
  }
  files_ = pictures_in(path);
  frames_ = int(files_.size());
  if (files_.empty()) {
    throw Error(Exit::input, concat(in_quotes(path), " holds no frames"))
        .hint("pictures whose names end with their numbers: 1.png, 2.png, ...");
  }
}

void ClipFile::read_array(const fs::path& path) {
  bytes_ = read_file(path, most_bytes);
  const NpyHeader header = npy_header(bytes_, in_quotes(path));
  const auto& shape = header.shape;
  const bool frames = header.kind == 'u' && header.width == 1 && !header.by_column &&
                      shape.size() == 4 && shape[3] == colours && header.numbers > 0;
  if (!frames) {
    std::string dims;
    for (const Index d : shape)
      dims += concat(dims.empty() ? "" : " x ", d);
    throw Error(Exit::input, concat(in_quotes(path), " is an array of ", dims,
                                    " numbers of the type ", header.type, " and no clip"))
        .hint("bytes (uint8) of the shape (frames, height, width, 3), row by row");
  }
  frames_ = int(shape[0]);
  height_ = int(shape[1]);
  width_ = int(shape[2]);
  data_at_ = std::size_t(header.data_at);
}

Picture ClipFile::frame(int i) const {
  if (!files_.empty())
    return read_picture(files_[std::size_t(i)]);
  Picture out{.height = height_, .width = width_, .channels = colours, .pixel = {}};
  const std::size_t size = std::size_t(height_) * std::size_t(width_) * colours;
  const auto* first = reinterpret_cast<const std::uint8_t*>(bytes_.data()) + data_at_;
  out.pixel.assign(first + size * std::size_t(i), first + size * (std::size_t(i) + 1));
  return out;
}

PictureSize ClipFile::size() const {
  if (files_.empty())
    return {height_, width_};
  const Picture first = frame(0);
  return {first.height, first.width};
}

// Frames of a GIF stand on those before them.
std::vector<Picture> ClipFile::composed(std::span<const int> which) const {
  std::vector<Picture> out(which.size());
  GifScreen screen(*gif_);
  for (int i = 0; i < frames_; ++i) {
    screen.next();
    for (std::size_t n = 0; n < which.size(); ++n) {
      if (which[n] == i)
        out[n] = screen.picture();
    }
  }
  return out;
}

std::vector<Picture> ClipFile::read(std::span<const int> which) const {
  if (gif_)
    return composed(which);
  std::vector<Picture> out;
  for (const int i : which)
    out.push_back(frame(i));
  return out;
}

}  // namespace moe
