// Positions of rows in time, height and width, where text and pictures follow each other (M-RoPE of
// Qwen2-VL, Qwen3-VL and ERNIE 4.5 VL), and which of the three turns each pair of numbers of a
// head. A rotation by several axes is one rotation for each: pairs of the other axes have frequency
// 0.
#pragma once
#include <array>
#include <span>
#include <vector>

#include "lib/core/matrix.h"

namespace moe {

struct RowRun {  // rows that follow each other and are of one kind
  bool picture = false;
  int length = 0;                        // rows of text
  int times = 0, rows = 0, columns = 0;  // of a picture or video, in patches
  int time_step = 1;                     // places between its frames
  bool behind_time = false;              // what follows also begins behind its last frame
};

struct RowPositions {
  Matrix<int> position;          // (3,T): time, height, width
  std::vector<bool> of_picture;  // (T)
  int next = 0;                  // of a row of text behind all of them
};
// Blocks of merge x merge patches are one row. Text goes on by 1 a row in all three; the rows of a
// picture that begins at c have (c + time, c + row, c + column), and what follows begins at c + the
// longer side; in Qwen3-Omni frames are time_step places apart, and what follows begins behind all
// of these. Throws Error(input) where a picture does not divide into blocks.
RowPositions row_positions(std::span<const RowRun>, int merge);

// sections: the first pairs turn by time, the next by height, the rest by width; interleaved: time,
// height and width in turn while each has some left, the rest by time; ernie: height and width in
// turn, the rest by time, and pairs are neighbours.
enum class PairRule { sections, interleaved, ernie };
// 0, 1, 2 for each of `pairs` pairs. Throws Error(input) where `sections` (of time, height, width;
// ernie: height, width, time) are not as many.
std::vector<int> pair_axes(PairRule, const std::array<int, 3>& sections, int pairs);

// The frequencies of those pairs that turn by `axis`, and 0 for the others.
std::vector<double> frequencies_of(std::span<const double> frequency, std::span<const int> axes,
                                   int axis);

}  // namespace moe
