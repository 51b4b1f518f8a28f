// Some rows of what traces hold by row, in their order.
#pragma once
#include <algorithm>
#include <vector>

#include "lib/core/matrix.h"

namespace moe {

// keep: rising row numbers. What is empty, because it was not asked for, stays empty.
template <class T>
void keep_only(std::vector<T>& list, const std::vector<Index>& keep) {
  if (list.empty())
    return;
  for (std::size_t i = 0; i < keep.size(); ++i)
    list[i] = list[std::size_t(keep[i])];
  list.resize(keep.size());
}

template <class T>
void keep_only(Matrix<T>& m, const std::vector<Index>& keep) {
  if (m.empty())
    return;
  Matrix<T> out(Index(keep.size()), m.cols());
  for (std::size_t i = 0; i < keep.size(); ++i)
    std::copy(m.row(keep[i]).begin(), m.row(keep[i]).end(), out.row(Index(i)).begin());
  m = std::move(out);
}

}  // namespace moe
