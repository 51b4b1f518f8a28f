// A trained tensor: its name, shape, value, gradient. Writing goes through mutate(), which bumps
// the version, so that copies a backend keeps of it (packed, bf16) are made anew. The gradient
// exists only for what is trained. The numbers may lie elsewhere, in a file say: then there is a
// shape, and read() asks for rows of them.
#pragma once
#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "lib/backend/array.h"
#include "lib/backend/weight.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

enum class ParameterKind { matrix, vector };  // vectors (norms, biases) get no weight decay
enum class Storage { own, elsewhere };        // elsewhere: for looking on, not for training

// Fills rows first .. first+out.rows, in host memory. Called from several threads at once.
template <class S>
using ReadRows = std::function<void(Index first, View<S> out)>;

inline std::uint64_t fresh_parameter_id() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

template <class S>
class Parameter {
 public:
  Parameter() = default;
  Parameter(Memory& memory, std::string name, std::vector<Index> dims,
            ParameterKind kind = ParameterKind::matrix, Storage where = Storage::own)
      : name_(std::move(name)), dims_(std::move(dims)), kind_(kind), id_(fresh_parameter_id()) {
    shape_ = {nullptr, 1, dims_.back()};
    for (std::size_t i = 0; i + 1 < dims_.size(); ++i)
      shape_.rows *= dims_[i];
    memory_ = &memory;
    if (where == Storage::own)
      value_ = Array<S>::zeros(memory, shape_.rows, shape_.cols);
  }

  const std::string& name() const {
    return name_;
  }
  void rename(std::string name) {
    name_ = std::move(name);
  }
  const std::vector<Index>& dims() const {
    return dims_;
  }
  ParameterKind kind() const {
    return kind_;
  }
  bool empty() const {
    return shape_.empty();
  }
  Index size() const {
    return shape_.size();
  }
  std::uint64_t id() const {
    return id_;
  }

  bool stored() const {
    return !value_.empty() || empty();
  }
  void lie_elsewhere(ReadRows<S> read) {
    read_ = std::move(read);
  }
  void read(Index first, View<S> host) const {  // rows first .. first+host.rows, wherever they lie
    if (!value_.empty()) {
      return memory_->to_host(value_.view().slice(first, host.rows).data, host.data,
                              std::size_t(host.size()) * sizeof(S));
    }
    if (!read_)
      throw Error(Exit::bug, concat("parameter '", name_,
                                    "' has neither values nor a source to read them from"));
    read_(first, host);
  }

  // no more than a shape where not stored()
  View<const S> value() const {
    return value_.empty() ? shape_ : value_.view();
  }
  View<S> mutate() {
    here();
    ++version_;
    return value_.view();
  }
  void set(View<const S> host) {
    here();
    ++version_;
    value_.set(host);
  }
  Matrix<S> to_host() const {
    Matrix<S> m(shape_.rows, shape_.cols);
    if (!empty())
      read(0, m.view());
    return m;
  }
  Weight weight() const {
    here();
    return Weight{value_.view().data, dtype_of<S>, shape_.rows, shape_.cols, id_, version_};
  }

  bool trained() const {
    return trained_;
  }
  void freeze() {
    trained_ = false;
    grad_ = {};
  }
  void want_grad(Memory& memory) {  // makes the gradient, zeroed, if this is trained
    if (trained_ && grad_.empty() && !value_.empty())
      grad_ = Array<S>::zeros(memory, value_.rows(), value_.cols());
  }
  View<S> grad() {
    return grad_.view();
  }  // empty where none is wanted
  void clear_grad() {
    grad_.clear();
  }

 private:
  void here() const {
    if (!stored()) {
      throw Error(Exit::bug, concat("the numbers of '", name_,
                                    "' are not in memory and were used as if they were"));
    }
  }

  std::string name_;
  std::vector<Index> dims_;
  ParameterKind kind_ = ParameterKind::matrix;
  std::uint64_t id_ = 0, version_ = 1;
  bool trained_ = true;
  Memory* memory_ = nullptr;
  View<const S> shape_;
  Array<S> value_, grad_;
  ReadRows<S> read_;
};

}  // namespace moe
