// Pictures at another size, to the bit as Pillow makes them (its Resample.c): what the image
// processors of published models start from.
#pragma once
#include "lib/signal/patches.h"

namespace moe {

// cubic: a = -0.5, two pixels to each side; linear: one. Both widen where a picture shrinks, so
// that every pixel of it counts.
enum class ResizeFilter { linear, cubic };
// Columns first, then rows, with sums in whole numbers of 2^-22 and bytes between them. Throws
// Error(input) for a size below 1.
Picture resized(const Picture&, int height, int width, ResizeFilter = ResizeFilter::cubic);
// Rows top .. top+height, columns left .. left+width; what lies outside is 0.
Picture cropped(const Picture&, int top, int left, int height, int width);

struct PictureSize {
  int height = 0, width = 0;
};
// The size at which Qwen2-VL, Qwen3-VL and ERNIE 4.5 VL look at a picture: sides that are the
// nearest multiples of `factor`, or, where the area is not between the bounds, those below or above
// of the sides scaled to the bound. Throws Error(input) where one side is more than 200 times the
// other.
PictureSize bounded_size(PictureSize, int factor, Index fewest_pixels, Index most_pixels);

// The shorter side becomes `side`, then the middle square is cut out (CLIP).
Picture middle_square(const Picture&, int side, ResizeFilter = ResizeFilter::cubic);

}  // namespace moe
