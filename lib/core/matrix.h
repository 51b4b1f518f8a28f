// A matrix in host memory that owns its numbers; zero-filled unless told otherwise.
#pragma once
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "lib/core/view.h"

namespace moe {

template <class T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(Index rows, Index cols, T fill = {}) : Matrix(unset(rows, cols)) {
    std::ranges::fill(flat(), fill);
  }
  // Numbers that somebody sets, every one, before they are read: those of a large matrix by all the
  // threads that make them.
  static Matrix unset(Index rows, Index cols) {
    Matrix m;
    if (rows * cols != 0)
      m.cells_ = std::make_unique_for_overwrite<T[]>(std::size_t(rows * cols));
    m.rows_ = rows;
    m.cols_ = cols;
    return m;
  }
  Matrix(const Matrix& o) : Matrix(unset(o.rows_, o.cols_)) {
    std::ranges::copy(o.flat(), data());
  }
  Matrix(Matrix&& o) noexcept {
    swap(o);
  }
  Matrix& operator=(Matrix o) noexcept {
    swap(o);
    return *this;
  }

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
    return cells_.get();
  }
  const T* data() const {
    return cells_.get();
  }
  View<T> view() {
    return {data(), rows_, cols_};
  }
  View<const T> view() const {
    return {data(), rows_, cols_};
  }
  std::span<T> row(Index r) {
    return view().row(r);
  }
  std::span<const T> row(Index r) const {
    return view().row(r);
  }
  std::span<T> flat() {
    return view().flat();
  }
  std::span<const T> flat() const {
    return view().flat();
  }
  bool operator==(const Matrix& o) const {
    return rows_ == o.rows_ && cols_ == o.cols_ && std::ranges::equal(flat(), o.flat());
  }

 private:
  void swap(Matrix& o) noexcept {
    std::swap(rows_, o.rows_);
    std::swap(cols_, o.cols_);
    cells_.swap(o.cells_);
  }

  Index rows_ = 0, cols_ = 0;
  std::unique_ptr<T[]> cells_;
};

}  // namespace moe
