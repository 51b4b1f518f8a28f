// Experts on several ranks where their weights travel to the rows: who computes a row is its home,
// with the plan and the products of a rank that holds all experts.
#include <utility>

#include "lib/core/profile.h"
#include "lib/layer/crossing.h"

namespace moe {
namespace {

template <class P>
struct OfBody {
  P gate, up, down, gate_bias, up_bias, down_bias;

  std::vector<P*> all() {
    return {&gate, &up, &down, &gate_bias, &up_bias, &down_bias};
  }
};

template <class S>
std::vector<const Parameter<S>*> six(const ExpertParameters<S>& p) {
  return {&p.gate, &p.up, &p.down, &p.gate_bias, &p.up_bias, &p.down_bias};
}

// Rows of experts behind each other, in host memory.
template <class S>
void pack(Memory& memory, View<const S> rows, std::vector<S>& to) {
  const std::size_t before = to.size();
  to.resize(before + std::size_t(rows.size()));
  memory.to_host(rows.data, to.data() + before, std::size_t(rows.size()) * sizeof(S));
}
template <class S>
const S* unpack(Memory& memory, const S* from, View<S> rows) {
  memory.to_device(from, rows.data, std::size_t(rows.size()) * sizeof(S));
  return from + rows.size();
}

// Of the experts here those that each rank wants.
template <class S>
std::vector<std::vector<S>> wished(Memory& memory, const ExpertParameters<S>& parameters,
                                   const std::vector<std::vector<std::uint8_t>>& wishes) {
  std::vector<std::vector<S>> out(wishes.size());
  for (std::size_t r = 0; r < wishes.size(); ++r) {
    for (const Parameter<S>* p : six(parameters)) {
      const Index experts = Index(wishes[r].size());
      for (Index e = 0; !p->empty() && e < experts; ++e) {
        if (wishes[r][std::size_t(e)])
          pack(memory, p->held().block(e, p->held().rows / experts), out[r]);
      }
    }
  }
  return out;
}

// How many ranks want each expert here.
std::vector<std::int64_t> by_anybody(const std::vector<std::vector<std::uint8_t>>& wishes) {
  std::vector<std::int64_t> out(wishes.at(0).size(), 0);
  for (const auto& of_rank : wishes) {
    for (std::size_t e = 0; e < out.size(); ++e)
      out[e] += of_rank[e];
  }
  return out;
}

// Rows of experts first .. end, of E, in each of the arrays.
template <class S>
std::vector<S> stretch(Memory& memory, const std::vector<Array<S>>& arrays, Index experts,
                       Index first, Index end) {
  std::vector<S> out;
  for (const Array<S>& array : arrays) {
    const Index each = array.rows() / experts;
    pack(memory, array.view().slice(first * each, (end - first) * each), out);
  }
  return out;
}

template <class S>
std::size_t numbers_of(const std::vector<Array<S>>& arrays) {
  std::size_t out = 0;
  for (const Array<S>& array : arrays)
    out += std::size_t(array.view().size());
  return out;
}

template <class S>
std::vector<ConstBytes> bytes_of(const std::vector<std::vector<S>>& all) {
  std::vector<ConstBytes> out;
  for (const std::vector<S>& one : all)
    out.push_back(std::as_bytes(std::span(one)));
  return out;
}

}  // namespace

template <class S>
std::vector<std::int64_t> Crossing<S>::rows_of_experts(const Plan& plan) const {
  const Matrix<int> offset = plan.offset.to_host();
  std::vector<std::int64_t> counts(std::size_t(experts_), 0);
  for (int e = 0; e < experts_ && !offset.empty(); ++e)
    counts[std::size_t(e)] = offset(0, e + 1) - offset(0, e);
  return counts;
}

template <class S>
std::vector<Array<S>> Crossing<S>::no_gradient(Index experts) const {
  std::vector<Array<S>> out;
  for (const Parameter<S>* p : six(parameters_)) {
    if (!p->empty() && p->trained())
      out.push_back(
          Array<S>::zeros(backend_, p->value().rows / experts_ * experts, p->value().cols));
  }
  return out;
}

template <class S>
ExpertGrads<S> Crossing<S>::grads_in(std::vector<Array<S>>& arrays) const {
  OfBody<View<S>> views;
  const auto of = six(parameters_);
  const auto to = views.all();
  std::size_t next = 0;
  for (std::size_t i = 0; i < of.size(); ++i) {
    if (!of[i]->empty() && of[i]->trained())
      *to[i] = arrays[next++].view();
  }
  return {views.gate, views.up, views.down, views.gate_bias, views.up_bias, views.down_bias};
}

// Which of the experts here each rank of the group wants.
template <class S>
std::vector<std::vector<std::uint8_t>> Crossing<S>::share_wishes(
    std::span<const std::int64_t> rows) {
  std::vector<std::vector<std::uint8_t>> mine(std::size_t(group_.size()));
  std::vector<std::vector<std::uint8_t>> theirs(mine.size());
  std::vector<ConstBytes> send;
  std::vector<Bytes> receive;
  for (int r = 0; r < group_.size(); ++r) {
    for (int e = first_expert(r); e < first_expert(r + 1); ++e)
      mine[std::size_t(r)].push_back(rows[std::size_t(e)] > 0);
    send.push_back(std::as_bytes(std::span(mine[std::size_t(r)])));
    theirs[std::size_t(r)].resize(std::size_t(own_experts()));
    receive.push_back(std::as_writable_bytes(std::span(theirs[std::size_t(r)])));
  }
  group_.exchange({"experts wanted", layer_}, send, receive);
  return theirs;
}

template <class S>
typename Crossing<S>::Guests Crossing<S>::guests() const {
  Guests out;
  OfBody<View<const S>> views;
  const auto of = six(parameters_);
  const auto to = views.all();
  for (std::size_t i = 0; i < of.size(); ++i) {
    if (of[i]->empty())
      continue;
    out.array.emplace_back(backend_, of[i]->value().rows, of[i]->value().cols);
    *to[i] = out.array.back().view();
  }
  out.weights = {parameters_.activation, Weight(views.gate), Weight(views.up), Weight(views.down),
                 views.gate_bias,        views.up_bias,      views.down_bias};
  return out;
}

template <class S>
typename Crossing<S>::Guests Crossing<S>::bring(std::span<const std::int64_t> rows) {
  const auto wishes = share_wishes(rows);
  const auto out = [&] {
    const OnLoan loan(loan_, by_anybody(wishes));
    return wished(backend_, parameters_, wishes);
  }();
  Guests guests = this->guests();
  const auto visit = [&](int owner, const auto& see) {
    for (Array<S>& array : guests.array) {
      for (int e = first_expert(owner); e < first_expert(owner + 1); ++e) {
        if (rows[std::size_t(e)] > 0)
          see(array.view().block(e, array.rows() / experts_));
      }
    }
  };
  std::vector<std::vector<S>> in(out.size());
  std::vector<Bytes> receive;
  for (int r = 0; r < group_.size(); ++r) {
    Index numbers = 0;
    visit(r, [&](View<S> block) { numbers += block.size(); });
    in[std::size_t(r)].resize(std::size_t(numbers));
    receive.push_back(std::as_writable_bytes(std::span(in[std::size_t(r)])));
  }
  group_.exchange({"weights of experts", layer_}, bytes_of(out), receive);
  for (int r = 0; r < group_.size(); ++r) {
    const S* from = in[std::size_t(r)].data();
    visit(r, [&](View<S> block) { from = unpack(backend_, from, block); });
  }
  return guests;
}

template <class S>
void Crossing<S>::forward_at_home(const Plan& plan, View<const S> rows, bool training,
                                  CrossingTape<S>& t, View<S> ys) {
  const Guests guests = bring(rows_of_experts(plan));
  if (rows.rows == 0)
    return;
  const TimeSpan time(TimePart::products, "experts");
  backend_.experts(guests.weights, rows, plan, t.home, ys);
  if (!training)
    t.home = {};
}

template <class S>
void Crossing<S>::backward_at_home(const Plan& plan, View<const S> rows, View<const S> dys,
                                   View<const S> weight, const CrossingTape<S>& t, View<S> dxs,
                                   View<S> dweight) {
  const Guests guests = bring(rows_of_experts(plan));
  if (dys.rows == 0)
    return;
  if (home_gradient_.empty())
    home_gradient_ = no_gradient(experts_);
  const TimeSpan time(TimePart::products, "experts backward");
  backend_.experts_backward(guests.weights, grads_in(home_gradient_), rows, plan, t.home, dys,
                            weight, dxs, dweight);
}

template <class S>
void Crossing<S>::send_gradients(const std::vector<bool>& ended) {
  const bool mine = ended[std::size_t(group_.rank())];
  if (mine && home_gradient_.empty())
    home_gradient_ = no_gradient(experts_);
  std::vector<std::vector<S>> out(ended.size());
  std::vector<std::vector<S>> in(ended.size());
  std::vector<Bytes> receive;
  for (int r = 0; r < group_.size(); ++r) {
    const auto at = std::size_t(r);
    if (mine)
      out[at] = stretch(backend_, home_gradient_, experts_, first_expert(r), first_expert(r + 1));
    if (ended[at]) {
      gradient_[at] = no_gradient(own_experts());
      in[at].resize(numbers_of(gradient_[at]));
    }
    receive.push_back(std::as_writable_bytes(std::span(in[at])));
  }
  group_.exchange({"gradients of experts", layer_}, bytes_of(out), receive);
  for (std::size_t r = 0; r < ended.size(); ++r) {
    const S* from = in[r].data();
    for (std::size_t i = 0; ended[r] && i < gradient_[r].size(); ++i)
      from = unpack(backend_, from, gradient_[r][i].view());
  }
  if (mine)
    home_gradient_.clear();
}

#define MEMBERS(S)                                                                               \
  template std::vector<std::int64_t> Crossing<S>::rows_of_experts(const Plan&) const;            \
  template std::vector<Array<S>> Crossing<S>::no_gradient(Index) const;                          \
  template ExpertGrads<S> Crossing<S>::grads_in(std::vector<Array<S>>&) const;                   \
  template void Crossing<S>::send_gradients(const std::vector<bool>&);                           \
  template void Crossing<S>::forward_at_home(const Plan&, View<const S>, bool, CrossingTape<S>&, \
                                             View<S>);                                           \
  template void Crossing<S>::backward_at_home(const Plan&, View<const S>, View<const S>,         \
                                              View<const S>, const CrossingTape<S>&, View<S>,    \
                                              View<S>);
MEMBERS(float)
MEMBERS(double)
#undef MEMBERS

}  // namespace moe
