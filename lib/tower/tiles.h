// Pictures cut into squares of one size, as processors of encoders do it that take nothing else:
// which canvas of squares a picture is laid on (Llama 4), or which of a list of sizes (Aria, as
// LLaVA-NeXT), and the squares.
#pragma once
#include <span>
#include <vector>

#include "lib/signal/resize.h"

namespace moe {

// Rows and columns of squares of `side` pixels, at most `most` in all, for a picture of that size:
// the smallest scale from 1 on, or the largest below it where no canvas is as large (`largest`: the
// largest of all), and of canvases of one scale the smallest.
struct TileGrid {
  int rows = 1, columns = 1;
  int count() const {
    return rows * columns;
  }
};
TileGrid canvas_for(PictureSize, int side, int most, bool largest);
// The size of such a picture on its canvas: not larger than itself (or one square, where it is
// smaller), nothing out of proportion.
PictureSize size_on_canvas(PictureSize, TileGrid, int side, bool largest);

// The size of the list that shows most of a picture and wastes least.
PictureSize best_size(PictureSize, std::span<const PictureSize> sizes);
// A picture brought into a size with its proportions kept, black to both sides of it.
Picture centred(const Picture&, PictureSize, ResizeFilter);

// Squares line by line; the last of a line and of a column are what is left.
std::vector<Picture> squares_of(const Picture&, int side);
// As high as it is wide, the picture in the middle, the rest of one colour, a byte a channel.
Picture squared_with(const Picture&, std::span<const std::uint8_t> colour);

}  // namespace moe
