// The router orthogonal loss (ERNIE 4.5): mean square of the entries of (V V^T - I), V the rows of
// the router's matrix divided by their norms: experts ask for different directions. In groups only
// rows of one group are compared.
#include <algorithm>
#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"
#include "lib/router/router.h"

namespace moe {
namespace {

constexpr double least_norm = 1e-12;

class Orthogonal final : public Balancer {
 public:
  Orthogonal(double coef, int groups) : Balancer("orthogonal"), coef_(coef), groups_(groups) {}
  double coefficient() const override {
    return coef_;
  }
  bool of_matrix() const override {
    return true;
  }
  void check(const Router& router) const override {
    if (router.experts() % groups_) {
      throw Error(Exit::usage, concat("orthogonal: ", router.experts(),
                                      " experts do not split into ", groups_, " equal groups"));
    }
    const auto products = router.projections();
    if (products.empty() || products[0].rows != router.experts()) {
      throw Error(Exit::usage,
                  "orthogonal compares the rows of experts in a router's matrix, and this router "
                  "has none")
          .hint("--router softmax:k=2");
    }
  }
  double loss(const BalanceInput&, double, const BalanceGrad&) const override {
    return 0;
  }
  double matrix_loss(const Matrix<double>& w, double scale, Matrix<double>& dw) const override {
    Matrix<double> v = w;
    const std::vector<double> norm = normalised(v);
    const Index size = w.rows() / groups_;
    const double entries = double(size) * double(size) * groups_;
    Matrix<double> dv(w.rows(), w.cols());
    double loss = 0;
    for (Index a = 0; a < w.rows(); ++a) {
      const Index first = a / size * size;
      for (Index b = first; b < first + size; ++b) {
        const double off = dot(v.row(a), v.row(b)) - (a == b ? 1 : 0);
        loss += off * off / entries;
        // the entry (b,a) is the same number
        for (Index h = 0; h < w.cols(); ++h)
          dv(a, h) += scale * coef_ * 4 * off / entries * v(b, h);
      }
    }
    for (Index e = 0; e < w.rows(); ++e) {
      const double along = dot(dv.row(e), v.row(e));
      for (Index h = 0; h < w.cols(); ++h)
        dw(e, h) += (dv(e, h) - along * v(e, h)) / norm[std::size_t(e)];
    }
    return loss;
  }

 private:
  // Divides each row by its norm, and returns those.
  static std::vector<double> normalised(Matrix<double>& v) {
    std::vector<double> norm(std::size_t(v.rows()));
    for (Index e = 0; e < v.rows(); ++e) {
      norm[std::size_t(e)] = std::max(std::sqrt(dot(v.row(e), v.row(e))), least_norm);
      for (double& x : v.row(e))
        x /= norm[std::size_t(e)];
    }
    return norm;
  }
  static double dot(std::span<const double> a, std::span<const double> b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      sum += a[i] * b[i];
    return sum;
  }
  double coef_;
  int groups_;
};

}  // namespace

std::unique_ptr<Balancer> make_orthogonal_balancer(Spec& spec) {
  const double coef = spec.get("coef", 0.01, 0.0);
  return std::make_unique<Orthogonal>(coef, spec.get("groups", 1, 1));
}

}  // namespace moe
