// Matrices that own their numbers: what copies, moves and assignments leave behind.
#include "lib/core/matrix.h"

#include <catch2/catch.hpp>
#include <numeric>

#include "lib/core/convert.h"

using namespace moe;

namespace {

Matrix<int> counted(Index rows, Index cols) {
  Matrix<int> m = Matrix<int>::unset(rows, cols);
  std::iota(m.flat().begin(), m.flat().end(), 1);
  return m;
}

}  // namespace

TEST_CASE("a matrix is zero unless it is told otherwise") {
  const Matrix<double> plain(3, 5);
  CHECK(std::ranges::all_of(plain.flat(), [](double v) { return v == 0; }));
  const Matrix<int> filled(2, 2, 7);
  CHECK(std::ranges::all_of(filled.flat(), [](int v) { return v == 7; }));
  const Index rows = 3 * numbers_at_once / 5;  // by several threads, the last piece shorter
  const Matrix<float> large = zeros<float>(rows, 5);
  CHECK(large == Matrix<float>(rows, 5));
}

TEST_CASE("a copy of a matrix has numbers of its own") {
  const Matrix<int> m = counted(2, 3);
  Matrix<int> copy = m;
  CHECK(copy == m);
  copy(1, 2) = 0;
  CHECK(m(1, 2) == 6);
  CHECK_FALSE(copy == m);
  copy = m;
  CHECK(copy == m);
  copy = Matrix<int>(3, 2);  // of another shape
  CHECK(copy.rows() == 3);
  CHECK_FALSE(copy == m);
  Matrix<int>& self = copy;
  copy = self;
  CHECK(copy == Matrix<int>(3, 2));
}

TEST_CASE("what was moved from is empty") {
  Matrix<int> m = counted(2, 3);
  const int* const numbers = m.data();
  Matrix<int> there = std::move(m);
  CHECK(there.data() == numbers);
  CHECK(there == counted(2, 3));
  CHECK(m.empty());
  CHECK(m.rows() == 0);
  Matrix<int> again(4, 4);
  again = std::move(there);
  CHECK(again == counted(2, 3));
}

TEST_CASE("matrices without numbers keep their shape and have no memory") {
  const Matrix<double> wide(0, 4);
  CHECK(wide.empty());
  CHECK(wide.cols() == 4);
  CHECK(wide.data() == nullptr);
  CHECK_FALSE(wide == Matrix<double>(0, 5));
}
