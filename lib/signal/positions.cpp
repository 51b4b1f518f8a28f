#include "lib/signal/positions.h"

#include <algorithm>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

class Rows {
 public:
  void text(int length) {
    for (int i = 0; i < length; ++i, ++next_)
      add(next_, next_, next_, false);
  }
  void picture(const RowRun& r, int rows, int columns) {
    for (int t = 0; t < r.times; ++t) {
      for (int y = 0; y < rows; ++y) {
        for (int x = 0; x < columns; ++x)
          add(next_ + t * r.time_step, next_ + y, next_ + x, true);
      }
    }
    const int last = r.behind_time ? (r.times - 1) * r.time_step + 1 : 0;
    next_ += std::max({rows, columns, last});
  }
  RowPositions take() {
    RowPositions out{Matrix<int>(3, Index(picture_.size())), std::move(picture_), next_};
    for (Index axis = 0; axis < 3; ++axis)
      std::ranges::copy(position_[std::size_t(axis)], out.position.row(axis).begin());
    return out;
  }

 private:
  void add(int time, int height, int width, bool picture) {
    position_[0].push_back(time);
    position_[1].push_back(height);
    position_[2].push_back(width);
    picture_.push_back(picture);
  }
  std::array<std::vector<int>, 3> position_;
  std::vector<bool> picture_;
  int next_ = 0;
};

}  // namespace

RowPositions row_positions(std::span<const RowRun> runs, int merge) {
  Rows out;
  for (const RowRun& run : runs) {
    if (!run.picture) {
      out.text(run.length);
      continue;
    }
    if (merge < 1 || run.rows % merge != 0 || run.columns % merge != 0) {
      throw Error(Exit::input, concat("a picture of ", run.rows, " x ", run.columns,
                                      " patches does not divide into blocks of ", merge));
    }
    out.picture(run, run.rows / merge, run.columns / merge);
  }
  return out.take();
}

std::vector<int> pair_axes(PairRule rule, const std::array<int, 3>& sections, int pairs) {
  if (std::accumulate(sections.begin(), sections.end(), 0) != pairs ||
      std::ranges::min(sections) < 0) {
    throw Error(Exit::input, concat("sections of ", sections[0], ", ", sections[1], " and ",
                                    sections[2], " pairs for ", pairs));
  }
  std::vector<int> out;
  for (int j = 0; j < pairs; ++j) {
    int axis = 0;
    if (rule == PairRule::sections) {
      axis = j < sections[0] ? 0 : j < sections[0] + sections[1] ? 1 : 2;
    } else if (rule == PairRule::interleaved) {
      const int turn = j % 3;
      axis = turn > 0 && j < 3 * sections[std::size_t(turn)] ? turn : 0;
    } else {
      axis = j < sections[0] + sections[1] ? 1 + j % 2 : 0;
    }
    out.push_back(axis);
  }
  return out;
}

std::vector<double> frequencies_of(std::span<const double> frequency, std::span<const int> axes,
                                   int axis) {
  std::vector<double> out;
  for (std::size_t j = 0; j < frequency.size(); ++j)
    out.push_back(axes[j] == axis ? frequency[j] : 0);
  return out;
}

}  // namespace moe
