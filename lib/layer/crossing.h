// Experts on several ranks (expert parallelism, GShard, arXiv 2006.16668): rows that a rank's
// tokens sent to experts cross to the ranks that own those, and what the experts make of them comes
// back. It stands between the exchange of a layer and its bodies: plan, combination, gate and
// everything else of a token stay at its home.
//
// Of E experts and n owners, owner i has those from floor(E i / n) on. An owner computes the rows
// of each rank by themselves, as their home would: the products of one micro-batch are those of one
// rank, whoever makes them and in whatever order. So it takes them as they come, its own while it
// waits, and sends what it made of a rank's rows at once. Two exchanges forwards (rows, outputs),
// two backwards (gradients of outputs, of rows), with the few numbers that go with them.
//
// A token's row goes there for every choice, or once (crossing_way.h); outputs come back for every
// choice, since the home adds them up in their order.
//
// Or the weights of the chosen experts travel to the rows (Move::weights): once forwards, once
// backwards, and when a lane is through the gradients go to the owners. The same products, so the
// same bytes; less to send where experts are narrow and their rows many.
#pragma once
#include <vector>

#include "lib/core/comm.h"
#include "lib/layer/carried_rows.h"
#include "lib/layer/crossing_way.h"
#include "lib/layer/expert_loan.h"
#include "lib/layer/feed_forward.h"

namespace moe {

// What an owner keeps of each rank's rows, for the backward pass.
template <class S>
struct CrossingTape {
  struct Block {  // rows that are computed at once
    int rank;     // from there
    Index first;  // of what that rank sent
    Plan plan;
    ExpertTape<S> bodies;
  };
  std::vector<Block> blocks;      // at least one a rank
  std::vector<Array<S>> rows;     // (ranks)(S,H) as they came
  ExpertTape<S> home;             // where weights travel
  std::vector<Index> come;        // (ranks) rows that come from there
  std::vector<Index> sent;        // (ranks) rows that went there
  std::vector<Index> first_sent;  // (ranks) the first of them
  CrossingRoute route;            // empty where a row goes for every choice
};

template <class S>
class Crossing {
 public:
  // From here on only the experts that this rank owns lie here. `group`: the ranks that own the
  // experts of a layer among them. `weighted`: outputs are weighed by choice (Backend::
  // experts_backward).
  Crossing(Backend<S>&, Comm& group, int layer, int experts, bool weighted, ExpertParameters<S>&,
           CrossingWay = {});
  bool moves_weights() const {
    return way_.move == Move::weights;
  }
  // Since it was last asked.
  CrossedRows take_crossed_rows() {
    return std::exchange(crossed_, {});
  }
  // Where the weights of the experts here are lent as well.
  void borrow(ExpertLoan* loan) {
    loan_ = loan;
  }

  // The first expert of an owner; of owner `ranks` their number.
  static int first_expert(int owner, int ranks, int experts) {
    return int(Index(experts) * owner / ranks);
  }
  int first_expert(int owner) const {
    return first_expert(owner, group_.size(), experts_);
  }

  // ys (S,H) of rows (S,H), which stand as the plan says. Every rank of the group calls this, those
  // without rows with an empty plan.
  void forward(const Plan&, View<const S> rows, bool training, CrossingTape<S>&, View<S> ys);
  // As Backend::experts_backward; `rows` as forward() had them, where weights travel. A rank
  // without rows gives empty views.
  void backward(const Plan&, View<const S> rows, View<const S> dys, View<const S> weight,
                const CrossingTape<S>&, View<S> dxs, View<S> dweight);

  // What rank `of` of the group gave to the gradients of the experts here since it was last asked,
  // one array a parameter that trains, as ExpertParameters::collect() has them.
  std::vector<Array<S>> take_gradients(int of);
  // Where weights travel: the gradients of these ranks of the group, whose lanes have ended, go to
  // the owners, for take_gradients(). All of the group call this.
  void send_gradients(const std::vector<bool>& ended);
  // The gradients of a lane of this rank, to be put aside and taken up again later.
  std::vector<Array<S>> exchange_home(std::vector<Array<S>> gradient) {
    if (gradient.empty() && home_gradient_.empty())
      return no_gradient(experts_);
    return std::exchange(home_gradient_, std::move(gradient));
  }
  // What was taken, to go on from; what came since is gone.
  void give_gradients(int of, std::vector<Array<S>> gradient) {
    gradient_[std::size_t(of)] = std::move(gradient);
  }

 private:
  int own_experts() const {
    return first_expert(group_.rank() + 1) - first_expert(group_.rank());
  }
  // Rows that each rank sends each expert here, then Plan::decoding there; t: what goes there.
  std::vector<std::vector<std::int64_t>> share_counts(const Plan&, CrossingTape<S>&);
  Plan plan_for(std::span<const std::int64_t> counts) const;
  void make_blocks(const std::vector<std::vector<std::int64_t>>& counts, CrossingTape<S>&) const;
  void compute_block(bool training, CrossingTape<S>&, typename CrossingTape<S>::Block&,
                     View<S> out);
  ExpertGrads<S> gradients(int of);
  ExpertGrads<S> grads_in(std::vector<Array<S>>& arrays) const;  // one a parameter that trains
  std::vector<Array<S>> no_gradient(Index experts) const;
  std::vector<Array<S>> room_for_own_gradient() const;           // is not cleared
  std::vector<std::int64_t> rows_of_experts(const Plan&) const;  // (E)
  // The weights of experts with rows, of all owners; one array a parameter.
  struct Guests {
    std::vector<Array<S>> array;
    ExpertWeights<S> weights;
  };
  // By rank which of its experts are wanted here, and which of those here it wants; 1 = wanted.
  struct Wishes {
    std::vector<std::vector<std::uint8_t>> mine, theirs;
  };
  Wishes share_wishes(std::span<const std::int64_t> rows);
  Guests bring(std::span<const std::int64_t> rows);
  void bring(const Wishes&, View<const S> here, View<S> guests);
  Guests guests() const;
  void forward_at_home(const Plan&, View<const S> rows, bool training, CrossingTape<S>&,
                       View<S> ys);
  void backward_at_home(const Plan&, View<const S> rows, View<const S> dys, View<const S> weight,
                        const CrossingTape<S>&, View<S> dxs, View<S> dweight);
  // Rows of tokens of which none goes twice; crossing_once.cpp. Returns what each rank sent, as
  // rows of choices; nothing where a row goes for every choice.
  std::vector<Array<S>> send_once(const char* what, const CrossingTape<S>&, View<const S> home);
  void find_route(const Plan&, CrossingTape<S>&);
  std::vector<std::vector<int>> route_home(const Plan&, CrossingTape<S>&) const;
  void hand_on(const char* what, const CrossingRoute&, std::vector<Matrix<S>>& came, Index cols);
  void count(const Plan&, const CrossingTape<S>&);
  Backend<S>& backend_;
  Comm& group_;
  int layer_, experts_;
  RowsLie lie_;
  bool weighted_;
  ExpertParameters<S>& parameters_;
  CrossingWay way_;
  CrossedRows crossed_;
  ExpertLoan* loan_ = nullptr;
  std::vector<std::vector<Array<S>>> gradient_;  // (ranks)(parameters); empty = none yet
  std::vector<Array<S>> home_gradient_;          // of all experts; empty = none yet
};

}  // namespace moe
