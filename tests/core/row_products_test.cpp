// Products of rows: each is the sum that the header states, to the bit, whatever the sizes and the
// number of threads.
#include "lib/core/row_products.h"

#include <catch2/catch.hpp>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"

using namespace moe;

namespace {

template <class T>
Matrix<T> random(Index rows, Index cols, Rng& rng) {
  Matrix<T> m(rows, cols);
  for (T& v : m.flat())
    v = T(rng.normal());
  return m;
}

template <class T>
double product(std::span<const T> a, std::span<const T> b) {
  double part[8] = {};
  const std::size_t whole = a.size() / 8 * 8;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double term = double(a[i]) * double(b[i]);
    part[i < whole ? i % 8 : 0] += term;
  }
  return ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7]));
}

template <class T>
Index differing(const Matrix<T>& a, const Matrix<T>& b, const Matrix<double>& found) {
  Index out = 0;
  for (Index i = 0; i < a.rows(); ++i) {
    for (Index j = 0; j < b.rows(); ++j)
      out += found(i, j) != product(a.row(i), b.row(j));
  }
  return out;
}

template <class T>
void check_sizes() {
  Rng rng(5);
  const int before = threads();
  for (const Index cols : {0, 1, 7, 8, 9, 64, 2048, 2056, 4099}) {
    for (const Index rows : {0, 1, 3, 4, 5, 8, 17}) {
      const Matrix<T> a = random<T>(rows, cols, rng);
      const Matrix<T> b = random<T>(6, cols, rng);
      CAPTURE(rows, cols);
      for (const int n : {1, 3}) {
        set_threads(n);
        CHECK(differing(a, b, row_products(a.view(), b.view())) == 0);
        CHECK(differing(a, a, row_products(a.view())) == 0);
      }
    }
  }
  const Matrix<T> many = random<T>(70, 21, rng);
  CHECK(differing(many, many, row_products(many.view())) == 0);
  set_threads(before);
}

}  // namespace

TEST_CASE("products of rows are sums of eight in the order of the columns, to the bit") {
  check_sizes<float>();
  check_sizes<double>();
}

TEST_CASE("rows of other lengths have no products") {
  const Matrix<float> a(2, 3);
  const Matrix<float> b(2, 4);
  CHECK_THROWS_AS(row_products(a.view(), b.view()), Error);
}
