#include "lib/layer/crossing.h"

#include <memory>
#include <utility>

#include "lib/backend/host_memory.h"
#include "lib/core/error.h"
#include "lib/core/profile.h"

namespace moe {
namespace {

template <class S>
std::vector<Parameter<S>*> all_of(ExpertParameters<S>& p) {
  std::vector<Parameter<S>*> all;
  p.collect(all);
  return all;
}

// Arrays as bytes that an exchange reads or writes: in place on a host, else copies on it.
template <class S>
class Staged {
 public:
  Staged(Memory& memory, bool on_host) : memory_(memory), on_host_(on_host) {}

  void send(View<const S> rows) {
    if (on_host_ || rows.empty())
      return send_.push_back(std::as_bytes(rows.flat()));
    Matrix<S>& copy = *copies_.emplace_back(std::make_unique<Matrix<S>>(rows.rows, rows.cols));
    memory_.to_host(rows.data, copy.data(), std::size_t(rows.size()) * sizeof(S));
    send_.push_back(std::as_bytes(copy.flat()));
  }
  void receive(View<S> rows) {
    if (on_host_ || rows.empty())
      return receive_.push_back(std::as_writable_bytes(rows.flat()));
    Matrix<S>& copy = *copies_.emplace_back(std::make_unique<Matrix<S>>(rows.rows, rows.cols));
    receive_.push_back(std::as_writable_bytes(copy.flat()));
    back_.push_back({&copy, rows});
  }
  void exchange(Comm& group, About about) {
    group.exchange(about, send_, receive_);
    for (const auto& [from, to] : back_)
      memory_.to_device(from->data(), to.data, std::size_t(to.size()) * sizeof(S));
  }

 private:
  struct Back {
    Matrix<S>* from;
    View<S> to;
  };
  Memory& memory_;
  bool on_host_;
  std::vector<std::unique_ptr<Matrix<S>>> copies_;
  std::vector<Back> back_;
  std::vector<ConstBytes> send_;
  std::vector<Bytes> receive_;
};

}  // namespace

template <class S>
Crossing<S>::Crossing(Backend<S>& backend, Comm& group, int layer, int experts, bool weighted,
                      ExpertParameters<S>& parameters, Move move)
    : backend_(backend),
      group_(group),
      layer_(layer),
      experts_(experts),
      on_host_(dynamic_cast<HostBackend<S>*>(&backend) != nullptr),
      weighted_(weighted),
      parameters_(parameters),
      move_(move),
      gradient_(std::size_t(group.size())) {
  for (Parameter<S>* p : all_of(parameters_)) {
    const Index each = p->value().rows / experts;
    p->keep_rows(first_expert(group.rank()) * each, own_experts() * each, {});
  }
  parameters_.cache = nullptr;
}

template <class S>
std::vector<std::vector<std::int64_t>> Crossing<S>::share_counts(const Plan& plan,
                                                                 CrossingTape<S>& t) {
  const std::vector<std::int64_t> counts = rows_of_experts(plan);
  std::vector<std::vector<std::int64_t>> theirs(std::size_t(group_.size()));
  std::vector<ConstBytes> send;
  std::vector<Bytes> receive;
  Index row = 0;
  t = {};
  for (int r = 0; r < group_.size(); ++r) {
    const int first = first_expert(r);
    const std::span<const std::int64_t> of_owner(counts.data() + first,
                                                 std::size_t(first_expert(r + 1) - first));
    send.push_back(std::as_bytes(of_owner));
    t.first_sent.push_back(row);
    t.sent.push_back(0);
    for (const std::int64_t n : of_owner)
      t.sent.back() += n;
    row += t.sent.back();
    theirs[std::size_t(r)].resize(std::size_t(own_experts()));
    receive.push_back(std::as_writable_bytes(std::span(theirs[std::size_t(r)])));
  }
  group_.exchange({"rows of each expert", layer_}, send, receive);
  return theirs;
}

// Each row is a choice of its own, of one of the experts here.
template <class S>
Plan Crossing<S>::plan_for(std::span<const std::int64_t> counts) const {
  Index rows = 0;
  for (const std::int64_t n : counts)
    rows += n;
  Matrix<int> expert(rows, 1);
  Index row = 0;
  for (std::size_t e = 0; e < counts.size(); ++e) {
    for (std::int64_t i = 0; i < counts[e]; ++i)
      expert(row++, 0) = int(e);
  }
  const TimeSpan time(TimePart::plan, "plan");
  const Array<int> kept(backend_, std::as_const(expert).view());
  Plan plan = backend_.plan(kept.view(), int(counts.size()));
  plan.part = true;
  return plan;
}

template <class S>
void Crossing<S>::to_owners(const char* what, const CrossingTape<S>& t, View<const S> home,
                            std::vector<Array<S>>& here) {
  Staged<S> rows(backend_, on_host_);
  for (int r = 0; r < group_.size(); ++r) {
    rows.send(home.slice(t.first_sent[std::size_t(r)], t.sent[std::size_t(r)]));
    here.emplace_back(backend_, t.of[std::size_t(r)].plan.slots, home.cols);
    rows.receive(here.back().view());
  }
  rows.exchange(group_, {what, layer_});
}

template <class S>
void Crossing<S>::to_homes(const char* what, const CrossingTape<S>& t,
                           const std::vector<Array<S>>& here, View<S> home) {
  Staged<S> rows(backend_, on_host_);
  for (int r = 0; r < group_.size(); ++r) {
    rows.send(here[std::size_t(r)].view());
    rows.receive(home.slice(t.first_sent[std::size_t(r)], t.sent[std::size_t(r)]));
  }
  rows.exchange(group_, {what, layer_});
}

template <class S>
void Crossing<S>::forward(const Plan& plan, View<const S> rows, bool training, CrossingTape<S>& t,
                          View<S> ys) {
  if (moves_weights())
    return forward_at_home(plan, rows, training, t, ys);
  std::vector<std::int64_t> here(std::size_t(own_experts()), 0);
  for (const auto& counts : share_counts(plan, t)) {
    t.of.push_back({.plan = plan_for(counts), .rows = {}, .bodies = {}});
    for (std::size_t e = 0; e < here.size(); ++e)
      here[e] += counts[e];
  }
  std::vector<Array<S>> in;
  std::vector<Array<S>> out;
  to_owners("rows to experts", t, rows, in);
  const OnLoan loan(loan_, here);
  for (std::size_t r = 0; r < in.size(); ++r) {
    auto& of = t.of[r];
    out.emplace_back(backend_, in[r].rows(), rows.cols);
    if (in[r].rows() == 0)
      continue;
    {
      const TimeSpan time(TimePart::products, "experts");
      parameters_.forward(backend_, std::as_const(in[r]).view(), of.plan, of.bodies, out[r].view());
    }
    if (training)
      of.rows = std::move(in[r]);
    else
      of.bodies = {};
  }
  to_homes("outputs of experts", t, out, ys);
}

namespace {

// A number a choice becomes one a row, in the order of rows, and back.
template <class S>
Array<S> by_row(Backend<S>& b, const Matrix<int>& choice, View<const S> weight) {
  if (weight.empty())
    return {};
  std::vector<S> all(std::size_t(weight.size()));
  b.to_host(weight.data, all.data(), all.size() * sizeof(S));
  Matrix<S> rows(choice.cols(), 1);
  for (Index s = 0; s < rows.rows(); ++s)
    rows(s, 0) = all[std::size_t(choice(0, s))];
  return Array<S>(b, std::as_const(rows).view());
}
template <class S>
void by_choice(Backend<S>& b, const Matrix<int>& choice, const Array<S>& rows, View<S> weight) {
  const Matrix<S> host = rows.to_host();
  std::vector<S> all(std::size_t(weight.size()), S(0));
  for (Index s = 0; s < host.rows(); ++s)
    all[std::size_t(choice(0, s))] = host(s, 0);
  b.to_device(all.data(), weight.data, all.size() * sizeof(S));
}

// Rows of each of the experts here, of all ranks.
template <class S>
std::vector<std::int64_t> rows_here(const CrossingTape<S>& t, int experts) {
  std::vector<std::int64_t> here(std::size_t(experts), 0);
  for (const auto& of : t.of) {
    const Matrix<int> offset = of.plan.offset.to_host();
    for (std::size_t e = 0; e < here.size(); ++e)
      here[e] += offset(0, Index(e) + 1) - offset(0, Index(e));
  }
  return here;
}

// What arrives at the owner and leaves it again, by rank of the group.
template <class S>
struct Arriving {
  std::vector<Array<S>> dout, share, dweights, dx;
};

template <class S, class GradsOf>
void owner_backward(Backend<S>& backend, const ExpertWeights<S>& weights, const GradsOf& gradients,
                    const CrossingTape<S>& t, bool weighted, Arriving<S>& a) {
  for (std::size_t r = 0; r < t.of.size(); ++r) {
    const auto& of = t.of[r];
    const Index rows = of.plan.slots;
    a.dx.emplace_back(backend, rows, a.dout[r].cols());
    a.dweights.emplace_back(backend, weighted ? rows : 0, 1);
    if (rows == 0)
      continue;
    const TimeSpan time(TimePart::products, "experts backward");
    backend.experts_backward(weights, gradients(int(r)), of.rows.view(), of.plan, of.bodies,
                             std::as_const(a.dout[r]).view(),
                             weighted ? a.share[r].view() : View<S>{}, a.dx.back().view(),
                             weighted ? a.dweights.back().view() : View<S>{});
  }
}

}  // namespace

template <class S>
void Crossing<S>::backward(const Plan& plan, View<const S> rows_at_home, View<const S> dys,
                           View<const S> weight, const CrossingTape<S>& t, View<S> dxs,
                           View<S> dweight) {
  if (moves_weights())
    return backward_at_home(plan, rows_at_home, dys, weight, t, dxs, dweight);
  const Matrix<int> choice = plan.choice.to_host();
  Arriving<S> a;
  to_owners("gradients of outputs", t, dys, a.dout);
  Array<S> home(backend_, weighted_ ? dys.rows : 0, 1);
  if (weighted_) {
    const Array<S> own = by_row(backend_, choice, weight);
    to_owners("weights of rows", t, own.empty() ? View<const S>{nullptr, 0, 1} : own.view(),
              a.share);
  }
  const OnLoan loan(loan_, rows_here(t, own_experts()));
  owner_backward(
      backend_, parameters_.weights(), [&](int r) { return gradients(r); }, t, weighted_, a);
  to_homes("gradients of rows", t, a.dx, dxs);
  if (!weighted_)
    return;
  to_homes("gradients of weights", t, a.dweights, home.view());
  if (!dweight.empty())
    by_choice(backend_, choice, home, dweight);
}

template <class S>
ExpertGrads<S> Crossing<S>::gradients(int of) {
  std::vector<Array<S>>& arrays = gradient_[std::size_t(of)];
  if (arrays.empty())
    arrays = no_gradient(own_experts());
  return grads_in(arrays);
}

template <class S>
std::vector<Array<S>> Crossing<S>::take_gradients(int of) {
  gradients(of);  // zeros where no row came
  return std::exchange(gradient_[std::size_t(of)], {});
}

template struct CrossingTape<float>;
template struct CrossingTape<double>;
template class Crossing<float>;
template class Crossing<double>;

}  // namespace moe
