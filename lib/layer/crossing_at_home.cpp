// Experts on several ranks where their weights travel to the rows: who computes a row is its home,
// with the plan and the products of a rank that holds all experts.
#include <algorithm>
#include <utility>

#include "lib/core/parcel.h"
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

// One array for each parameter that trains.
template <class S, class Make>
std::vector<Array<S>> of_trained(const ExpertParameters<S>& parameters, const Make& make) {
  std::vector<Array<S>> out;
  for (const Parameter<S>* p : six(parameters)) {
    if (!p->empty() && p->trained())
      out.push_back(make(p->value()));
  }
  return out;
}

// Experts of a parameter that a rank sends or takes, those that are wanted of a stretch: where they
// lie, where these are all of it and in host memory, else a copy of them there.
template <class T>
class Load {
 public:
  using S = std::remove_const_t<T>;
  Load(Memory& memory, RowsLie lie, View<T> experts, std::span<const std::uint8_t> wanted)
      : memory_(memory), experts_(experts), wanted_(wanted) {
    const Index each = experts.size() / Index(wanted.size());
    const Index number = std::ranges::count(wanted, 1);
    in_place_ = lie == RowsLie::on_host && number == Index(wanted.size());
    if (!in_place_)
      copy_ = Parcel<S>(number * each);
  }
  std::span<T> numbers() const {
    return in_place_ ? experts_.flat() : copy_.span();
  }
  void into_copy() const {
    each_copied([&](View<T> expert, S* to) {
      memory_.to_host(expert.data, to, std::size_t(expert.size()) * sizeof(S));
    });
  }
  void out_of_copy() const {
    each_copied([&](View<T> expert, const S* from) {
      memory_.to_device(from, expert.data, std::size_t(expert.size()) * sizeof(S));
    });
  }

 private:
  template <class See>
  void each_copied(const See& see) const {
    const Index rows = experts_.rows / Index(wanted_.size());
    S* at = copy_.span().data();
    for (std::size_t e = 0; !in_place_ && e < wanted_.size(); ++e) {
      if (!wanted_[e])
        continue;
      see(experts_.block(Index(e), rows), at);
      at += rows * experts_.cols;
    }
  }

  Memory& memory_;
  View<T> experts_;
  std::span<const std::uint8_t> wanted_;
  bool in_place_;
  Parcel<S> copy_;
};

// How many ranks want each expert here.
std::vector<std::int64_t> by_anybody(const std::vector<std::vector<std::uint8_t>>& wishes) {
  std::vector<std::int64_t> out(wishes.at(0).size(), 0);
  for (const auto& of_rank : wishes) {
    for (std::size_t e = 0; e < out.size(); ++e)
      out[e] += of_rank[e];
  }
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
  return of_trained(parameters_, [&](View<const S> value) {
    return Array<S>::zeros(backend_, value.rows / experts_ * experts, value.cols);
  });
}

template <class S>
std::vector<Array<S>> Crossing<S>::room_for_own_gradient() const {
  return of_trained(parameters_, [&](View<const S> value) {
    return Array<S>(backend_, value.rows / experts_ * own_experts(), value.cols);
  });
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

template <class S>
typename Crossing<S>::Wishes Crossing<S>::share_wishes(std::span<const std::int64_t> rows) {
  Wishes wishes;
  wishes.mine.resize(std::size_t(group_.size()));
  wishes.theirs.resize(wishes.mine.size());
  std::vector<ConstBytes> send;
  std::vector<Bytes> receive;
  for (int r = 0; r < group_.size(); ++r) {
    auto& mine = wishes.mine[std::size_t(r)];
    auto& theirs = wishes.theirs[std::size_t(r)];
    for (int e = first_expert(r); e < first_expert(r + 1); ++e)
      mine.push_back(rows[std::size_t(e)] > 0);
    send.push_back(std::as_bytes(std::span(mine)));
    theirs.resize(std::size_t(own_experts()));
    receive.push_back(std::as_writable_bytes(std::span(theirs)));
  }
  group_.exchange({"experts wanted", layer_}, send, receive);
  return wishes;
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

// Of one parameter: from what lies here to the experts of all owners.
template <class S>
void Crossing<S>::bring(const Wishes& wishes, View<const S> here, View<S> guests) {
  std::vector<Load<const S>> out;
  std::vector<Load<S>> in;
  std::vector<ConstBytes> send;
  std::vector<Bytes> receive;
  const Index each = guests.rows / experts_;
  for (int r = 0; r < group_.size(); ++r) {
    const auto at = std::size_t(r);
    const Index first = first_expert(r) * each;
    const View<S> of_owner = guests.slice(first, first_expert(r + 1) * each - first);
    out.emplace_back(backend_, lie_, here, wishes.theirs[at]);
    out.back().into_copy();
    send.push_back(std::as_bytes(out.back().numbers()));
    in.emplace_back(backend_, lie_, of_owner, wishes.mine[at]);
    receive.push_back(std::as_writable_bytes(in.back().numbers()));
  }
  group_.exchange({"weights of experts", layer_}, send, receive);
  for (const Load<S>& load : in)
    load.out_of_copy();
}

template <class S>
typename Crossing<S>::Guests Crossing<S>::bring(std::span<const std::int64_t> rows) {
  const Wishes wishes = share_wishes(rows);
  Guests guests = this->guests();
  const OnLoan loan(loan_, by_anybody(wishes.theirs));
  std::size_t next = 0;
  for (const Parameter<S>* p : six(parameters_)) {
    if (!p->empty())
      bring(wishes, p->held(), guests.array[next++].view());
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
  for (std::size_t r = 0; r < ended.size(); ++r) {
    if (ended[r])
      gradient_[r] = room_for_own_gradient();
  }
  std::vector<CarriedRows<S>> carried;
  std::vector<CarriedRows<S>*> all;
  carried.reserve(six(parameters_).size());
  for (const Parameter<S>* p : six(parameters_)) {
    if (p->empty() || !p->trained())
      continue;
    const std::size_t i = carried.size();
    const Index each = p->value().rows / experts_;
    const View<S> none{nullptr, 0, p->value().cols};
    all.push_back(&carried.emplace_back(backend_, lie_, About{"gradients of experts", layer_}));
    for (int r = 0; r < group_.size(); ++r) {
      const Index first = first_expert(r) * each;
      const Index rows = first_expert(r + 1) * each - first;
      all.back()->add(mine ? home_gradient_[i].view().slice(first, rows) : none,
                      ended[std::size_t(r)] ? gradient_[std::size_t(r)][i].view() : none);
    }
  }
  CarriedRows<S>::open(group_, all);
  for (CarriedRows<S>* rows : all) {
    for (int r = 0; r < group_.size(); ++r)
      rows->send(r);
  }
  for (CarriedRows<S>* rows : all)
    rows->finish();
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
