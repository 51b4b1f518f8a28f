#include "lib/core/similarity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "lib/core/parallel.h"

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

// Products of every pair to cosines, rows on threads. product(i,j) for j <= i.
template <class F>
Matrix<double> cosines(Index n, F product) {
  Matrix<double> out(n, n);
  parallel_for(n, 1, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i) {
      for (Index j = 0; j <= i; ++j)
        out(i, j) = product(i, j);
    }
  });
  std::vector<double> square;
  for (Index i = 0; i < n; ++i)
    square.push_back(out(i, i));
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j <= i; ++j)
      out(i, j) = out(j, i) = over(out(i, j), square[i], square[j]);
  }
  return out;
}

template <class T>
double block_dot(View<const T> m, Index experts, Index i, Index j) {
  if (m.empty())
    return 0;
  const Index n = m.size() / experts;
  return dot(m.data + i * n, m.data + j * n, n);
}

template <class T>
Matrix<double> neurons(const ExpertMatrices<T>& w, Index e) {  // (I, 2H or 3H) of one expert
  const Index width = w.down.cols;
  const Index hidden = w.down.rows / w.experts;
  const Index parts = w.gate.empty() ? 2 : 3;
  Matrix<double> out(width, parts * hidden);
  for (Index n = 0; n < width; ++n) {
    double* to = out.row(n).data();
    if (!w.gate.empty())
      to = std::copy_n(w.gate.row(e * width + n).data(), hidden, to);
    to = std::copy_n(w.up.row(e * width + n).data(), hidden, to);
    for (Index h = 0; h < hidden; ++h)
      to[h] = double(w.down(e * hidden + h, n));
  }
  return out;
}

double matched(const Matrix<double>& a, const Matrix<double>& b) {
  const Index n = a.rows();
  const Index d = a.cols();
  Matrix<double> product(n, n), cosine(n, n);
  std::vector<double> sa, sb;
  for (Index i = 0; i < n; ++i) {
    sa.push_back(dot(a.row(i).data(), a.row(i).data(), d));
    sb.push_back(dot(b.row(i).data(), b.row(i).data(), d));
  }
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j < n; ++j) {
      product(i, j) = dot(a.row(i).data(), b.row(j).data(), d);
      cosine(i, j) = over(product(i, j), sa[i], sb[j]);
    }
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
Matrix<double> expert_weight_cosine(const ExpertMatrices<T>& w) {
  return cosines(w.experts, [&](Index i, Index j) {
    return block_dot(w.gate, w.experts, i, j) + block_dot(w.up, w.experts, i, j) +
           block_dot(w.down, w.experts, i, j);
  });
}

template <class T>
Matrix<double> expert_up_cosine(const ExpertMatrices<T>& w) {
  return cosines(w.experts, [&](Index i, Index j) { return block_dot(w.up, w.experts, i, j); });
}

template <class T>
Matrix<double> expert_neuron_mean_cosine(const ExpertMatrices<T>& w) {
  std::vector<std::vector<double>> mean;
  for (Index e = 0; e < w.experts; ++e) {
    const Matrix<double> all = neurons(w, e);
    mean.emplace_back(std::size_t(all.cols()), 0.0);
    for (Index n = 0; n < all.rows(); ++n) {
      for (Index c = 0; c < all.cols(); ++c)
        mean.back()[c] += all(n, c) / double(all.rows());
    }
  }
  return cosines(w.experts, [&](Index i, Index j) {
    return dot(mean[i].data(), mean[j].data(), Index(mean[i].size()));
  });
}

template <class T>
Matrix<double> expert_matched_cosine(const ExpertMatrices<T>& w) {
  std::vector<Matrix<double>> all;
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
  const Matrix<double> to = neurons(w, a);
  const Matrix<double> from = neurons(w, b);
  const Index n = to.rows();
  const Index d = to.cols();
  std::vector<double> square;
  for (Index j = 0; j < n; ++j)
    square.push_back(dot(to.row(j).data(), to.row(j).data(), d));
  Matrix<double> cosine(n, n);
  parallel_for(n, 1, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i) {
      const double own = dot(from.row(i).data(), from.row(i).data(), d);
      for (Index j = 0; j < n; ++j) {
        cosine(i, j) = over(dot(from.row(i).data(), to.row(j).data(), d), own, square[j]);
      }
    }
  });
  return best_matching(cosine.view());
}

template <class T>
Matrix<double> expert_output_cosine(View<const T> y, Index experts) {
  const Index tokens = y.rows / experts;
  Matrix<double> sum(experts, experts);
  for (Index t = 0; t < tokens; ++t) {
    const Matrix<double> one = cosines(experts, [&](Index i, Index j) {
      return dot(y.row(t * experts + i).data(), y.row(t * experts + j).data(), y.cols);
    });
    for (Index i = 0; i < one.size(); ++i)
      sum.data()[i] += one.data()[i] / double(tokens);
  }
  return sum;
}

template <class T>
Matrix<double> expert_output_cka(View<const T> y, Index experts) {
  const Index tokens = y.rows / experts;
  // (T,T): ||Y'X||^2 = sum of the products of XX' and YY'
  std::vector<Matrix<double>> gram(static_cast<std::size_t>(experts));
  parallel_for(experts, 1, [&](Index first, Index last) {
    for (Index e = first; e < last; ++e) {
      Matrix<double> x(tokens, y.cols);
      for (Index c = 0; c < y.cols; ++c) {
        double mean = 0;
        for (Index t = 0; t < tokens; ++t)
          mean += double(y(t * experts + e, c)) / double(tokens);
        for (Index t = 0; t < tokens; ++t)
          x(t, c) = double(y(t * experts + e, c)) - mean;
      }
      Matrix<double>& g = gram[e] = Matrix<double>(tokens, tokens);
      for (Index a = 0; a < tokens; ++a) {
        for (Index b = 0; b <= a; ++b)
          g(a, b) = g(b, a) = dot(x.row(a).data(), x.row(b).data(), y.cols);
      }
    }
  });
  return cosines(experts, [&](Index i, Index j) {
    return dot(gram[i].data(), gram[j].data(), tokens * tokens);
  });
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
  Matrix<double> out = cosines(experts, [&](Index i, Index j) {
    return dot(mean.row(i).data(), mean.row(j).data(), y.cols);
  });
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
  template Matrix<double> expert_weight_cosine(const ExpertMatrices<T>&);              \
  template Matrix<double> expert_up_cosine(const ExpertMatrices<T>&);                  \
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
