// What every encoder does to rows besides products: choosing some, one matrix over the other,
// several rows seen as one, sums.
#pragma once
#include <span>
#include <type_traits>

#include "lib/backend/backend.h"
#include "lib/signal/patches.h"

namespace moe {

// Patches of a picture or video: `times` frames of rows x columns, frame by frame.
struct PictureGrid {
  int times = 1, rows = 0, columns = 0;
  Index whole = 0;  // patches of the picture with what was filled up and left out; 0 = nothing was

  Index area() const {
    return Index(rows) * columns;
  }
  Index patches() const {
    return times * area();
  }
};
Index patches_of(std::span<const PictureGrid>);

// An argument that does not say what S is.
template <class S>
using RowsOf = std::type_identity_t<View<const S>>;

// Row i is row which[i] of x.
template <class S>
Array<S> chosen_rows(Backend<S>&, RowsOf<S> x, std::span<const int> which);
template <class S>
Array<S> one_over_other(Backend<S>&, RowsOf<S> top, RowsOf<S> bottom);
template <class S>
Array<S> copy_of(Backend<S>&, RowsOf<S> x, std::type_identity_t<S> scale = 1);
// Every `count` rows that follow each other as one row.
template <class S>
View<const S> joined(View<const S> x, Index count) {
  return {x.data, x.rows / count, x.cols * count};
}
template <class S>
View<const S> joined(const Array<S>& x, Index count) {
  return joined(x.view(), count);
}
// Pictures of `length` rows each, with one row more before them or behind them (a class row), and
// those without it.
enum class ClassRow { first, last };
template <class S>
Array<S> with_class_row(Backend<S>&, RowsOf<S> x, RowsOf<S> row /*(1,H)*/, Index length, ClassRow);
template <class S>
Array<S> without_class_row(Backend<S>&, RowsOf<S> x, Index length, ClassRow);

// For each block of tall x wide patches of one frame that lies line by line: where its patches are.
// Blocks and the patches in them come line by line. Throws Error(input) where the frame does not
// divide into blocks.
std::vector<int> block_order(const PictureGrid&, int tall, int wide);
// The same for every frame of all of them.
std::vector<int> block_order(std::span<const PictureGrid>, int tall, int wide);
// Place of every patch in its frame, in the order of the rows: blocks of merge x merge, or line by
// line where merge is 1.
std::vector<PatchPlace> places_of(std::span<const PictureGrid>, int merge);

// First row of each frame, or of each clip as a whole, and behind the last.
std::vector<Index> frame_starts(std::span<const PictureGrid>);
std::vector<Index> clip_starts(std::span<const PictureGrid>);

}  // namespace moe
