// Host copies of the arguments of one operation, made in the order of the arguments before it runs,
// and the way back of what it wrote: for running the definition beside, or instead of, a backend.
#pragma once
#include <deque>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "lib/backend/backend.h"

namespace moe {

template <class S>
class HostCopies {
 public:
  HostCopies(Operation op, Memory& device, Memory& host) : op_(op), device_(device), host_(host) {}
  HostCopies(const HostCopies&) = delete;

  // The host copy of an argument; references and views live as long as the copies.
  View<S> of(View<S>);
  View<const S> of(View<const S>);
  View<const int> of(View<const int>);
  Weight of(const Weight&);
  const Plan& of(const Plan&);
  ExpertWeights<S> of(const ExpertWeights<S>&);
  ExpertGrads<S> of(const ExpertGrads<S>&);
  const ExpertTape<S>& of(const ExpertTape<S>&);
  // An empty tape for the operation to fill beside the device's.
  ExpertTape<S>& made(ExpertTape<S>& device);
  // What holds nothing of the device is passed on.
  template <class T>
  requires std::is_arithmetic_v<T> T of(T value) {
    return passed(value);
  }
  Activation of(Activation a) {
    return passed(a);
  }
  std::span<const Index> of(std::span<const Index> s) {
    return passed(s);
  }
  const AttentionShape& of(const AttentionShape& s) {
    return passed(s);
  }
  const KeyRule& of(const KeyRule& r) {
    return passed(r);
  }
  const Rotation& of(const Rotation& r) {
    return passed(r);
  }
  const AdamW& of(const AdamW& o) {
    return passed(o);
  }

  // An argument that the operation writes, on the device and on the host.
  struct Written {
    std::string name;
    View<S> device, host;
  };
  std::vector<Written> written() const;
  // Copies to the device what was written on the host.
  void write_back();
  // What the operation returned, as the device would return it.
  double returned(double value) {
    return value;
  }
  Plan returned(Plan on_host);

  // Throws Error(bug) where operations.def names another number of arguments.
  void expect(std::size_t arguments) const;
  Matrix<S> fetched(View<const S>);  // from the device
  std::string text() const;          // "norm (4,3) (1,3)": the operation and what it reads

 private:
  template <class T>
  const T& passed(const T& value) {
    ++argument_;
    return value;
  }
  template <class T>
  Array<T> array(Memory& from, Memory& to, const Array<T>&);
  View<S> copy(View<const S>);
  Weight bytes_of_weight(const Weight&);
  View<S> copy_written(std::string name, View<S>);
  void add_shape(Index rows, Index cols);

  Operation op_;
  Memory& device_;
  Memory& host_;
  std::vector<std::string> names_ = arguments_of(op_);
  std::size_t argument_ = 0;  // the next one
  std::string shapes_;
  std::deque<Matrix<S>> numbers_;
  std::deque<Matrix<int>> ids_;
  std::deque<std::vector<std::byte>> bytes_;
  std::deque<Plan> plans_;
  std::deque<ExpertTape<S>> tapes_;
  std::vector<Written> written_;
  std::vector<std::pair<ExpertTape<S>*, ExpertTape<S>*>> made_;  // device, host
};

}  // namespace moe
