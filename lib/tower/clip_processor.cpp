#include "lib/tower/clip_processor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/signal/glyph.h"
#include "lib/tower/processor_file.h"

namespace moe {
namespace {

constexpr Index most_font = Index(1) << 26;  // bytes
constexpr int side_ratio = 200;              // of the longer side to the shorter, at most

// To the nearest whole number, from the middle to the even one, as Python and NumPy round.
int nearest(double v) {
  return int(std::nearbyint(v));
}

// `count` numbers from 0 to the last of all, evenly apart.
std::vector<int> spread(int all, int count) {
  std::vector<int> out;
  const double step = count > 1 ? double(all - 1) / (count - 1) : 0;
  for (int i = 0; i < count; ++i)
    out.push_back(i + 1 == count && count > 1 ? all - 1 : nearest(i * step));
  return out;
}

// Both sides at least `factor`, in proportion.
std::pair<double, double> at_least(PictureSize s, int factor) {
  double height = s.height;
  double width = s.width;
  if (s.height < factor || s.width < factor) {
    const double grow = std::max(double(factor) / s.height, double(factor) / s.width);
    height = int(height * grow);
    width = int(width * grow);
  }
  if (std::max(height, width) > side_ratio * std::min(height, width)) {
    throw Error(Exit::input,
                concat("frames of ", s.width, " x ", s.height, " pixels: the longer side may be ",
                       side_ratio, " times the shorter"));
  }
  return {height, width};
}

// Sides in multiples of `factor` whose area times the frames is between the bounds (Qwen3-VL).
PictureSize size_of_all(int frames, int times, PictureSize s, int factor, PixelBounds bounds) {
  const auto [height, width] = at_least(s, factor);
  const PictureSize near{nearest(height / factor) * factor, nearest(width / factor) * factor};
  const double area = double(nearest(double(frames) / times) * times) * near.height * near.width;
  if (area > double(bounds.most)) {
    const double shrink = std::sqrt(frames * height * width / double(bounds.most));
    const auto below = [&](double side) {
      return std::max(factor, int(std::floor(side / shrink / factor)) * factor);
    };
    return {below(height), below(width)};
  }
  if (area < double(bounds.fewest)) {
    const double grow = std::sqrt(double(bounds.fewest) / (frames * height * width));
    const auto above = [&](double side) {
      return int(std::ceil(side * grow / factor)) * factor;
    };
    return {above(height), above(width)};
  }
  return near;
}

}  // namespace

ClipProcessor::ClipProcessor(const TowerPatches& patches, const ClipDefaults& rule)
    : patches_(patches), rule_(rule), draws_time_(rule.style == ClipStyle::paired) {
  const auto file = processor_file(rule.folder, "video_processor",
                                   {"video_preprocessor_config.json", "preprocessor_config.json"});
  if (file)
    read(file->reader());
  check_pixel_rule(rule_.pixels, patches_,
                   file ? file->file : (rule.folder / "video_preprocessor_config.json").string());
  std::error_code code;
  if (draws_time_ && std::filesystem::is_regular_file(rule.folder / font_, code))
    font_bytes_ = read_file(rule.folder / font_, most_font);
}

void ClipProcessor::read(const ConfigReader& c) {
  read_pixel_rule(c, patches_, rule_.pixels);
  // Qwen3-Omni's processor hands its own bounds in, whatever the file says
  if (rule_.style != ClipStyle::timed) {
    const PixelBounds bounds = read_pixel_bounds(c, {rule_.fewest_pixels, rule_.most_pixels});
    rule_.fewest_pixels = bounds.fewest;
    rule_.most_pixels = bounds.most;
  }
  padded_ = read_padded_bounds(c, padded_);
  rule_.fewest_frames = c.whole("min_frames", rule_.fewest_frames);
  rule_.most_frames = c.whole("max_frames", rule_.most_frames);
  if (rule_.fewest_frames < 1 || rule_.most_frames < rule_.fewest_frames) {
    c.refuse(concat("min_frames is ", rule_.fewest_frames, " and max_frames ", rule_.most_frames));
  }
  if (c.has("num_frames"))
    c.refuse(concat("num_frames is ", c.whole("num_frames"), ": frames are chosen by fps here"));
  if (c.flag("cap_pixels_per_frame", false))
    c.refuse("cap_pixels_per_frame is true, which is not computed here");
  const bool timed = rule_.style == ClipStyle::timed;
  samples_ = c.flag("do_sample_frames", !timed);
  if (timed && samples_)
    c.refuse("do_sample_frames is true, which is not computed for this family");
  if (!timed)
    rule_.rate = c.real("fps", rule_.rate);
  read_times(c);
  const bool chunked = rule_.style == ClipStyle::chunked;
  const int ours = chunked ? rule_.chunk : rule_.style == ClipStyle::paired ? 2 : patches_.times;
  const int times = c.whole("temporal_patch_size", ours);
  if (times < 1 || (!chunked && times != ours))
    c.refuse(concat("temporal_patch_size is ", times, " and the encoder's ", ours));
  rule_.chunk = chunked ? times : rule_.chunk;
}

void ClipProcessor::read_times(const ConfigReader& c) {
  draws_time_ = draws_time_ && c.flag("draw_on_frames", true);
  font_ = std::filesystem::path(c.text("font", font_)).filename().string();
}

int ClipProcessor::looked_at(int frames, double a_second) const {
  const int most = std::min(rule_.most_frames, frames);
  if (!samples_ || rule_.rate <= 0)
    return most;
  const int wanted = int(frames / a_second * rule_.rate);
  return std::clamp(wanted, std::min(rule_.fewest_frames, most), most);
}

std::vector<int> ClipProcessor::chosen(int frames, double a_second) const {
  if (frames < 1 || !(a_second > 0))
    throw Error(Exit::input, concat("a clip of ", frames, " frames, ", a_second, " a second"));
  const int count = looked_at(frames, a_second);
  if (rule_.style == ClipStyle::stamped)
    return spread(frames, count);
  std::vector<int> out;
  for (int i = 0; i < count; ++i) {
    const bool whole = rule_.style == ClipStyle::chunked;
    out.push_back(whole ? int(Index(i) * frames / count) : int(i * (double(frames) / count)));
  }
  return out;
}

int ClipProcessor::padded(int frames) const {
  const int row = rule_.style == ClipStyle::paired    ? 2
                  : rule_.style == ClipStyle::chunked ? 1
                                                      : patches_.times;
  return (frames + row - 1) / row * row;
}

PictureSize ClipProcessor::inner(int frames, PictureSize s) const {
  const int factor = patches_.patch * patches_.multiple;
  const PixelBounds bounds{rule_.fewest_pixels, rule_.most_pixels};
  if (rule_.style == ClipStyle::chunked)
    return padded_size(s, patches_, padded_).inner;
  if (rule_.style == ClipStyle::stamped)
    return size_of_all(frames, patches_.times, s, factor, bounds);
  return bounded_size(s, factor, bounds.fewest, bounds.most);
}

std::vector<PictureGrid> ClipProcessor::grids(int frames, PictureSize s) const {
  const bool chunked = rule_.style == ClipStyle::chunked;
  const PictureSize size = chunked ? padded_size(s, patches_, padded_).filled : inner(frames, s);
  const int down = size.height / patches_.patch;
  const int across = size.width / patches_.patch;
  if (!chunked)
    return {{padded(frames) / patches_.times, down, across}};
  std::vector<PictureGrid> out;
  for (int first = 0; first < frames; first += rule_.chunk)
    out.push_back({std::min(rule_.chunk, frames - first), down, across});
  return out;
}

PatchRows<float> ClipProcessor::rows(std::span<const Picture> frames) const {
  const PictureSize s{frames[0].height, frames[0].width};
  const int count = int(frames.size());
  const PictureSize size = inner(count, s);
  const PictureSize filled =
      rule_.style == ClipStyle::chunked ? padded_size(s, patches_, padded_).filled : size;
  std::vector<Picture> scaled;
  for (const Picture& f : frames) {
    if (f.height != s.height || f.width != s.width)
      throw Error(Exit::input, "the frames of a clip have different sizes");
    scaled.push_back(cropped(resized(f, size.height, size.width, rule_.pixels.filter), 0, 0,
                             filled.height, filled.width));
  }
  while (int(scaled.size()) < padded(count))
    scaled.push_back(Picture(scaled.back()));
  PatchRows<float> out;
  out.grid = grids(count, s);
  out.row = pixel_rows(scaled, patches_, rule_.pixels);
  return out;
}

void ClipProcessor::write_times(std::vector<Picture>& frames, std::span<const int> chosen,
                                double a_second) const {
  if (font_bytes_.empty())
    return;
  constexpr double part = 0.1;  // of the shorter side, and of the letters, to the whole below
  for (std::size_t i = 0; i < frames.size(); ++i) {
    Picture& p = frames[i];
    const int em = int(std::min(p.height, p.width) * part);
    if (em < 1) {
      throw Error(Exit::input, concat("frames of ", p.width, " x ", p.height, " pixels are too ",
                                      "small for the time that this model's processor draws"))
          .hint("larger frames, or draw_on_frames: false in the processor's file");
    }
    const double seconds = chosen[i] / a_second;
    const auto whole = Index(seconds);
    const std::string text = fmt::format("time: {:02}:{:02}:{:05.2f}", whole / 3600,
                                         whole / 60 % 60, std::fmod(seconds, 60));
    write_text(p, text, font_bytes_, em, int(em * part), rule_.folder / font_);
  }
}

double ClipProcessor::seconds_between(std::span<const int> chosen, int first, int count,
                                      double a_second) const {
  const auto at = [&](int i) {
    return chosen[std::size_t(std::min(i, int(chosen.size()) - 1))] / a_second;
  };
  return (at(first) + at(first + count - 1)) / 2;
}

}  // namespace moe
