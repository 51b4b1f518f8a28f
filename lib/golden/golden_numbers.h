// What all files of single mixers are read and compared with: tensors by name, parameters by the
// names of the file, the rows of a result.
#pragma once
#include <algorithm>
#include <functional>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/golden/comparison.h"
#include "lib/golden/golden_case.h"
#include "lib/layer/parameter.h"
#include "lib/model/model_parameter.h"

namespace moe::golden {

template <class S>
Matrix<S> numbers(const GoldenFile& file, const std::string& name, Index rows, Index cols) {
  const auto a = file.reals(name);
  if (a.size() != rows * cols)
    throw Error(Exit::input, concat(name, " has ", a.size(), " numbers instead of ", rows * cols));
  Matrix<S> m(rows, cols);
  std::ranges::transform(a.values, m.data(), [](double v) { return S(v); });
  return m;
}

// "mamba.in_proj.weight" -> "in_proj.weight"
inline std::string own_name(const std::string& published) {
  return published.substr(published.find('.') + 1);
}

// Parameters by the names of the file; every one of either side must have its fellow.
template <class S>
void load(const GoldenFile& file, const std::vector<ModelParameter<S>>& all, Backend<S>& backend,
          const std::function<std::string(const std::string& published)>& name_of = own_name) {
  std::vector<std::string> unused;
  for (const std::string& name : file.datasets()) {
    if (name.starts_with("param/"))
      unused.push_back(name);
  }
  for (const ModelParameter<S>& p : all) {
    const std::string name = "param/" + name_of(p.published);
    if (!file.has(name))
      throw Unsupported{concat("our mixer has ", name_of(p.published), ", which is not here")};
    const Matrix<S> m =
        numbers<S>(file, name, p.parameter->value().rows, p.parameter->value().cols);
    p.parameter->set(m.view());
    p.parameter->want_grad(backend);
    std::erase(unused, name);
  }
  if (!unused.empty())
    throw Unsupported{concat(unused[0], " has no place in our mixer")};
}

struct Tolerances {
  double value, gradient;
};

template <class S>
void compare(Comparison& out, const std::string& name, View<const S> ours, double tolerance) {
  const std::vector<double> wide(ours.data, ours.data + ours.size());
  out.reals(name, wide, tolerance);
}
template <class S>
double weighed(const Matrix<S>& a, const Matrix<S>& b) {
  double sum = 0;
  for (Index i = 0; i < b.size(); ++i)
    sum += double(a.data()[i]) * double(b.data()[i]);
  return sum;
}

}  // namespace moe::golden
