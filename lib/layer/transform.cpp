#include "lib/layer/transform.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/error.h"

namespace moe {
namespace {

// Rows `row` of m times factor.
template <class S>
Matrix<S> rows_of(const Matrix<S>& m, std::span<const Index> row, double factor) {
  Matrix<S> out(m.empty() ? 0 : Index(row.size()), m.cols());
  for (Index i = 0; i < out.rows(); ++i) {
    for (Index j = 0; j < m.cols(); ++j)
      out(i, j) = S(double(m(row[i], j)) * factor);
  }
  return out;
}

// Column unit(e,i) of the single row m as (e,i), times factor.
template <class S>
Matrix<S> cells_of(const Matrix<S>& m, const Matrix<Index>& unit, double factor) {
  Matrix<S> out(m.empty() ? 0 : unit.rows(), unit.cols());
  for (Index i = 0; i < out.size(); ++i)
    out.data()[i] = S(double(m(0, unit.data()[i])) * factor);
  return out;
}

Index part(Index width, Index parts, const char* what) {
  if (parts < 1 || width % parts) {
    throw Error(Exit::usage, concat("a feed-forward of width ", width, " does not cut into ", parts,
                                    " equal ", what))
        .hint(concat(what, "=", std::gcd(width, std::max<Index>(parts, 1))));
  }
  return width / parts;
}

}  // namespace

template <class S>
HostExpertParameters<S> host_expert_parameters(const ExpertParameters<S>& b) {
  const auto host = [](const Parameter<S>& p) {
    return p.empty() ? Matrix<S>{} : p.to_host();
  };
  return {host(b.gate),      host(b.up),      host(b.down),
          host(b.gate_bias), host(b.up_bias), host(b.down_bias)};
}

template <class S>
void set_expert_parameters(ExpertParameters<S>& b, const HostExpertParameters<S>& h) {
  const auto set = [](Parameter<S>& p, const Matrix<S>& m) {
    if (p.size() != m.size() || (!m.empty() && p.value().cols != m.cols())) {
      throw Error(Exit::bug,
                  concat(p.name(), " has ", p.size(), " numbers and was given ", m.size()));
    }
    if (!m.empty())
      p.set(m.view());
  };
  set(b.gate, h.gate);
  set(b.up, h.up);
  set(b.down, h.down);
  set(b.gate_bias, h.gate_bias);
  set(b.up_bias, h.up_bias);
  set(b.down_bias, h.down_bias);
}

template <class S>
HostExpertParameters<S> from_units(const HostExpertParameters<S>& dense, const Matrix<Index>& unit,
                                   double scale, double outer) {
  const Index experts = unit.rows();
  const Index width = unit.cols();
  const Index hidden = dense.down.rows();
  HostExpertParameters<S> out;
  out.gate = rows_of(dense.gate, unit.flat(), scale);
  out.up = rows_of(dense.up, unit.flat(), scale);
  out.down = Matrix<S>(experts * hidden, width);
  for (Index e = 0; e < experts; ++e) {
    for (Index h = 0; h < hidden; ++h) {
      for (Index i = 0; i < width; ++i)
        out.down(e * hidden + h, i) = S(double(dense.down(h, unit(e, i))) * scale);
    }
  }
  out.gate_bias = cells_of(dense.gate_bias, unit, scale);
  out.up_bias = cells_of(dense.up_bias, unit, scale);
  out.down_bias = rows_of(dense.down_bias, std::vector<Index>(std::size_t(experts), 0), outer);
  return out;
}

Matrix<Index> units_of_copies(Index experts, Index width) {
  Matrix<Index> unit(experts, width);
  for (Index e = 0; e < experts; ++e)
    std::iota(unit.row(e).begin(), unit.row(e).end(), Index(0));
  return unit;
}

Matrix<Index> units_of_shards(Index shards, Index expansion, Index width) {
  const Index each = part(width, shards, "shards");
  Matrix<Index> unit(shards * expansion, each);
  for (Index e = 0; e < unit.rows(); ++e)
    std::iota(unit.row(e).begin(), unit.row(e).end(), e % shards * each);
  return unit;
}

Matrix<Index> units_of_parts(std::span<const Index> order, Index experts) {
  Matrix<Index> unit(experts, part(Index(order.size()), experts, "experts"));
  std::ranges::copy(order, unit.data());
  return unit;
}

template <class S>
Matrix<S> repeated_rows(const Matrix<S>& m, Index times) {
  Matrix<S> out(m.rows() * times, m.cols());
  for (Index r = 0; r < out.rows(); ++r)
    std::ranges::copy(m.row(r / times), out.row(r).begin());
  return out;
}

double granular_scale(Activation a, Index shards, Index expansion, int k, bool norm) {
  const double s = norm ? double(shards) : double(expansion) * double(shards) * double(shards) / k;
  return is_gated(a) || a == Activation::relu2 ? std::cbrt(s) : std::sqrt(s);
}

template Matrix<float> repeated_rows(const Matrix<float>&, Index);
template Matrix<double> repeated_rows(const Matrix<double>&, Index);
template HostExpertParameters<float> host_expert_parameters(const ExpertParameters<float>&);
template HostExpertParameters<double> host_expert_parameters(const ExpertParameters<double>&);
template void set_expert_parameters(ExpertParameters<float>&, const HostExpertParameters<float>&);
template void set_expert_parameters(ExpertParameters<double>&, const HostExpertParameters<double>&);
template HostExpertParameters<float> from_units(const HostExpertParameters<float>&,
                                                const Matrix<Index>&, double, double);
template HostExpertParameters<double> from_units(const HostExpertParameters<double>&,
                                                 const Matrix<Index>&, double, double);

}  // namespace moe
