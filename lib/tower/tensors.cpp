#include "lib/tower/tensors.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

template <class S>
TowerTensors<S>::TowerTensors() : asked_(std::make_shared<Asked>()) {}

template <class S>
TowerTensors<S>::TowerTensors(Backend<S>& backend, const std::filesystem::path& folder)
    : backend_(&backend),
      weights_(safetensors_weights(folder)),
      asked_(std::make_shared<Asked>()) {}

template <class S>
TowerTensors<S> TowerTensors<S>::of(const std::filesystem::path& folder) const {
  TowerTensors other = *this;
  if (!counts_only())
    other.weights_ = safetensors_weights(folder);
  return other;
}

template <class S>
void TowerTensors<S>::part(const std::string& name) {
  part_ = name;
  if (std::ranges::find(asked_->parts, name) == asked_->parts.end())
    asked_->parts.push_back(name);
}

template <class S>
std::vector<TowerPart> TowerTensors<S>::parts() const {
  std::vector<TowerPart> out;
  for (const std::string& name : asked_->parts)
    out.push_back({name, 0});
  for (const TowerTensor& t : asked_->tensors) {
    Index size = 0;
    checked_size(t.dims, size);
    std::ranges::find(out, t.part, &TowerPart::name)->numbers += size;
  }
  return out;
}

template <class S>
std::string TowerTensors<S>::beginning(const std::vector<std::string>& beginnings,
                                       const std::string& name) const {
  if (counts_only())
    return beginnings[0];
  const std::vector<std::string> there = weights_->names();
  for (const std::string& b : beginnings) {
    if (std::ranges::binary_search(there, concat(b, name)))
      return b;
  }
  return beginnings[0];
}

template <class S>
Matrix<S> TowerTensors<S>::matrix(const std::string& name, const Dims& dims) {
  Index size = 0;
  if (!checked_size(dims, size) || dims.empty())
    throw Error(Exit::input,
                concat("the configuration gives ", name, " the shape ", text_of(dims)));
  part(part_);
  asked_->tensors.push_back({part_, name, dims});
  if (counts_only())
    return {};
  const auto stored = weights_->open(name, dims);
  const Index rows = dims.size() == 1 ? 1 : dims[0];
  Matrix<float> numbers(rows, rows > 0 ? size / rows : 0);
  stored->to_float(0, {numbers.data(), stored->rows(), stored->cols()});
  if constexpr (std::is_same_v<S, float>) {
    return numbers;
  } else {
    Matrix<S> wide(numbers.rows(), numbers.cols());
    std::ranges::copy(numbers.flat(), wide.flat().begin());
    return wide;
  }
}

template <class S>
Array<S> TowerTensors<S>::array(const std::string& name, const Dims& dims) {
  const Matrix<S> numbers = matrix(name, dims);
  return counts_only() ? Array<S>() : Array<S>(*backend_, numbers.view());
}

template class TowerTensors<float>;
template class TowerTensors<double>;

}  // namespace moe
