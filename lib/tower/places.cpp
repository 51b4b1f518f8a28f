#include "lib/tower/places.h"

#include <algorithm>
#include <cmath>

namespace moe {
namespace {

struct Tap {
  int cell;
  double weight;
};

double cubic(double distance) {
  constexpr double a = -0.75;
  const double d = std::abs(distance);
  if (d <= 1)
    return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

// What place i of `count` takes of the cells of one axis; places beyond the border are the border.
std::vector<Tap> taps_of(PlaceRule rule, int i, int count, int side) {
  const bool corners = rule == PlaceRule::corners;
  const double at =
      corners ? double(i) * (side - 1) / std::max(count - 1, 1) : (i + 0.5) * side / count - 0.5;
  const int low = int(std::floor(at));
  const int before = corners ? 0 : 1;
  const int behind = corners ? 1 : 2;
  std::vector<Tap> out;
  for (int cell = low - before; cell <= low + behind; ++cell) {
    const double distance = at - cell;
    const double weight = corners ? std::max(1 - std::abs(distance), 0.0) : cubic(distance);
    out.push_back({std::clamp(cell, 0, side - 1), weight});
  }
  return out;
}

}  // namespace

template <class S>
Matrix<S> vectors_of_places(PlaceRule rule, const Matrix<S>& table, int side,
                            std::span<const PictureGrid> grids, int merge) {
  Matrix<S> out(patches_of(grids), table.cols());
  Index row = 0;
  for (const PictureGrid& g : grids) {
    const std::vector<PatchPlace> places = places_of({&g, 1}, merge);
    for (const PatchPlace& p : places) {
      const auto to = out.row(row++);
      for (const Tap& y : taps_of(rule, p.row, g.rows, side)) {
        for (const Tap& x : taps_of(rule, p.column, g.columns, side)) {
          const auto from = table.row(Index(y.cell) * side + x.cell);
          for (std::size_t h = 0; h < to.size(); ++h)
            to[h] += S(y.weight * x.weight) * from[h];
        }
      }
    }
  }
  return out;
}

namespace {

// Of one axis: how many of the borders k/side lie at or before i/count.
int cell_of(int i, int count, int side) {
  const float step = 1.0f / float(count);
  const float at = std::min(float(i) * step, float(1.0 - 1e-6));
  int cell = 0;
  while (cell + 1 < side && float(1.0 / side + cell * (1.0 / side)) <= at)
    ++cell;
  return cell;
}

}  // namespace

std::vector<int> cells_of_places(int side, int rows, int columns) {
  std::vector<int> out;
  for (int y = 0; y < rows; ++y) {
    for (int x = 0; x < columns; ++x)
      out.push_back(cell_of(y, rows, side) * side + cell_of(x, columns, side));
  }
  return out;
}

namespace {

template <class S>
void fill_waves(std::span<S> row, double place, double log_step) {
  const std::size_t half = row.size() / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const double angle = place * std::exp(-log_step * double(i));
    row[i] = S(std::sin(angle));
    row[half + i] = S(std::cos(angle));
  }
}

}  // namespace

template <class S>
Matrix<S> vector_of_time(int frame, Index width) {
  Matrix<S> out(1, width);
  fill_waves<S>(out.row(0), frame, 2 * std::log(10000.0) / double(width));
  return out;
}

template <class S>
Matrix<S> vectors_of_sound_places(Index count, Index width) {
  Matrix<S> out(count, width);
  for (Index t = 0; t < count; ++t)
    fill_waves<S>(out.row(t), double(t), std::log(10000.0) / (double(width) / 2 - 1));
  return out;
}

#define INSTANTIATE(S)                                                     \
  template Matrix<S> vectors_of_places(PlaceRule, const Matrix<S>&, int,   \
                                       std::span<const PictureGrid>, int); \
  template Matrix<S> vector_of_time(int, Index);                           \
  template Matrix<S> vectors_of_sound_places(Index, Index);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
