#include "lib/golden/comparison.h"

#include "lib/core/text.h"

namespace moe {

void Comparison::reals(const std::string& name, std::span<const double> ours, double tolerance) {
  if (!file_.has("expected/" + name))
    return;
  seen_.insert("expected/" + name);
  const auto want = file_.reals("expected/" + name).values;
  if (want.size() != ours.size())
    return disagree(concat(name, " has ", want.size(), " values, computed are ", ours.size()));
  double scale = 1;
  for (const double v : want)
    scale = std::max(scale, std::abs(v));
  for (std::size_t i = 0; i < want.size(); ++i) {
    double error = std::abs(ours[i] - want[i]) / scale;
    if (std::isnan(error))
      error = std::numeric_limits<double>::infinity();
    if (error > worst_.error)
      worst_ = {error, concat(name, "[", i, "]")};
    if (!(error <= tolerance))
      disagree(concat(name, "[", i, "] is ", ours[i], " and should be ", want[i]));
  }
}

void Comparison::integers(const std::string& name, std::span<const std::int64_t> ours) {
  if (!file_.has("expected/" + name))
    return;
  seen_.insert("expected/" + name);
  const auto want = file_.integers("expected/" + name).values;
  if (want.size() != ours.size())
    return disagree(concat(name, " has ", want.size(), " values, computed are ", ours.size()));
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (want[i] != ours[i])
      return disagree(concat(name, "[", i, "] is ", ours[i], " and should be ", want[i]));
  }
}

void Comparison::ids(const std::string& name, const Matrix<int>& ours, Index width) {
  if (!file_.has("expected/" + name))
    return;
  if (ours.cols() > width)
    return disagree(concat(name, " has ", width, " columns and ours ", ours.cols()));
  std::vector<std::int64_t> wide(std::size_t(ours.rows() * width), -1);
  for (Index t = 0; t < ours.rows(); ++t) {
    for (Index j = 0; j < ours.cols(); ++j)
      wide[t * width + j] = ours(t, j);
  }
  integers(name, wide);
}
void Comparison::weights(const std::string& name, const Matrix<double>& ours, Index width) {
  if (!file_.has("expected/" + name))
    return;
  if (ours.cols() > width)
    return disagree(concat(name, " has ", width, " columns and ours ", ours.cols()));
  Matrix<double> wide(ours.rows(), width);
  for (Index t = 0; t < ours.rows(); ++t)
    std::ranges::copy(ours.row(t), wide.row(t).begin());
  reals(name, wide.flat());
}

std::vector<std::string> Comparison::left() const {
  std::vector<std::string> out;
  for (const std::string& name : file_.datasets()) {
    if (name.starts_with("expected/") && !seen_.contains(name))
      out.push_back(name.substr(9));
  }
  return out;
}

}  // namespace moe
