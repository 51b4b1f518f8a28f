#include "lib/tower/rows.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

Index patches_of(std::span<const PictureGrid> grids) {
  Index sum = 0;
  for (const PictureGrid& g : grids)
    sum += g.patches();
  return sum;
}

template <class S>
Array<S> chosen_rows(Backend<S>& b, RowsOf<S> x, std::span<const int> which) {
  Array<S> y(b, Index(which.size()), x.cols);
  const Array<int> ids(b, View<const int>{which.data(), 1, Index(which.size())});
  b.embed(Weight(x), ids.view(), y.view());
  return y;
}

template <class S>
Array<S> one_over_other(Backend<S>& b, RowsOf<S> top, RowsOf<S> bottom) {
  Array<S> y = Array<S>::zeros(b, top.rows + bottom.rows, top.cols);
  b.add(top, y.view().slice(0, top.rows), 1);
  b.add(bottom, y.view().slice(top.rows, bottom.rows), 1);
  return y;
}

template <class S>
Array<S> copy_of(Backend<S>& b, RowsOf<S> x, std::type_identity_t<S> scale) {
  Array<S> y = Array<S>::zeros(b, x.rows, x.cols);
  b.add(x, y.view(), scale);
  return y;
}

template <class S>
Array<S> with_class_row(Backend<S>& b, RowsOf<S> x, RowsOf<S> row, Index length, ClassRow where) {
  const Array<S> all = one_over_other(b, x, row);
  const int extra = int(x.rows);
  std::vector<int> which;
  for (Index first = 0; first < x.rows; first += length) {
    if (where == ClassRow::first)
      which.push_back(extra);
    for (Index i = 0; i < length; ++i)
      which.push_back(int(first + i));
    if (where == ClassRow::last)
      which.push_back(extra);
  }
  return chosen_rows(b, all.view(), which);
}

template <class S>
Array<S> without_class_row(Backend<S>& b, RowsOf<S> x, Index length, ClassRow where) {
  const Index skipped = where == ClassRow::first ? 1 : 0;
  std::vector<int> which;
  for (Index first = skipped; first < x.rows; first += length + 1) {
    for (Index i = 0; i < length; ++i)
      which.push_back(int(first + i));
  }
  return chosen_rows(b, x, which);
}

std::vector<int> block_order(const PictureGrid& g, int tall, int wide) {
  if (tall < 1 || wide < 1 || g.rows % tall != 0 || g.columns % wide != 0) {
    throw Error(Exit::input, concat("a picture of ", g.rows, " x ", g.columns,
                                    " patches does not divide into blocks of ", tall, " x ", wide));
  }
  std::vector<int> out;
  for (int top = 0; top < g.rows; top += tall) {
    for (int left = 0; left < g.columns; left += wide) {
      for (int i = 0; i < tall * wide; ++i)
        out.push_back((top + i / wide) * g.columns + left + i % wide);
    }
  }
  return out;
}

std::vector<int> block_order(std::span<const PictureGrid> grids, int tall, int wide) {
  std::vector<int> out;
  int first = 0;
  for (const PictureGrid& g : grids) {
    const std::vector<int> one = block_order(g, tall, wide);
    for (int t = 0; t < g.times; ++t) {
      for (const int i : one)
        out.push_back(first + i);
      first += int(g.area());
    }
  }
  return out;
}

std::vector<PatchPlace> places_of(std::span<const PictureGrid> grids, int merge) {
  std::vector<PatchPlace> out;
  for (const PictureGrid& g : grids) {
    block_order(g, merge, merge);  // refuses what does not divide
    const std::vector<PatchPlace> one = patch_places(g.rows, g.columns, merge);
    for (int t = 0; t < g.times; ++t)
      out.insert(out.end(), one.begin(), one.end());
  }
  return out;
}

std::vector<Index> frame_starts(std::span<const PictureGrid> grids) {
  std::vector<Index> start{0};
  for (const PictureGrid& g : grids) {
    for (int t = 0; t < g.times; ++t)
      start.push_back(start.back() + g.area());
  }
  return start;
}

std::vector<Index> clip_starts(std::span<const PictureGrid> grids) {
  std::vector<Index> start{0};
  for (const PictureGrid& g : grids)
    start.push_back(start.back() + g.patches());
  return start;
}

#define INSTANTIATE(S)                                                                  \
  template Array<S> chosen_rows(Backend<S>&, RowsOf<S>, std::span<const int>);          \
  template Array<S> one_over_other(Backend<S>&, RowsOf<S>, RowsOf<S>);                  \
  template Array<S> copy_of(Backend<S>&, RowsOf<S>, std::type_identity_t<S>);           \
  template Array<S> with_class_row(Backend<S>&, RowsOf<S>, RowsOf<S>, Index, ClassRow); \
  template Array<S> without_class_row(Backend<S>&, RowsOf<S>, Index, ClassRow);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
