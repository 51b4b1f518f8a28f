// A matrix in host memory that owns its numbers; zero-filled unless told otherwise.
#pragma once
#include <vector>

#include "lib/core/view.h"

namespace moe {

template <class T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(Index rows, Index cols, T fill = {})
      : rows_(rows), cols_(cols), cells_(std::size_t(rows * cols), fill) {}

  Index rows() const {
    return rows_;
  }
  Index cols() const {
    return cols_;
  }
  Index size() const {
    return rows_ * cols_;
  }
  bool empty() const {
    return size() == 0;
  }
  T& operator()(Index r, Index c) {
    return cells_[std::size_t(r * cols_ + c)];
  }
  const T& operator()(Index r, Index c) const {
    return cells_[std::size_t(r * cols_ + c)];
  }
  T* data() {
    return cells_.data();
  }
  const T* data() const {
    return cells_.data();
  }
  View<T> view() {
    return {cells_.data(), rows_, cols_};
  }
  View<const T> view() const {
    return {cells_.data(), rows_, cols_};
  }
  std::span<T> row(Index r) {
    return view().row(r);
  }
  std::span<const T> row(Index r) const {
    return view().row(r);
  }
  std::span<T> flat() {
    return cells_;
  }
  std::span<const T> flat() const {
    return cells_;
  }
  bool operator==(const Matrix&) const = default;

 private:
  Index rows_ = 0, cols_ = 0;
  std::vector<T> cells_;
};

}  // namespace moe
