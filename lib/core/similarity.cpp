#include "lib/core/similarity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "lib/core/parallel.h"
#include "lib/core/row_products.h"

namespace moe {
namespace {

template <class A, class B>
double dot(const A* a, const B* b, Index n) {
  double part[8] = {};
  Index i = 0;
  for (; i + 8 <= n; i += 8) {
    for (Index j = 0; j < 8; ++j)
      part[j] += double(a[i + j]) * double(b[i + j]);
  }
  for (; i < n; ++i)
    part[0] += double(a[i]) * double(b[i]);
  return ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7]));
}

// cosine from a product and two squares; 0 where a vector is 0
double over(double product, double a, double b) {
  const double size = std::sqrt(a * b);
  return size > 0 ? product / size : 0;
}

// Products of every pair to cosines.
Matrix<double> cosines(Matrix<double> product) {
  const Index n = product.rows();
  std::vector<double> square;
  for (Index i = 0; i < n; ++i)
    square.push_back(product(i, i));
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j <= i; ++j)
      product(i, j) = product(j, i) = over(product(i, j), square[i], square[j]);
  }
  return product;
}

// Of every pair of experts, each of them one row.
template <class T>
Matrix<double> expert_products(View<const T> m, Index experts) {
  if (m.empty())
    return Matrix<double>(experts, experts);
  return row_products(View<const T>{m.data, experts, m.size() / experts});
}

Matrix<double> sum_of(Matrix<double> a, const Matrix<double>& b) {
  for (Index i = 0; i < a.size(); ++i)
    a.data()[i] += b.data()[i];
  return a;
}

template <class T>
Matrix<T> neurons(const ExpertMatrices<T>& w, Index e) {  // (I, 2H or 3H) of one expert
  const Index width = w.down.cols;
  const Index hidden = w.down.rows / w.experts;
  const Index parts = w.gate.empty() ? 2 : 3;
  Matrix<T> out(width, parts * hidden);
  for (Index n = 0; n < width; ++n) {
    T* to = out.row(n).data();
    if (!w.gate.empty())
      to = std::copy_n(w.gate.row(e * width + n).data(), hidden, to);
    to = std::copy_n(w.up.row(e * width + n).data(), hidden, to);
    for (Index h = 0; h < hidden; ++h)
      to[h] = w.down(e * hidden + h, n);
  }
  return out;
}

// (I) products of each neuron with itself
template <class T>
std::vector<double> squares(const Matrix<T>& rows) {
  std::vector<double> out;
  for (Index i = 0; i < rows.rows(); ++i)
    out.push_back(dot(rows.row(i).data(), rows.row(i).data(), rows.cols()));
  return out;
}

template <class T>
double matched(const Matrix<T>& a, const Matrix<T>& b) {
  const Index n = a.rows();
  const Matrix<double> product = row_products(a.view(), b.view());
  const std::vector<double> sa = squares(a);
  const std::vector<double> sb = squares(b);
  Matrix<double> cosine(n, n);
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j < n; ++j)
      cosine(i, j) = over(product(i, j), sa[i], sb[j]);
  }
  const std::vector<int> row = best_matching(cosine.view());
  double sum = 0;
  double all_a = 0;
  double all_b = 0;
  for (Index j = 0; j < n; ++j) {
    sum += product(row[j], j);
    all_a += sa[j];
    all_b += sb[j];
  }
  return over(sum, all_a, all_b);
}

}  // namespace

template <class T>
WeightCosines expert_weight_cosines(const ExpertMatrices<T>& w) {
  Matrix<double> up = expert_products(w.up, w.experts);
  Matrix<double> all = sum_of(expert_products(w.gate, w.experts), up);
  return {cosines(sum_of(std::move(all), expert_products(w.down, w.experts))),
          cosines(std::move(up))};
}

namespace {

// Adds the mean of `count` rows, row by row.
template <class T>
void add_mean(const T* rows, Index count, std::span<double> out) {
  for (Index n = 0; n < count; ++n) {
    const T* row = rows + n * Index(out.size());
    for (std::size_t c = 0; c < out.size(); ++c)
      out[c] += double(row[c]) / double(count);
  }
}

// Of expert e, (2H or 3H).
template <class T>
void add_mean_neuron(const ExpertMatrices<T>& w, Index e, std::span<double> out) {
  const Index width = w.down.cols;
  const auto hidden = std::size_t(w.down.rows / w.experts);
  if (!w.gate.empty())
    add_mean(w.gate.row(e * width).data(), width, out.first(hidden));
  add_mean(w.up.row(e * width).data(), width, out.subspan(out.size() - 2 * hidden, hidden));
  const std::span<double> down = out.last(hidden);
  for (std::size_t h = 0; h < hidden; ++h) {
    for (const T v : w.down.row(e * Index(hidden) + Index(h)))
      down[h] += double(v) / double(width);
  }
}

}  // namespace

template <class T>
Matrix<double> expert_neuron_mean_cosine(const ExpertMatrices<T>& w) {
  const Index parts = w.gate.empty() ? 2 : 3;
  Matrix<double> mean(w.experts, parts * w.down.rows / w.experts);
  parallel_for(w.experts, 1, [&](Index first, Index last) {
    for (Index e = first; e < last; ++e)
      add_mean_neuron(w, e, mean.row(e));
  });
  return cosines(row_products(mean.view()));
}

template <class T>
Matrix<double> expert_matched_cosine(const ExpertMatrices<T>& w) {
  std::vector<Matrix<T>> all;
  for (Index e = 0; e < w.experts; ++e)
    all.push_back(neurons(w, e));
  Matrix<double> out(w.experts, w.experts);
  parallel_for(w.experts, 1, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i) {
      for (Index j = 0; j <= i; ++j)
        out(i, j) = i == j ? 1 : matched(all[i], all[j]);
    }
  });
  for (Index i = 0; i < w.experts; ++i) {
    for (Index j = 0; j < i; ++j)
      out(j, i) = out(i, j);
  }
  return out;
}

template <class T>
std::vector<int> expert_unit_order(const ExpertMatrices<T>& w, Index a, Index b) {
  const Matrix<T> to = neurons(w, a);
  const Matrix<T> from = neurons(w, b);
  const std::vector<double> square = squares(to);
  const std::vector<double> own = squares(from);
  Matrix<double> cosine = row_products(from.view(), to.view());
  for (Index i = 0; i < cosine.rows(); ++i) {
    for (Index j = 0; j < cosine.cols(); ++j)
      cosine(i, j) = over(cosine(i, j), own[i], square[j]);
  }
  return best_matching(cosine.view());
}

template <class T>
Matrix<double> expert_output_cosine(View<const T> y, Index experts) {
  const Index tokens = y.rows / experts;
  Matrix<double> sum(experts, experts);
  for (Index t = 0; t < tokens; ++t) {
    const Matrix<double> one = cosines(row_products(y.block(t, experts)));
    for (Index i = 0; i < one.size(); ++i)
      sum.data()[i] += one.data()[i] / double(tokens);
  }
  return sum;
}

namespace {

// Rows e, experts + e, ... of (T*E,H) less their mean.
template <class T>
Matrix<double> centred(View<const T> y, Index experts, Index e) {
  const Index tokens = y.rows / experts;
  Matrix<double> out(tokens, y.cols);
  std::vector<double> mean(std::size_t(y.cols), 0.0);
  for (Index t = 0; t < tokens; ++t) {
    for (Index c = 0; c < y.cols; ++c)
      mean[c] += double(y(t * experts + e, c)) / double(tokens);
  }
  for (Index t = 0; t < tokens; ++t) {
    for (Index c = 0; c < y.cols; ++c)
      out(t, c) = double(y(t * experts + e, c)) - mean[c];
  }
  return out;
}

}  // namespace

template <class T>
Matrix<double> expert_output_cka(View<const T> y, Index experts) {
  const Index tokens = y.rows / experts;
  // a row (T,T) an expert: ||Y'X||^2 = sum of the products of XX' and YY'
  Matrix<double> gram(experts, tokens * tokens);
  parallel_for(experts, 1, [&](Index first, Index last) {
    for (Index e = first; e < last; ++e) {
      const Matrix<double> x = centred(y, experts, e);
      std::ranges::copy(row_products(x.view()).flat(), gram.row(e).begin());
    }
  });
  return cosines(row_products(gram.view()));
}

template <class T>
Matrix<double> expert_mean_output_angle(View<const T> y, Index experts) {
  const Index tokens = y.rows / experts;
  Matrix<double> mean(experts, y.cols);
  for (Index t = 0; t < tokens; ++t) {
    for (Index e = 0; e < experts; ++e) {
      for (Index c = 0; c < y.cols; ++c)
        mean(e, c) += double(y(t * experts + e, c)) / double(tokens);
    }
  }
  Matrix<double> out = cosines(row_products(mean.view()));
  for (double& c : out.flat())
    c = std::acos(std::clamp(c, -1.0, 1.0)) / std::numbers::pi;
  return out;
}

template <class T>
Matrix<double> expert_ttm_distance(View<const T> y, Index experts, View<const int> chosen) {
  const Index tokens = y.rows / experts;
  Matrix<double> sum(experts, experts), out(experts, experts);
  std::vector<double> used(std::size_t(experts), 0);
  std::vector<double> square(std::size_t(experts), 0);
  for (Index t = 0; t < tokens; ++t) {
    for (Index e = 0; e < experts; ++e) {
      square[e] = dot(y.row(t * experts + e).data(), y.row(t * experts + e).data(), y.cols);
    }
    for (const int i : chosen.row(t)) {
      if (i < 0)
        continue;
      used[i] += 1;
      for (Index j = 0; j < experts; ++j) {
        sum(i, j) +=
            1 - over(dot(y.row(t * experts + i).data(), y.row(t * experts + j).data(), y.cols),
                     square[i], square[j]);
      }
    }
  }
  for (Index i = 0; i < experts; ++i) {
    for (Index j = 0; j < experts; ++j) {
      const double n = used[i] + used[j];
      out(i, j) = i != j && n > 0 ? (sum(i, j) + sum(j, i)) / n : 0;
    }
  }
  return out;
}

namespace {
// Columns join one by one; each is matched along the shortest augmenting path under potentials that
// keep all reduced costs from going negative.
class Matching {
 public:
  explicit Matching(View<const double> value)
      : value_(value),
        n_(value.cols),
        of_col_(std::size_t(n_) + 1, 0),
        of_row_(std::size_t(n_) + 1, 0),
        owner_(std::size_t(n_) + 1, n_),
        before_(std::size_t(n_) + 1, n_) {}

  void join(Index column) {
    slack_.assign(std::size_t(n_) + 1, std::numeric_limits<double>::infinity());
    done_.assign(std::size_t(n_) + 1, 0);
    Index row = n_;
    owner_[n_] = column;
    do {
      row = next_row(row);
    } while (owner_[row] != n_);
    for (; row != n_; row = before_[row])
      owner_[row] = owner_[before_[row]];
  }
  std::vector<int> rows() const {  // of each column
    std::vector<int> out(static_cast<std::size_t>(n_));
    for (Index r = 0; r < n_; ++r)
      out[owner_[r]] = int(r);
    return out;
  }

 private:
  // Reaches from `row` the row that costs least, and moves the potentials so that it costs nothing.
  Index next_row(Index row) {
    done_[row] = 1;
    const Index col = owner_[row];
    double least = std::numeric_limits<double>::infinity();
    Index next = n_;
    for (Index r = 0; r < n_; ++r) {
      if (done_[r])
        continue;
      const double cost = -value_(r, col) - of_col_[col] - of_row_[r];
      if (cost < slack_[r]) {
        slack_[r] = cost;
        before_[r] = row;
      }
      if (slack_[r] < least) {
        least = slack_[r];
        next = r;
      }
    }
    for (Index r = 0; r <= n_; ++r) {
      if (done_[r]) {
        of_col_[owner_[r]] += least;
        of_row_[r] -= least;
      } else {
        slack_[r] -= least;
      }
    }
    return next;
  }

  View<const double> value_;
  Index n_;
  std::vector<double> of_col_, of_row_, slack_;
  // owner[row] = column; n = nobody, and the extra row
  std::vector<Index> owner_, before_;
  std::vector<std::uint8_t> done_;
};
}  // namespace

std::vector<int> best_matching(View<const double> value) {
  Matching matching(value);
  for (Index c = 0; c < value.cols; ++c)
    matching.join(c);
  return matching.rows();
}

#define MOE_SIMILARITY(T)                                                              \
  template WeightCosines expert_weight_cosines(const ExpertMatrices<T>&);              \
  template Matrix<double> expert_neuron_mean_cosine(const ExpertMatrices<T>&);         \
  template Matrix<double> expert_matched_cosine(const ExpertMatrices<T>&);             \
  template std::vector<int> expert_unit_order(const ExpertMatrices<T>&, Index, Index); \
  template Matrix<double> expert_output_cosine(View<const T>, Index);                  \
  template Matrix<double> expert_output_cka(View<const T>, Index);                     \
  template Matrix<double> expert_mean_output_angle(View<const T>, Index);              \
  template Matrix<double> expert_ttm_distance(View<const T>, Index, View<const int>);
MOE_SIMILARITY(float)
MOE_SIMILARITY(double)

}  // namespace moe
