#include "lib/backend/host_copies.h"

#include <utility>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

template <class S>
void HostCopies<S>::add_shape(Index rows, Index cols) {
  shapes_ += concat(" (", rows, ",", cols, ")");
}
template <class S>
std::string HostCopies<S>::text() const {
  std::string shapes = shapes_;
  if (shapes.empty() && !written_.empty())
    shapes = concat(" (", written_[0].host.rows, ",", written_[0].host.cols, ")");
  return concat(name_of(op_), shapes);
}

template <class S>
void HostCopies<S>::expect(std::size_t arguments) const {
  if (arguments == names_.size())
    return;
  throw Error(Exit::bug, concat("operations.def names ", names_.size(), " arguments of ",
                                name_of(op_), ", which has ", arguments));
}

template <class S>
Matrix<S> HostCopies<S>::fetched(View<const S> v) {
  Matrix<S> m(v.rows, v.cols);
  if (!v.empty())
    device_.to_host(v.data, m.data(), std::size_t(v.size()) * sizeof(S));
  return m;
}
template <class S>
View<S> HostCopies<S>::copy(View<const S> v) {
  return numbers_.emplace_back(fetched(v)).view();
}
template <class S>
View<S> HostCopies<S>::copy_written(std::string name, View<S> v) {
  const View<S> host = copy(v);
  written_.push_back({std::move(name), v, host});
  return host;
}
template <class S>
template <class T>
Array<T> HostCopies<S>::array(Memory& from, Memory& to, const Array<T>& a) {
  Matrix<T> m(a.rows(), a.cols());
  if (!a.empty())
    from.to_host(a.view().data, m.data(), a.bytes());
  return {to, std::as_const(m).view()};
}

template <class S>
View<S> HostCopies<S>::of(View<S> v) {
  return copy_written(names_.at(argument_++), v);
}
template <class S>
View<const S> HostCopies<S>::of(View<const S> v) {
  ++argument_;
  add_shape(v.rows, v.cols);
  return copy(v);
}
template <class S>
View<const int> HostCopies<S>::of(View<const int> v) {
  ++argument_;
  add_shape(v.rows, v.cols);
  Matrix<int>& m = ids_.emplace_back(v.rows, v.cols);
  if (!v.empty())
    device_.to_host(v.data, m.data(), std::size_t(v.size()) * sizeof(int));
  return m.view();
}
template <class S>
Weight HostCopies<S>::of(const Weight& w) {
  ++argument_;
  add_shape(w.rows, w.cols);
  return bytes_of_weight(w);
}
template <class S>
Weight HostCopies<S>::bytes_of_weight(const Weight& w) {
  std::vector<std::byte>& bytes =
      bytes_.emplace_back(std::size_t(w.rows * w.cols * bytes_of(w.dtype)));
  if (!bytes.empty())
    device_.to_host(w.data, bytes.data(), bytes.size());
  return {bytes.data(), w.dtype, w.rows, w.cols};
}
template <class S>
const Plan& HostCopies<S>::of(const Plan& p) {
  ++argument_;
  Plan& host = plans_.emplace_back();
  host.place = array(device_, host_, p.place);
  host.offset = array(device_, host_, p.offset);
  host.token = array(device_, host_, p.token);
  host.choice = array(device_, host_, p.choice);
  host.slots = p.slots;
  return host;
}
template <class S>
Plan HostCopies<S>::returned(Plan on_host) {
  Plan p;
  p.place = array(host_, device_, on_host.place);
  p.offset = array(host_, device_, on_host.offset);
  p.token = array(host_, device_, on_host.token);
  p.choice = array(host_, device_, on_host.choice);
  p.slots = on_host.slots;
  return p;
}
template <class S>
ExpertWeights<S> HostCopies<S>::of(const ExpertWeights<S>& w) {
  ++argument_;
  add_shape(w.up.rows, w.up.cols);
  const auto shared = [&](View<const S> v) {
    return View<const S>(copy(v));
  };
  return {
      w.activation,        bytes_of_weight(w.gate), bytes_of_weight(w.up), bytes_of_weight(w.down),
      shared(w.gate_bias), shared(w.up_bias),       shared(w.down_bias)};
}
template <class S>
ExpertGrads<S> HostCopies<S>::of(const ExpertGrads<S>& g) {
  ++argument_;
  return {copy_written("dgate", g.gate),       copy_written("dup", g.up),
          copy_written("ddown", g.down),       copy_written("dgate_bias", g.gate_bias),
          copy_written("dup_bias", g.up_bias), copy_written("ddown_bias", g.down_bias)};
}
template <class S>
const ExpertTape<S>& HostCopies<S>::of(const ExpertTape<S>& tape) {
  ++argument_;
  ExpertTape<S>& host = tapes_.emplace_back();
  host.gate = array(device_, host_, tape.gate);
  host.up = array(device_, host_, tape.up);
  return host;
}
template <class S>
ExpertTape<S>& HostCopies<S>::made(ExpertTape<S>& device) {
  ++argument_;
  ExpertTape<S>& host = tapes_.emplace_back();
  made_.emplace_back(&device, &host);
  return host;
}

template <class S>
auto HostCopies<S>::written() const -> std::vector<Written> {
  std::vector<Written> all = written_;
  for (const auto& [device, host] : made_) {
    all.push_back({"gate", device->gate.view(), host->gate.view()});
    all.push_back({"up", device->up.view(), host->up.view()});
  }
  return all;
}
template <class S>
void HostCopies<S>::write_back() {
  for (const Written& w : written_) {
    if (!w.device.empty())
      device_.to_device(w.host.data, w.device.data, std::size_t(w.host.size()) * sizeof(S));
  }
}

template class HostCopies<float>;
template class HostCopies<double>;

}  // namespace moe
