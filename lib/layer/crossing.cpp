#include "lib/layer/crossing.h"

#include <algorithm>
#include <numeric>
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

// Of rows that stand by expert the first of the experts' second half: where they are cut.
std::size_t half_of(std::span<const std::int64_t> counts) {
  std::int64_t all = 0;
  for (const std::int64_t n : counts)
    all += n;
  std::int64_t before = 0;
  std::size_t cut = 0;
  while (cut < counts.size() && before + counts[cut] <= all / 2)
    before += counts[cut++];
  return cut;
}

// Rows of each expert, of all ranks; counts as share_counts() has them.
std::vector<std::int64_t> sum_of(const std::vector<std::vector<std::int64_t>>& counts,
                                 int experts) {
  std::vector<std::int64_t> all(std::size_t(experts), 0);
  for (const auto& of_rank : counts) {
    for (std::size_t e = 0; e < all.size(); ++e)
      all[e] += of_rank[e];
  }
  return all;
}

template <class T>
View<T> none_of(View<T> rows) {
  return {nullptr, 0, rows.cols};
}

// What of rows at home goes to a rank, or comes back from it.
template <class S, class T>
View<T> home_of(const CrossingTape<S>& t, std::size_t rank, View<T> home) {
  return home.slice(t.first_sent[rank], t.sent[rank]);
}

}  // namespace

template <class S>
Crossing<S>::Crossing(Backend<S>& backend, Comm& group, int layer, int experts, bool weighted,
                      ExpertParameters<S>& parameters, CrossingWay way)
    : backend_(backend),
      group_(group),
      layer_(layer),
      experts_(experts),
      lie_(dynamic_cast<HostBackend<S>*>(&backend) != nullptr ? RowsLie::on_host
           : group.carries_on_devices()                       ? RowsLie::on_device
                                                              : RowsLie::behind_copies),
      weighted_(weighted),
      parameters_(parameters),
      way_(std::move(way)),
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
  std::vector<std::vector<std::int64_t>> ours, theirs;
  Index row = 0;
  t = {};
  for (int r = 0; r < group_.size(); ++r) {
    const auto first = counts.begin() + first_expert(r);
    ours.emplace_back(first, counts.begin() + first_expert(r + 1));
    t.first_sent.push_back(row);
    t.sent.push_back(std::accumulate(ours.back().begin(), ours.back().end(), Index(0)));
    row += t.sent.back();
    ours.back().push_back(plan.decoding);
    theirs.emplace_back(std::size_t(own_experts() + 1));
  }
  std::vector<ConstBytes> send;
  std::vector<Bytes> receive;
  for (std::size_t r = 0; r < ours.size(); ++r) {
    send.push_back(std::as_bytes(std::span(ours[r])));
    receive.push_back(std::as_writable_bytes(std::span(theirs[r])));
  }
  group_.exchange({"rows of each expert", layer_}, send, receive);
  for (const auto& of_rank : theirs)
    t.come.push_back(std::accumulate(of_rank.begin(), of_rank.end() - 1, Index(0)));
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

// One block a rank. What a host computes of its own rows is cut in two by expert, so that there is
// something to compute while rows come, and while the outputs of others go.
template <class S>
void Crossing<S>::make_blocks(const std::vector<std::vector<std::int64_t>>& counts,
                              CrossingTape<S>& t) const {
  for (std::size_t r = 0; r < counts.size(); ++r) {
    std::vector<std::int64_t> second = counts[r];
    const bool decoding = second.back() != 0;
    second.pop_back();
    const bool cut = int(r) == group_.rank() && lie_ == RowsLie::on_host;
    const std::size_t at = cut ? half_of(second) : 0;
    std::vector<std::int64_t> first(second.begin(), second.begin() + std::ptrdiff_t(at));
    first.resize(second.size());
    std::fill_n(second.begin(), at, 0);
    Index before = 0;
    const auto add = [&](std::span<const std::int64_t> rows) {
      t.blocks.push_back({int(r), before, plan_for(rows), {}});
      t.blocks.back().plan.decoding = decoding;
      before += t.blocks.back().plan.slots;
    };
    if (at > 0)
      add(first);
    add(second);
  }
}

template <class S>
void Crossing<S>::compute_block(bool training, CrossingTape<S>& t,
                                typename CrossingTape<S>::Block& b, View<S> out) {
  if (b.plan.slots == 0)
    return;
  const TimeSpan time(TimePart::products, "experts");
  const View<const S> rows = std::as_const(t.rows[std::size_t(b.rank)]).view();
  parameters_.forward(backend_, rows.slice(b.first, b.plan.slots), b.plan, b.bodies,
                      out.slice(b.first, b.plan.slots));
  if (!training)
    b.bodies = {};
}

template <class S>
void Crossing<S>::forward(const Plan& plan, View<const S> rows, bool training, CrossingTape<S>& t,
                          View<S> ys) {
  if (moves_weights())
    return forward_at_home(plan, rows, training, t, ys);
  const auto counts = share_counts(plan, t);
  make_blocks(counts, t);
  if (way_.send != Send::rows)
    find_route(plan, t);
  if (training)
    count(plan, t);
  t.rows = send_once("rows to experts", t, rows);
  const bool came = !t.rows.empty();
  std::vector<Array<S>> out;
  CarriedRows<S> there(backend_, lie_, {"rows to experts", layer_});
  CarriedRows<S> back(backend_, lie_, {"outputs of experts", layer_});
  for (std::size_t r = 0; r < counts.size(); ++r) {
    if (!came)
      t.rows.emplace_back(backend_, t.come[r], rows.cols);
    out.emplace_back(backend_, t.come[r], rows.cols);
    there.add(came ? none_of(rows) : home_of(t, r, rows), came ? none_of(ys) : t.rows[r].view());
    back.add(std::as_const(out[r]).view(), home_of(t, r, ys));
  }
  const OnLoan loan(loan_, sum_of(counts, own_experts()));
  ThereAndBack<S> both{{&there}, {&back}};
  both.open(group_);
  InTurn(group_, std::span(t.blocks), both).run([&](auto& block) {
    compute_block(training, t, block, out[std::size_t(block.rank)].view());
  });
  if (!training)
    t.rows.clear();
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
  for (const auto& of : t.blocks) {
    const Matrix<int> offset = of.plan.offset.to_host();
    for (std::size_t e = 0; e < here.size(); ++e)
      here[e] += offset(0, Index(e) + 1) - offset(0, Index(e));
  }
  return here;
}

// The backward pass of a crossing: what arrives at the owner and leaves it again, by rank of the
// group, and how it crosses.
template <class S>
class BackwardRows {
 public:
  using Arrays = std::vector<Array<S>>;
  BackwardRows(Memory& memory, RowsLie lie, int layer, bool weighted)
      : memory_(memory),
        weighted_(weighted),
        dout_rows_(memory, lie, {"gradients of outputs", layer}),
        share_rows_(memory, lie, {"weights of rows", layer}),
        dx_rows_(memory, lie, {"gradients of rows", layer}),
        dweight_rows_(memory, lie, {"gradients of weights", layer}) {}

  // What this rank has at home of rows for each, and where what comes back lies. `come`: what came
  // from each already; empty where it is to come.
  void add_ranks(const CrossingTape<S>& t, View<const S> dys, View<S> dxs, Arrays come) {
    for (std::size_t r = 0; r < t.come.size(); ++r) {
      dx_rows_.add(std::as_const(*room_array(t.come[r], dys.cols, dx_)).view(), home_of(t, r, dxs));
      if (come.empty())
        dout_rows_.add(home_of(t, r, dys), room(t.come[r], dys.cols, dout_));
      else
        dout_rows_.add(none_of(dys), none_of(dxs));
    }
    if (!come.empty())
      dout_ = std::move(come);
  }
  void add_weights(const CrossingTape<S>& t, View<const S> weight, View<S> dweight) {
    for (std::size_t r = 0; r < t.come.size(); ++r) {
      share_rows_.add(home_of(t, r, weight), room(t.come[r], 1, share_));
      dweight_rows_.add(std::as_const(*room_array(t.come[r], 1, dweight_)).view(),
                        home_of(t, r, dweight));
    }
  }
  ThereAndBack<S> both() {
    if (weighted_)
      return {{&dout_rows_, &share_rows_}, {&dx_rows_, &dweight_rows_}};
    return {{&dout_rows_}, {&dx_rows_}};
  }

  void compute(Backend<S>& backend, const ExpertWeights<S>& weights, const ExpertGrads<S>& grads,
               View<const S> xs, const typename CrossingTape<S>::Block& of) {
    const auto r = std::size_t(of.rank);
    const auto rows = [&](auto view) {
      return view.slice(of.first, of.plan.slots);
    };
    const TimeSpan time(TimePart::products, "experts backward");
    backend.experts_backward(weights, grads, rows(xs), of.plan, of.bodies,
                             rows(std::as_const(dout_[r]).view()),
                             weighted_ ? rows(std::as_const(share_[r]).view()) : View<const S>{},
                             rows(dx_[r].view()), weighted_ ? rows(dweight_[r].view()) : View<S>{});
  }

 private:
  Array<S>* room_array(Index rows, Index cols, Arrays& in) {
    return &in.emplace_back(memory_, rows, cols);
  }
  View<S> room(Index rows, Index cols, Arrays& in) {
    return room_array(rows, cols, in)->view();
  }

  Memory& memory_;
  bool weighted_;
  Arrays dout_, share_, dx_, dweight_;  // (ranks)
  CarriedRows<S> dout_rows_, share_rows_, dx_rows_, dweight_rows_;
};

}  // namespace

template <class S>
void Crossing<S>::backward(const Plan& plan, View<const S> rows_at_home, View<const S> dys,
                           View<const S> weight, const CrossingTape<S>& t, View<S> dxs,
                           View<S> dweight) {
  if (moves_weights())
    return backward_at_home(plan, rows_at_home, dys, weight, t, dxs, dweight);
  const Matrix<int> choice = plan.choice.to_host();
  const Array<S> own = weighted_ ? by_row(backend_, choice, weight) : Array<S>{};
  Array<S> home(backend_, weighted_ ? dys.rows : 0, 1);
  BackwardRows<S> rows(backend_, lie_, layer_, weighted_);
  rows.add_ranks(t, dys, dxs, send_once("gradients of outputs", t, dys));
  if (weighted_)
    rows.add_weights(t, own.empty() ? View<const S>{nullptr, 0, 1} : own.view(), home.view());
  const OnLoan loan(loan_, rows_here(t, own_experts()));
  ThereAndBack<S> both = rows.both();
  both.open(group_);
  const ExpertWeights<S> weights = parameters_.weights();
  InTurn(group_, std::span(t.blocks), both).run([&](const auto& block) {
    if (block.plan.slots == 0)
      return;
    const View<const S> xs = t.rows[std::size_t(block.rank)].view();
    rows.compute(backend_, weights, gradients(block.rank), xs, block);
  });
  if (weighted_ && !dweight.empty())
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
