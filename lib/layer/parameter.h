// A trained tensor: its name, shape, value, gradient. Writing goes through mutate(), which bumps the version, so that copies a
// backend keeps of it (packed, bf16) are made anew. The gradient exists only for what is trained.
#pragma once
#include <atomic>
#include <string>
#include <vector>

#include "lib/backend/array.h"
#include "lib/backend/weight.h"

namespace moe {

enum class ParameterKind { matrix, vector };  // vectors (norms, biases) get no weight decay

inline std::uint64_t fresh_parameter_id() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

template <class S>
class Parameter {
 public:
  Parameter() = default;
  Parameter(Memory& memory, std::string name, std::vector<Index> dims, ParameterKind kind = ParameterKind::matrix)
      : name_(std::move(name)), dims_(std::move(dims)), kind_(kind), id_(fresh_parameter_id()) {
    Index rows = 1;
    for (std::size_t i = 0; i + 1 < dims_.size(); ++i) rows *= dims_[i];
    value_ = Array<S>::zeros(memory, rows, dims_.back());
  }

  const std::string& name() const { return name_; }
  void rename(std::string name) { name_ = std::move(name); }
  const std::vector<Index>& dims() const { return dims_; }
  ParameterKind kind() const { return kind_; }
  bool empty() const { return value_.empty(); }
  Index size() const { return value_.rows() * value_.cols(); }

  View<const S> value() const { return value_.view(); }
  View<S> mutate() { return ++version_, value_.view(); }
  void set(View<const S> host) { ++version_, value_.set(host); }
  Matrix<S> to_host() const { return value_.to_host(); }
  Weight weight() const { return {value_.view().data, dtype_of<S>, value_.rows(), value_.cols(), id_, version_}; }

  bool trained() const { return trained_; }
  void freeze() { trained_ = false, grad_ = {}; }
  void want_grad(Memory& memory) {  // makes the gradient, zeroed, if this is trained
    if (trained_ && grad_.empty() && !value_.empty()) grad_ = Array<S>::zeros(memory, value_.rows(), value_.cols());
  }
  View<S> grad() { return grad_.view(); }  // empty where none is wanted
  void clear_grad() { grad_.clear(); }

 private:
  std::string name_;
  std::vector<Index> dims_;
  ParameterKind kind_ = ParameterKind::matrix;
  std::uint64_t id_ = 0, version_ = 1;
  bool trained_ = true;
  Array<S> value_, grad_;
};

}  // namespace moe
