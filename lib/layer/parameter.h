// A trained tensor: its name, shape, value, gradient. Writing goes through mutate(), which bumps
// the version, so that copies a backend keeps of it (packed, bf16) are made anew. The gradient
// exists only for what is trained. The numbers may lie elsewhere, in a file say: then there is a
// shape, and read() asks for rows of them; or they may be made each time products read them, from
// few bits, and then they are frozen. Of a parameter that ranks share out, some rows lie here and
// the others on other ranks, which read() asks as well.
#pragma once
#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
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
    return !value_.empty() || empty() || source_;
  }
  // From now on rows are made by `source` whenever they are read.
  void come_from(std::shared_ptr<const RowSource> source) requires std::is_same_v<S, float> {
    source_ = std::move(source);
    value_ = {};
    freeze();
  }
  // The numbers that lie here go, before they are said to come from elsewhere.
  void part_with_numbers() {
    value_ = {};
    ++version_;
  }
  bool made_when_read() const {
    return source_ != nullptr;
  }
  const std::shared_ptr<const RowSource>& source() const {
    return source_;
  }
  // Of numbers that lie elsewhere: from now on these are in memory in their place, (all rows).
  void hold(View<const S> host) {
    value_ = Array<S>(*memory_, host);
    ++version_;
  }
  // Reads numbers that lie elsewhere into memory.
  void bring() {
    const Matrix<S> host = to_host();
    hold(host.view());
  }
  // Of all rows, or of those that do not lie here.
  void lie_elsewhere(ReadRows<S> read) {
    read_ = std::move(read);
    elsewhere_ = nullptr;
  }
  // The same, of a mapped file: products may read the rows there (weight_elsewhere()).
  void lie_in(std::shared_ptr<const RowSource> file) requires std::is_same_v<S, float> {
    read_ = [file](Index first, View<float> out) {
      file->read(first, out);
    };
    elsewhere_ = std::move(file);
  }
  const RowSource* elsewhere() const {  // null where lie_in() did not say it
    return elsewhere_.get();
  }
  Weight weight_elsewhere() const {
    Weight w(nullptr, DType::f32, shape_.rows, shape_.cols);
    w.source = elsewhere_.get();
    return w;
  }
  void read(Index first, View<S> host) const {  // rows first .. first+host.rows, wherever they lie
    for (Index done = 0; done < host.rows;) {
      const Index row = first + done;
      const bool here = row >= first_ && row < first_ + value_.rows();
      const Index end = here ? first_ + value_.rows() : row < first_ ? first_ : first + host.rows;
      const View<S> part = host.slice(done, std::min(end, first + host.rows) - row);
      read_part(here && stored(), row, part);
      done += part.rows;
    }
  }
  // From now on only these rows lie here, read from where they all were; the others are read from
  // `others`. Before gradients are wanted.
  void keep_rows(Index first, Index rows, ReadRows<S> others) {
    Matrix<S> host(rows, shape_.cols);
    if (rows > 0)
      read(first, host.view());
    value_ = rows > 0 ? Array<S>(*memory_, std::as_const(host).view()) : Array<S>{};
    first_ = first;
    held_ = rows;
    read_ = std::move(others);
    ++version_;
  }
  bool shared_out() const {
    return held_ >= 0;
  }
  // Of rows that lie here the first; 0 where all do.
  Index first_held() const {
    return first_;
  }
  Index held_rows() const {  // also while the numbers are away
    return shared_out() ? held_ : shape_.rows;
  }
  // Puts other numbers in the place of those that lie here, and returns these. Empty: they are
  // away, and nobody may use them before they come back.
  Array<S> exchange_value(Array<S> other) {
    ++version_;
    away_ = other.empty();
    return std::exchange(value_, std::move(other));
  }

  // of all rows; no more than a shape where not stored(), and where rows lie on other ranks
  View<const S> value() const {
    return value_.empty() || shared_out() ? shape_ : value_.view();
  }
  // the rows that lie here
  View<const S> held() const {
    return shared_out() ? value_.view() : value();
  }
  View<S> mutate() {
    here();
    ++version_;
    return value_.view();
  }
  void set(View<const S> host) {  // all rows
    here();
    ++version_;
    value_.set(shared_out() ? host.slice(first_, held_) : host);
  }
  Matrix<S> to_host() const {
    Matrix<S> m(shape_.rows, shape_.cols);
    if (!empty())
      read(0, m.view());
    return m;
  }
  Weight weight() const {
    if (source_) {
      Weight w(nullptr, DType::f32, shape_.rows, shape_.cols, id_, version_);
      w.source = source_.get();
      return w;
    }
    here();
    return Weight{value_.view().data, dtype_of<S>, held().rows, shape_.cols, id_, version_};
  }

  bool trained() const {
    return trained_;
  }
  void freeze() {
    trained_ = false;
    grad_ = {};
  }
  void want_grad(Memory& memory) {  // makes the gradient, zeroed, if this is trained
    if (trained_ && grad_.empty() && (away_ || !value_.empty()))
      grad_ = Array<S>::zeros(memory, held_rows(), shape_.cols);
  }
  View<S> grad() {
    return grad_.view();
  }  // empty where none is wanted
  void clear_grad() {
    grad_.clear();
  }
  // Puts another array in the place of the gradient and returns what was there; empty = none until
  // want_grad().
  Array<S> exchange_grad(Array<S> other) {
    return std::exchange(grad_, std::move(other));
  }

 private:
  void read_part(bool from_here, Index first, View<S> host) const {
    if constexpr (std::is_same_v<S, float>) {
      if (source_)
        return source_->read(first, host);
    }
    if (from_here) {
      return memory_->to_host(value_.view().slice(first - first_, host.rows).data, host.data,
                              std::size_t(host.size()) * sizeof(S));
    }
    if (!read_)
      throw Error(Exit::bug, concat("parameter '", name_,
                                    "' has neither values nor a source to read them from"));
    read_(first, host);
  }
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
  bool trained_ = true, away_ = false;
  Memory* memory_ = nullptr;
  View<const S> shape_;
  Index first_ = 0, held_ = -1;  // rows that lie here; -1 = all, or none
  Array<S> value_, grad_;
  ReadRows<S> read_;
  std::shared_ptr<const RowSource> source_, elsewhere_;
};

}  // namespace moe
