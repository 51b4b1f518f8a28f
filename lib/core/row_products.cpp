// Four rows by four rows at a time, their sums in registers, over stretches of columns that stay in
// a cache. Without fused multiplications, so that all levels of processors give the same bits.
#include "lib/core/row_products.h"

#include <array>

#include "lib/core/clones.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr Index lanes = 8, tile = 4;
constexpr Index stretch = 2048;  // columns, a multiple of lanes

template <class T>
using Lanes [[gnu::vector_size(8 * sizeof(T))]] = T;
struct Tile {
  double sum[tile][tile][lanes] = {};
};
template <class T>
using Rows = std::array<const T*, tile>;

template <class T, class Vector>
MOE_INLINE void load(const T* from, Vector& to) {
  __builtin_memcpy(&to, from, sizeof to);
}

// Adds to sums [i][j] the products of row a[i] and row b[j] over `count` columns, a multiple of
// lanes.
template <class T>
MOE_INLINE void add_products(const Rows<T>& a, const Rows<T>& b, Index count, Tile& sums) {
  Lanes<double> s[tile][tile];
  for (Index i = 0; i < tile; ++i) {
    for (Index j = 0; j < tile; ++j)
      load(sums.sum[i][j], s[i][j]);
  }
  for (Index c = 0; c < count; c += lanes) {
    Lanes<T> v;
    Lanes<double> x[tile];
    for (Index i = 0; i < tile; ++i) {
      load(a[i] + c, v);
      x[i] = __builtin_convertvector(v, Lanes<double>);
    }
    for (Index j = 0; j < tile; ++j) {
      load(b[j] + c, v);
      const auto y = __builtin_convertvector(v, Lanes<double>);
      for (Index i = 0; i < tile; ++i)
        s[i][j] += x[i] * y;
    }
  }
  __builtin_memcpy(sums.sum, s, sizeof s);
}

MOE_SIMD void add(const Rows<float>& a, const Rows<float>& b, Index count, Tile& sums) {
  add_products(a, b, count, sums);
}
MOE_SIMD void add(const Rows<double>& a, const Rows<double>& b, Index count, Tile& sums) {
  add_products(a, b, count, sums);
}

double sum_of(const double* p /*(lanes)*/) {
  return ((p[0] + p[4]) + (p[1] + p[5])) + ((p[2] + p[6]) + (p[3] + p[7]));
}

// Rows first, first + 1, ... from column c on; behind the last one it again.
template <class T>
Rows<T> rows_from(View<const T> m, Index first, Index c) {
  Rows<T> out;
  for (Index i = 0; i < tile; ++i)
    out[i] = m.data + std::min(first + i, m.rows - 1) * m.cols + c;
  return out;
}

struct Range {
  Index first = 0, last = 0;
  Index tiles() const {
    return (last - first + tile - 1) / tile;
  }
};

// The products of some rows of a with some of b.
template <class T>
class Block {
 public:
  Block(View<const T> a, View<const T> b, Range of_a, Range of_b)
      : a_(a), b_(b), of_a_(of_a), of_b_(of_b), sum_(std::size_t(of_a.tiles() * of_b.tiles())) {}

  void compute(Matrix<double>& out) {
    const Index whole = a_.cols / lanes * lanes;
    for (Index c = 0; c < whole; c += stretch)
      add_stretch(c, std::min(stretch, whole - c));
    for (Index i = of_a_.first; i < of_a_.last; ++i) {
      for (Index j = of_b_.first; j < of_b_.last; ++j)
        out(i, j) = product(i, j, whole);
    }
  }

 private:
  Tile& at(Index i, Index j) {  // of tiles
    return sum_[std::size_t(i * of_b_.tiles() + j)];
  }
  void add_stretch(Index c, Index count) {
    for (Index i = 0; i < of_a_.tiles(); ++i) {
      const Rows<T> left = rows_from(a_, of_a_.first + i * tile, c);
      for (Index j = 0; j < of_b_.tiles(); ++j)
        add(left, rows_from(b_, of_b_.first + j * tile, c), count, at(i, j));
    }
  }
  double product(Index i, Index j, Index whole) {
    const Index r = i - of_a_.first;
    const Index s = j - of_b_.first;
    double* sums = at(r / tile, s / tile).sum[r % tile][s % tile];
    for (Index c = whole; c < a_.cols; ++c)
      sums[0] += double(a_(i, c)) * double(b_(j, c));
    return sum_of(sums);
  }

  View<const T> a_, b_;
  Range of_a_, of_b_;
  std::vector<Tile> sum_;
};

// Rows of a block: so many that a stretch of both sides stays in a cache, and fewer where that
// leaves threads with nothing to do.
Index block_rows(Index rows) {
  return rows < 64 ? 8 : 16;
}

template <class T>
Matrix<double> products(View<const T> a, View<const T> b, bool same) {
  if (a.cols != b.cols)
    throw Error(Exit::bug, concat("rows of ", a.cols, " and of ", b.cols, " numbers"));
  Matrix<double> out(a.rows, b.rows);
  const Index high = block_rows(a.rows);
  const Index wide = block_rows(b.rows);
  const Index across = (b.rows + wide - 1) / wide;
  parallel_for((a.rows + high - 1) / high * across, 1, [&](Index first, Index last) {
    for (Index n = first; n < last; ++n) {
      const Range of_a{n / across * high, std::min(a.rows, (n / across + 1) * high)};
      const Range of_b{n % across * wide, std::min(b.rows, (n % across + 1) * wide)};
      if (!same || of_b.first <= of_a.first)
        Block<T>(a, b, of_a, of_b).compute(out);
    }
  });
  for (Index i = 0; same && i < a.rows; ++i) {
    for (Index j = i + 1; j < b.rows; ++j)
      out(i, j) = out(j, i);
  }
  return out;
}

}  // namespace

Matrix<double> row_products(View<const float> a, View<const float> b) {
  return products(a, b, false);
}
Matrix<double> row_products(View<const double> a, View<const double> b) {
  return products(a, b, false);
}
Matrix<double> row_products(View<const float> a) {
  return products(a, a, true);
}
Matrix<double> row_products(View<const double> a) {
  return products(a, a, true);
}

}  // namespace moe
