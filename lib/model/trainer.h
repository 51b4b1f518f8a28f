// The training loop's one step: forward and backward over the micro-batches, clipping, AdamW,
// balancers. It knows no files and no data set; its whole state is the step number, the moments and
// what routers hold, because every draw comes from (seed, step): the same step gives the same
// bytes, however often the run was resumed and for any number of threads. Several ranks compute the
// lanes of a step (lib/model/lanes.h); the bytes are those of one rank with as many lanes.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "lib/core/comm.h"
#include "lib/core/rng.h"
#include "lib/model/decoder.h"
#include "lib/model/noise.h"
#include "lib/model/ownership.h"
#include "lib/model/parts.h"
#include "lib/model/shards.h"

namespace moe {

class Profile;

// Learning rate over the horizon: "cosine:warmup=100,floor=0.1",
// "wsd:warmup=100,decay=0.2,floor=0", "constant:warmup=0".
class Schedule {
 public:
  Schedule(const std::string& spec, Index horizon);  // refuses unknown names and options
  double factor(Index step /*0-based*/) const;       // of the peak learning rate
  const std::string& resolved() const {
    return resolved_;
  }

 private:
  enum class Kind { cosine, wsd, constant } kind_;
  Index horizon_;
  // warm-up steps; share of the peak at the end; last share of the horizon
  double warmup_ = 0, floor_ = 0, decay_ = 0;
  std::string resolved_;
};

struct TrainOptions {
  Index steps = 2000;  // the horizon
  // a step = accumulate micro-batches of sequences x length tokens
  Index sequences = 16, length = 256, accumulate = 1;
  // chains of micro-batches whose gradients are added up by themselves; a divisor of `accumulate`
  Index lanes = 1;
  // clip 0 = none; decay spares vectors
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.1, clip = 1.0;
  std::string schedule = "cosine";
  // what trains, and factors of the learning rate by group: see Parts
  std::string trained = "all", lr_factor;
  std::uint64_t seed = 1;
  // estimate the gradient noise scale where gradient norms are wanted; needs two lanes or more
  bool noise_scale = false;
  Index tokens_per_step() const {
    return sequences * length * accumulate;
  }
};

struct LayerStep {                   // one MoE layer, one step
  std::vector<std::int64_t> counts;  // (E) choices of valid tokens, before capacity
  std::vector<std::int64_t> kept;    // (E) computed
  Index tokens = 0;
  // mean of the router's, nats; NaN for routers without scores
  double entropy = 0;
  // one a balancer, mean over micro-batches, without coefficient
  std::vector<double> losses;
  double temperature = 1;             // of the router
  std::vector<double> gradient_norm;  // (E) of the experts' weights; filled at log steps
  // (E) of the same weights, where it is asked for, at log steps; NaN of experts that are frozen
  std::vector<NoiseEstimate> noise;
};

struct StepResult {
  Index step = 0;  // 1-based: the step just done
  // loss: mean cross-entropy, nats; total: with balance losses
  double loss = 0, total_loss = 0, gradient_norm = 0, lr = 0;
  std::optional<NoiseEstimate> noise;  // of all that trains, where it is asked for, at log steps
  std::vector<LayerStep> layer;
};

// How ranks share what a training step needs. No byte of the result depends on it.
struct RankOptions {
  // 0: every rank holds all; 1: each holds the moments of what it owns, and steps that (ZeRO,
  // arXiv 1910.02054); 2: and of summed gradients what it owns; 3: and of the values, which come
  // for as long as a layer computes
  int zero = 0;
  // ranks that share the experts of every layer out among them (lib/layer/crossing.h); those that
  // hold the same experts are the ranks with the same remainder by it
  int expert_ranks = 1;
  // what crosses then: rows of tokens, or weights of experts; empty: what is fewer numbers
  std::optional<Move> move = Move::tokens;
  Send send = Send::rows;  // of tokens
  // (ranks of the run) on which node each is; empty = all on one
  std::vector<int> nodes = {};
};

// Numbers that a micro-batch sends to other ranks in one layer, forwards and backwards, if all
// experts are chosen.
struct MoveCost {
  double tokens = 0, weights = 0;

  Move cheaper() const {
    return weights < tokens ? Move::weights : Move::tokens;
  }
};
MoveCost move_cost(MoeLayer<float>&, const TrainOptions&, int expert_ranks);

class Trainer {
 public:
  // Throws Error(usage) as refuse_layout().
  Trainer(Decoder<float>&, const TrainOptions&, Comm&, const RankOptions& = {});

  // Throws Error(usage) where there are more ranks than lanes, lanes do not divide accumulate,
  // ranks cannot share experts out as asked, or one lane alone would say nothing of noise.
  static void refuse_layout(const TrainOptions&, const RankOptions&, int ranks, int experts);

  // Batch number n of the run; called in order.
  using NextBatch = std::function<Batch(std::uint64_t number)>;
  // Sees each micro-batch (recording while training), in their order: its routing and its losses.
  using Observe = std::function<void(const Batch&, const Decoder<float>::Tape&)>;
  // One step, the same on every rank; next and observe hear of this rank's micro-batches. What is
  // frozen stays as it is, bit by bit, and the selection bias of a frozen router
  // with it. Throws Error(numeric) naming step and layer, before anything is changed, where a loss
  // or gradient is not finite.
  StepResult step(const NextBatch&, bool want_gradient_norms, const Observe& = {});

  Index done() const {
    return done_;
  }  // steps done
  void resume_at(Index steps_done) {
    done_ = steps_done;
  }
  const TrainOptions& options() const {
    return options_;
  }
  const Schedule& schedule() const {
    return schedule_;
  }
  // (E) a MoE layer: steps since the start in which the expert got a gradient. Saved in the state.
  std::vector<std::vector<std::int64_t>>& steps_with_gradient() {
    return steps_with_gradient_;
  }
  // The moments, named "PARAMETER.m" and ".v", for optimizer.safetensors. Where ranks share them
  // out, rank 0 alone calls read(), while the others lend().
  struct Moment {
    std::string name;
    const std::vector<Index>* dims;
    std::function<Matrix<float>()> read;              // as the parameter's rows
    std::function<void(View<const float> host)> set;  // of all numbers
  };
  std::vector<Moment> moments();
  // What the other ranks do while rank 0 reads moments and parameters, in its order, until
  // end_reading().
  void lend();
  void end_reading();
  Comm& comm() {
    return comm_;
  }
  Move move() const {  // what crosses
    return *ranks_.move;
  }
  // The first parameter of which this rank holds a number that is not finite; empty = none.
  std::string first_not_finite() const;
  // Throws Error(usage) where experts of these layers cannot be shared out so.
  static void refuse_sharing(Decoder<float>&, const RankOptions&);
  // Of rows of tokens that crossed, over all layers, since it was last asked.
  CrossedRows take_crossed_rows();
  // Of weights of experts that other ranks asked for (--zero 3), and all that they could have.
  Shards::Sent lent_experts() const;
  // From now on at work in every step; null = none. It outlives the trainer.
  void set_profile(Profile* p) {
    profile_ = p;
  }

 private:
  // Of one micro-batch what the step adds up, in order of micro-batches.
  struct MicroFigures {
    std::vector<double> numbers;       // loss; by MoE layer: entropy, then a loss a balancer
    std::vector<std::int64_t> counts;  // by MoE layer: tokens, counts (E), kept (E)
    std::vector<double> seen;          // what balancers without gradient saw, by MoE layer
  };
  struct Summed;
  StepResult begin_step();
  // This rank's micro-batches forwards and backwards, lane by lane.
  std::vector<MicroFigures> run_lanes(const NextBatch&, const Observe&, StepResult&);
  // A micro-batch at work.
  struct AtWork {
    std::optional<Batch> batch;
    std::optional<Rng> rng;
    Decoder<float>::Tape tape;
  };
  void begin(std::uint64_t number, const NextBatch&, AtWork&) const;
  Pass pass_of(AtWork&) const;
  // One micro-batch forwards and backwards; returns the tape where its losses are still on the
  // device.
  std::optional<Decoder<float>::Tape> micro_step(std::uint64_t number, const NextBatch&,
                                                 const Observe&, StepResult&,
                                                 std::vector<MicroFigures>&);
  // Micro-batches take turns: of a rank lane by lane, or where lanes go abreast round by round. The
  // micro-batch of a rank's turn: its lane, its number in the step and whether it is the lane's
  // last; nothing where the rank has none.
  struct Micro {
    Index lane, number;
    bool last;
  };
  std::optional<Micro> micro_of(int rank, Index turn) const;
  Index most_lanes() const;     // of a rank
  int first_of_group() const {  // the ranks that share experts out with this one
    return comm_.rank() / ranks_.expert_ranks * ranks_.expert_ranks;
  }
  Index turns() const {
    return most_lanes() * (options_.accumulate / options_.lanes);
  }
  void turn_done(Index turn);
  // Balance losses over a whole step (switch:scope=global) want the counts of all lanes:
  // micro-batch n of every lane goes forward before the first goes backward.
  bool abreast() const {
    return counts_step_ && options_.accumulate > 1;
  }
  std::vector<MicroFigures> run_abreast(const NextBatch&, const Observe&, StepResult&);
  void forward_abreast(Index round, const NextBatch&, std::vector<AtWork>&);
  void backward_abreast(Index round, bool observed, const StepResult&, std::vector<AtWork>&);
  std::vector<MicroFigures> figures_abreast(const Observe&, StepResult&, std::vector<AtWork>&);
  AtWork& at_work(std::vector<AtWork>&, const Micro&) const;
  void balance_round(Index round, std::vector<AtWork>&);
  void take_up(Index turn);
  void begin_gradients();
  // Whether a rank without a micro-batch of its own in a turn has something to do for the others.
  bool serves() const {
    return group_ || shards_gradients();
  }
  void reduce();
  MicroFigures figures_of(const Decoder<float>::Tape&) const;
  void add(const MicroFigures&, StepResult&) const;
  // Those of all ranks, in order of micro-batches.
  void add_all(const std::vector<MicroFigures>& mine, StepResult&);
  void take_seen(const std::vector<MicroFigures>&);
  void update(const StepResult&);
  // A run of numbers of parameter i in pieces of one learning rate, as factors of the step's.
  struct Rated {
    NumberRange run;
    double factor = 1;
  };
  std::vector<Rated> rated(std::size_t i, NumberRange run, const StepResult&) const;
  void find_experts();
  void lane_through(Summed&, Index turn);
  void crossed_through(Summed&, Index turn);
  void send_crossed(Summed&, Index turn);
  std::vector<Array<float>> take(Summed&);
  std::vector<Array<float>> take_crossed(const Summed&, int of);
  void give_crossed(const Summed&, int of, std::vector<Array<float>> gradient);
  std::vector<Array<float>> exchange_home(const Summed&, std::vector<Array<float>> gradient);
  void add_lane(Index lane, Summed&, std::vector<Array<float>> gradient);
  void note_lane(Index lane, const Summed&, const std::vector<Array<float>>& gradient);
  void gather_squares();
  void measure_noise(StepResult&);
  Index noise_columns() const;
  Index noise_column(std::size_t layer, Index expert) const;
  void settle(StepResult&);
  void norms_by_expert(StepResult&);
  void refuse_nonfinite(const StepResult&, const Decoder<float>::Tape&);
  double norm_of_gradients();
  bool in_lanes() const {
    return options_.lanes > 1;
  }

  Decoder<float>& model_;
  TrainOptions options_;
  RankOptions ranks_;
  Schedule schedule_;
  Comm& comm_;
  Index done_ = 0;
  struct Rows {
    Index first = 0, count = 0;
  };
  std::vector<Rows> rows_of(const Parameter<float>&) const;  // those that train, of those here
  // numbers of parameter i that this rank steps, and where their moments lie
  struct Stepped {
    NumberRange run;
    Index moment = 0;
  };
  std::vector<Stepped> stepped(std::size_t i) const;

  using Gradients = std::vector<Array<float>>;
  // Parameters whose gradients are summed over the same ranks: the experts', or the others; with
  // shards of gradients or values those of one layer.
  struct Summed {
    std::vector<std::size_t> parameters;  // of parameters_
    bool experts = false;
    int layer = 0;                // of a layer; Decoder::of_no_layer
    std::vector<int> moe_layers;  // of experts
    std::unique_ptr<Ownership> owners;
    std::unique_ptr<LaneSums> sums;
    std::unique_ptr<Shards> values;  // null: they lie in the parameters
    // of lanes that go abreast, between their turns: gradients by lane, and by lane of another rank
    // that sends rows here
    std::map<Index, Gradients> aside, crossed_aside;
  };
  class Loan;
  void share_experts();
  void find_summed();
  Summed summed_over(bool experts, int layer, std::vector<std::size_t>) const;
  std::vector<Lanes> lanes_summed(bool experts) const;
  void keep_shards();
  void hear(int layer, Decoder<float>::At);
  bool crosses(const Summed& s) const {
    return s.experts && group_;
  }
  bool shards_gradients() const {
    return ranks_.zero >= 2 && !comm_.alone();
  }
  bool shards_values() const {
    return ranks_.zero >= 3 && !comm_.alone();
  }
  std::pair<const Summed*, std::size_t> place_of(std::size_t i) const;
  Trained trained(std::size_t i) const;
  bool is_shared_out(std::size_t i) const {
    return parameters_[i]->shared_out();
  }
  bool owns_moments() const {  // and not others'
    return ranks_.zero > 0 && !comm_.alone();
  }
  bool lends_moments(std::size_t i) const {
    return owns_moments() || is_shared_out(i);
  }
  const std::vector<NumberRange>& owned(std::size_t i) const;
  void share(Ownership::What);
  double norm_in_lanes();
  std::vector<std::vector<double>> squares_of_owners(std::vector<std::vector<double>> here);
  std::vector<double> expert_squares(std::size_t layer);
  std::vector<double> expert_squares_in_lanes(std::size_t layer) const;
  // Numbers of a whole parameter, of which ranks hold runs.
  struct Part {
    NumberRange run;  // counted along all rows of the parameter
    const float* numbers;
  };
  void gather_parts(const std::vector<Part>& mine, View<float> whole);
  std::vector<Part> moment_parts(std::size_t i, const Matrix<float>& held) const;
  void lend_parts(std::size_t i, Index first, Index count, View<float> whole);
  Matrix<float> lend_moments(std::size_t i, char which);
  void borrow_rows(std::size_t i, Index first, View<float> out);
  void set_moments(std::size_t i, View<const float> host, char which);
  const Array<float>& moments(std::size_t i, char which) const {
    return (which == 'm' ? m_ : v_)[i];
  }

  Parts parts_;
  std::unique_ptr<Comm> group_, replicas_;     // of experts: their owners; those with the same
  std::vector<Parameter<float>*> parameters_;  // trained ones
  std::vector<int> expert_layer_;              // of each the MoE layer whose experts it is; -1
  bool measuring_noise_ = false;               // in this step
  bool counts_step_ = false;                   // balance losses are over a whole step
  std::vector<std::int64_t> counted_;          // for them, in the rounds of this step so far
  std::vector<std::vector<CrossingTape<float>>> served_;  // in the turns of a round
  Index turn_ = 0;                                        // that is being made
  Matrix<double> lane_squares_;                           // (lanes, noise_columns())
  Profile* profile_ = nullptr;
  std::vector<Summed> summed_;  // with several lanes
  std::vector<std::unique_ptr<ExpertLoan>> loans_;
  std::vector<std::vector<double>> squares_;  // (parameters) of the step's gradient, by piece
  std::vector<Array<float>> m_, v_;
  std::vector<std::vector<std::int64_t>> steps_with_gradient_;
};

}  // namespace moe
