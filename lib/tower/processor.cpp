#include "lib/tower/processor.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tower/processor_file.h"

namespace moe {
namespace {

int up(int n, int by) {
  return (n + by - 1) / by;
}

// Heights and widths, in squares of this side, that Aria's processor cuts pictures into where it is
// told to and is given no sizes.
constexpr int split_side = 490;
constexpr int split_shapes[][2] = {{1, 2}, {1, 3}, {1, 4}, {1, 5}, {1, 6}, {1, 7}, {1, 8},
                                   {2, 4}, {2, 3}, {2, 2}, {2, 1}, {3, 1}, {3, 2}, {4, 1},
                                   {4, 2}, {5, 1}, {6, 1}, {7, 1}, {8, 1}};

}  // namespace

PictureProcessor::PictureProcessor(const TowerPatches& patches, const ProcessorDefaults& rule)
    : patches_(patches), rule_(rule) {
  const auto file = processor_file(rule.folder, "image_processor", {"preprocessor_config.json"});
  if (file)
    read(file->reader());
  check_pixel_rule(rule_.pixels, patches_,
                   file ? file->file : (rule.folder / "preprocessor_config.json").string());
}

void PictureProcessor::read(const ConfigReader& c) {
  read_pixel_rule(c, patches_, rule_.pixels);
  const PixelBounds bounds = read_pixel_bounds(c, {rule_.fewest_pixels, rule_.most_pixels});
  rule_.fewest_pixels = bounds.fewest;
  rule_.most_pixels = bounds.most;
  if (rule_.sizing == PictureSizing::padded)
    padded_ = read_padded_bounds(c, padded_);
  if (rule_.sizing == PictureSizing::tiles) {
    rule_.most_tiles = c.whole("max_patches", rule_.most_tiles);
    largest_ = c.flag("resize_to_max_canvas", false);
    const int side = c.has("size") ? c.in("size").whole("height", rule_.side) : rule_.side;
    if (side != rule_.side || rule_.most_tiles < 1) {
      c.refuse(concat("size.height is ", side, " and max_patches ", rule_.most_tiles,
                      ", and the encoder takes squares of ", rule_.side));
    }
  }
  if (rule_.sizing == PictureSizing::corner)
    read_splits(c);
  if (rule_.sizing == PictureSizing::middle) {
    check_side(c, "size", "shortest_edge");
    check_side(c, "crop_size", "height");
  }
}

// A size that is a number, or an object with one.
void PictureProcessor::check_side(const ConfigReader& c, const char* key,
                                  const char* inside) const {
  if (!c.has(key))
    return;
  const int side = c.at(key).is_object() ? c.in(key).whole(inside, rule_.side) : c.whole(key);
  if (side != rule_.side) {
    c.refuse(concat(key, " is ", side, " pixels, and the encoder takes pictures of ", rule_.side));
  }
}

void PictureProcessor::read_splits(const ConfigReader& c) {
  rule_.side = c.whole("max_image_size", rule_.side);
  rule_.shortest = c.whole("min_image_size", rule_.shortest);
  if (rule_.side < patches_.patch || rule_.shortest < 1 || rule_.shortest > rule_.side) {
    c.refuse(concat("max_image_size is ", rule_.side, " and min_image_size ", rule_.shortest,
                    " for patches of ", patches_.patch));
  }
  if (!c.flag("split_image", false))
    return;
  if (!c.has("split_resolutions")) {
    for (const auto& [rows, columns] : split_shapes)
      splits_.push_back({rows * split_side, columns * split_side});
    return;
  }
  for (const Json& size : c.at("split_resolutions")) {
    const bool two = size.is_array() && size.size() == 2 && size[0].is_number_unsigned() &&
                     size[1].is_number_unsigned();
    if (!two || size[0] < 1 || size[1] < 1 || size[0] > 65536 || size[1] > 65536)
      c.refuse(concat("split_resolutions holds ", size.dump(), ", no height and width"));
    splits_.push_back({size[0], size[1]});
  }
}

PictureSize PictureProcessor::inner(PictureSize s) const {
  if (rule_.sizing == PictureSizing::bounded) {
    return bounded_size(s, patches_.patch * patches_.multiple, rule_.fewest_pixels,
                        rule_.most_pixels);
  }
  if (rule_.sizing == PictureSizing::padded)
    return padded_size(s, patches_, padded_).inner;
  return {rule_.side, rule_.side};
}

PictureSize PictureProcessor::corner(PictureSize s) const {
  const double scale = double(rule_.side) / std::max(s.height, s.width);
  if (s.width >= s.height)
    return {std::max(int(s.height * scale), rule_.shortest), rule_.side};
  return {rule_.side, std::max(int(s.width * scale), rule_.shortest)};
}

PictureGrid PictureProcessor::grid_of(PictureSize s) const {
  return {1, s.height / patches_.patch, s.width / patches_.patch};
}

// Patches that hold something of the picture.
PictureGrid PictureProcessor::corner_grid(PictureSize s) const {
  const PictureSize seen = corner(s);
  const Index across = rule_.side / patches_.patch;
  const auto patches = [&](int length) {
    return std::min(up(length, patches_.patch), int(across));
  };
  return {1, patches(seen.height), patches(seen.width), across * across};
}

TileGrid PictureProcessor::tiles(PictureSize s) const {
  if (rule_.sizing != PictureSizing::tiles)
    return {};
  return canvas_for(s, rule_.side, rule_.most_tiles, largest_);
}

std::vector<PictureGrid> PictureProcessor::grids(PictureSize s) const {
  if (rule_.sizing == PictureSizing::tiles) {
    const int count = tiles(s).count();
    return std::vector<PictureGrid>(std::size_t(count > 1 ? count + 1 : 1), grid_of(inner(s)));
  }
  if (rule_.sizing == PictureSizing::corner) {
    if (splits_.empty())
      return {corner_grid(s)};
    std::vector<PictureGrid> out;
    const PictureSize whole = best_size(s, splits_);
    for (int top = 0; top < whole.height; top += rule_.side) {
      for (int left = 0; left < whole.width; left += rule_.side) {
        out.push_back(corner_grid(
            {std::min(rule_.side, whole.height - top), std::min(rule_.side, whole.width - left)}));
      }
    }
    return out;
  }
  if (rule_.sizing == PictureSizing::padded)
    return {grid_of(padded_size(s, patches_, padded_).filled)};
  return {grid_of(inner(s))};
}

// Tiles of the canvas, the rest of it black, and behind several of them all of the picture in one.
std::vector<Picture> PictureProcessor::tiled(const Picture& p) const {
  const PictureSize size{p.height, p.width};
  const TileGrid canvas = tiles(size);
  const PictureSize fit = size_on_canvas(size, canvas, rule_.side, largest_);
  const Picture scaled = resized(p, fit.height, fit.width, rule_.pixels.filter);
  const Picture laid = cropped(scaled, 0, 0, canvas.rows * rule_.side, canvas.columns * rule_.side);
  std::vector<Picture> out = squares_of(laid, rule_.side);
  if (canvas.count() > 1)
    out.push_back(resized(p, rule_.side, rule_.side, rule_.pixels.filter));
  return out;
}

Picture PictureProcessor::cornered(const Picture& p) const {
  const PictureSize seen = corner({p.height, p.width});
  const PictureGrid g = corner_grid({p.height, p.width});
  const Picture scaled = resized(p, seen.height, seen.width, rule_.pixels.filter);
  return cropped(scaled, 0, 0, g.rows * patches_.patch, g.columns * patches_.patch);
}

std::vector<Picture> PictureProcessor::views(const Picture& p) const {
  if (rule_.sizing == PictureSizing::tiles)
    return tiled(p);
  if (rule_.sizing == PictureSizing::corner) {
    if (splits_.empty())
      return {cornered(p)};
    std::vector<Picture> out;
    const PictureSize whole = best_size({p.height, p.width}, splits_);
    for (const Picture& square : squares_of(centred(p, whole, rule_.pixels.filter), rule_.side))
      out.push_back(cornered(square));
    return out;
  }
  if (rule_.sizing == PictureSizing::middle) {
    if (!rule_.squared)
      return {middle_square(p, rule_.side, rule_.pixels.filter)};
    std::vector<std::uint8_t> colour;
    for (const double mean : rule_.pixels.mean)
      colour.push_back(std::uint8_t(std::clamp(mean * 255, 0.0, 255.0)));
    return {middle_square(squared_with(p, colour), rule_.side, rule_.pixels.filter)};
  }
  const PictureSize size = inner({p.height, p.width});
  const Picture out = resized(p, size.height, size.width, rule_.pixels.filter);
  if (rule_.sizing != PictureSizing::padded)
    return {out};
  const PictureSize filled = padded_size({p.height, p.width}, patches_, padded_).filled;
  return {cropped(out, 0, 0, filled.height, filled.width)};
}

PatchRows<float> PictureProcessor::rows(const Picture& p) const {
  PatchRows<float> out;
  out.grid = grids({p.height, p.width});
  out.row = Matrix<float>(patches_of(out.grid), patches_.numbers());
  float* to = out.row.data();
  for (const Picture& view : views(p)) {
    const Matrix<float> part = pixel_rows({&view, 1}, patches_, rule_.pixels);
    to = std::ranges::copy(part.flat(), to).out;
  }
  return out;
}

}  // namespace moe
