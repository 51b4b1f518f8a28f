// Learned vectors of places for pictures of any size: a square table is read between its cells, or
// at the nearest one.
#pragma once
#include <span>

#include "lib/core/matrix.h"
#include "lib/tower/rows.h"

namespace moe {

// corners: linear, the corners of table and picture lie on each other (Qwen3-VL).
// halves: cubic with a = -0.75, the centres of cells at their halves (Kimi K2.5; what
// torch.nn.functional.interpolate does by default).
enum class PlaceRule { corners, halves };

// (patches, H), a row for each patch in the order of blocks of merge x merge. `table` is
// (side*side, H), line by line.
template <class S>
Matrix<S> vectors_of_places(PlaceRule, const Matrix<S>& table, int side,
                            std::span<const PictureGrid>, int merge);

// The row of a table of side x side for each patch of a picture of rows x columns, line by line:
// the cell in which the patch's corner lies (NaViT, Idefics 2). Compared in float, as the class
// does: where a corner is on a border, rounding decides.
std::vector<int> cells_of_places(int side, int rows, int columns);

// (1, H): sin(frame w_i) for i < H/2, then cos, w_i = 10000^(-2i/H).
template <class S>
Matrix<S> vector_of_time(int frame, Index width);
// (count, H): the same with w_i = 10000^(-i/(H/2-1)), for places 0 .. count-1 (Whisper).
template <class S>
Matrix<S> vectors_of_sound_places(Index count, Index width);

}  // namespace moe
