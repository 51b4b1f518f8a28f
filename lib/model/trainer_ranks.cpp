// What a training step has to do with ranks: which micro-batches are whose, whose gradients are
// summed with whose, the norm over all of them, and what ranks give rank 0 when it writes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>

#include "lib/core/error.h"
#include "lib/core/profile.h"
#include "lib/model/squares.h"
#include "lib/model/trainer.h"
#include "lib/router/mixing.h"
#include "lib/router/router.h"

namespace moe {

namespace {

void refuse_parts_of_experts(const RankOptions& ranks, int size, int experts) {
  const int ep = ranks.expert_ranks;
  if (size == 1 && ep > 1) {
    throw Error(Exit::usage,
                concat("--ep ", ep, " shares experts out among ", ep, " ranks, and this is one"))
        .hint(concat("mpirun -np ", ep, " moe train --ep ", ep, " ...; or leave --ep out"));
  }
  if (ep < 1 || size % ep != 0) {
    throw Error(Exit::usage, concat("experts cannot be shared out among ", ep, " of ", size,
                                    " ranks: --ep must divide their number"))
        .hint("--ep 1: every rank holds all experts");
  }
  if (ep > 1 && experts == 0) {
    throw Error(Exit::usage, concat("--ep ", ep, " shares experts out, and this model has none"))
        .hint("leave --ep out: ranks then share out the data, and with --zero what they hold");
  }
  if (ep > 1 && ep > experts) {
    throw Error(Exit::usage,
                concat("--ep ", ep, " is more ranks than a layer has experts, ", experts))
        .hint(concat("--ep ", experts, " at most"));
  }
}

// Rows that are handed on within a node need several nodes, and rows that cross.
void refuse_way(const RankOptions& ranks) {
  if (ranks.send == Send::rows)
    return;
  if (ranks.expert_ranks <= 1) {
    throw Error(Exit::usage, "rows are sent between ranks that share experts out, and none do")
        .hint("--ep 4 --ep-send once, for example");
  }
  if (ranks.move != Move::tokens) {
    throw Error(Exit::usage,
                "--ep-send says how rows of tokens cross, and weights of experts may "
                "cross in their place")
        .hint("--move tokens");
  }
  const auto ep = std::size_t(ranks.expert_ranks);
  bool several = false;
  for (std::size_t r = 0; r < ranks.nodes.size(); ++r)
    several |= ranks.nodes[r] != ranks.nodes[r / ep * ep];
  if (ranks.send == Send::nodes && !several) {
    throw Error(Exit::usage,
                "--ep-send nodes hands rows on within a node, and the ranks that "
                "share experts out are all on one")
        .hint("--ep-send once; or --ep-nodes 2, which takes the ranks for those of two nodes");
  }
}

}  // namespace

void Trainer::refuse_sharing(Decoder<float>& model, const RankOptions& ranks) {
  for (const MoeLayer<float>* layer : model.moe_layers()) {
    if (ranks.expert_ranks > 1)
      layer->refuse_sharing(ranks.send);
  }
}

CrossedRows Trainer::take_crossed_rows() {
  CrossedRows out;
  for (MoeLayer<float>* layer : model_.moe_layers()) {
    if (layer->crossing())
      out += layer->crossing()->take_crossed_rows();
  }
  return out;
}

void Trainer::refuse_layout(const TrainOptions& o, const RankOptions& ranks, int size,
                            int experts) {
  if (o.lanes < 1 || o.accumulate % o.lanes != 0) {
    const Index lanes = std::max<Index>(o.lanes, 1);
    throw Error(Exit::usage,
                concat("the ", o.accumulate, " micro-batches of a step cannot be shared by ",
                       o.lanes, " lanes: lanes must divide --accumulate"))
        .hint(concat("--accumulate ", (o.accumulate / lanes + 1) * lanes));
  }
  if (size > o.lanes) {
    throw Error(Exit::usage,
                concat("this run has ", o.lanes, o.lanes == 1 ? " lane" : " lanes",
                       ", which at most as many ranks can compute, and there are ", size))
        .hint(concat("mpirun -np ", o.lanes, ", or a new run with --lanes ", size));
  }
  if (o.noise_scale && o.lanes < 2) {
    throw Error(Exit::usage,
                "the gradient noise scale compares the gradients of lanes with that of the whole "
                "step, and a step of this run has one lane")
        .hint("--accumulate 4 --lanes 4, with a --batch a quarter as large for as many tokens");
  }
  if (ranks.zero < 0 || ranks.zero > 3)
    throw Error(Exit::usage, concat("--zero ", ranks.zero, " is not 0, 1, 2 or 3"));
  if (o.noise_scale && ranks.zero >= 2 && size > 1) {
    throw Error(Exit::usage, concat("--noise-scale compares whole gradients of lanes, and with "
                                    "--zero ",
                                    ranks.zero, " nobody holds them"))
        .hint("--zero 1");
  }
  refuse_parts_of_experts(ranks, size, experts);
  refuse_way(ranks);
}

MoveCost move_cost(MoeLayer<float>& layer, const TrainOptions& o, int expert_ranks) {
  const double elsewhere = 1 - 1.0 / expert_ranks;
  const LayerConfig& c = layer.config();
  double rows = double(o.sequences * o.length) * double(layer.router().facts().k);
  if (const auto* mixing = capability<Mixing>(layer.router()))
    rows = double(mixing->slots());
  std::vector<Parameter<float>*> experts;
  layer.expert_parameters().collect(experts);
  double weights = 0;
  for (const auto* p : experts)
    weights += double(p->size());
  const double gradients = double(o.lanes) / double(o.accumulate);  // once a lane
  return {.tokens = 4 * rows * double(c.expert_inputs()) * elsewhere,
          .weights = weights * (2 + gradients) * elsewhere};
}

// The ranks that share experts out, and those that hold the same ones.
void Trainer::share_experts() {
  const int ep = ranks_.expert_ranks;
  if (!ranks_.move) {
    ranks_.move =
        ep == 1 ? Move::tokens : move_cost(*model_.moe_layers().front(), options_, ep).cheaper();
  }
  if (ep == 1)
    return;
  std::vector<int> group, replicas;
  for (int r = 0; r < comm_.size(); ++r) {
    if (r / ep == comm_.rank() / ep)
      group.push_back(r);
    if (r % ep == comm_.rank() % ep)
      replicas.push_back(r);
  }
  group_ = comm_.among(group);
  replicas_ = comm_.among(replicas);
  CrossingWay way{.move = *ranks_.move, .send = ranks_.send};
  for (std::size_t p = 0; !ranks_.nodes.empty() && p < group.size(); ++p)
    way.nodes.push_back(ranks_.nodes[std::size_t(group[p])]);
  model_.share_out(*group_, way);
  const auto all = model_.parameters();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i]->shared_out()) {
      all[i]->lie_elsewhere(
          [this, i](Index first, View<float> out) { borrow_rows(i, first, out); });
    }
  }
}

// The trained numbers of parameter i: by expert where there are experts, so that no piece of a norm
// is of two.
Trained Trainer::trained(std::size_t i) const {
  Parameter<float>& p = *parameters_[i];
  Trained out{&p, {}};
  const Index cols = p.value().cols;
  const Index each = parts_.group(p) == "experts" ? std::max<Index>(1, p.value().rows / p.dims()[0])
                                                  : p.value().rows;
  for (const auto [first, n] : rows_of(p)) {
    for (Index row = first; row < first + n; row += each)
      out.rows.push_back({row * cols, each * cols});
  }
  return out;
}

// The lanes whose gradients each rank has of those that sum with it.
std::vector<Lanes> Trainer::lanes_summed(bool experts) const {
  const int size = comm_.size();
  const int ep = ranks_.expert_ranks;
  std::vector<Lanes> of_rank, of_group;
  for (int r = 0; r < size; ++r)
    of_rank.push_back(lanes_of_rank(r, size, options_.lanes));
  for (int g = 0; g < size / ep; ++g) {
    const Index first = of_rank[std::size_t(g * ep)].first;
    of_group.push_back({first, of_rank[std::size_t((g + 1) * ep - 1)].end() - first});
  }
  return experts ? of_group : of_rank;
}

Trainer::Summed Trainer::summed_over(bool experts, int layer,
                                     std::vector<std::size_t> parameters) const {
  std::vector<Trained> all;
  Summed out{.parameters = std::move(parameters), .experts = experts, .layer = layer};
  for (const std::size_t i : out.parameters) {
    all.push_back(trained(i));
    const int of = expert_layer_[i];
    if (experts && (out.moe_layers.empty() || out.moe_layers.back() != of))
      out.moe_layers.push_back(of);
  }
  Comm& ranks = experts && replicas_ ? *replicas_ : comm_;
  out.owners = std::make_unique<Ownership>(ranks, model_.backend(), options_.lanes,
                                           lanes_summed(experts), std::move(all));
  out.sums = std::make_unique<LaneSums>(model_.backend(), options_.lanes);
  return out;
}

void Trainer::find_summed() {
  if (!in_lanes())
    return;
  std::map<const Parameter<float>*, int> layer_of;
  for (const ModelParameter<float>& p : model_.inventory())
    layer_of[p.parameter] = p.layer;
  std::map<std::pair<int, bool>, std::vector<std::size_t>> parts;  // by layer, and whether experts
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const int layer = shards_gradients() ? layer_of.at(parameters_[i]) : 0;
    parts[{layer, expert_layer_[i] >= 0}].push_back(i);
  }
  for (auto& [key, parameters] : parts)
    summed_.push_back(summed_over(key.second, key.first, std::move(parameters)));
}

std::optional<Trainer::Micro> Trainer::micro_of(int rank, Index turn) const {
  const Index each = options_.accumulate / options_.lanes;
  const Lanes lanes = lanes_of_rank(rank, comm_.size(), options_.lanes);
  const Index lane = abreast() ? turn % most_lanes() : turn / each;
  const Index round = abreast() ? turn / most_lanes() : turn % each;
  if (lane >= lanes.count)
    return {};
  return Micro{lanes.first + lane, (lanes.first + lane) * each + round, round + 1 == each};
}

Index Trainer::most_lanes() const {
  Index most = 0;
  for (int r = 0; r < comm_.size(); ++r)
    most = std::max(most, lanes_of_rank(r, comm_.size(), options_.lanes).count);
  return most;
}

void Trainer::add_lane(Index lane, Summed& s, std::vector<Array<float>> gradient) {
  note_lane(lane, s, gradient);
  s.sums->add(lane, std::move(gradient));
}

Trainer::Gradients Trainer::take(Summed& s) {
  Gradients gradient;
  for (const std::size_t i : s.parameters) {
    gradient.push_back(parameters_[i]->exchange_grad({}));
    if (!shards_gradients() && turn_ + 1 < turns())
      parameters_[i]->want_grad(model_.backend());
  }
  return gradient;
}

// What rank `of` of the group gave to the gradients of the experts here.
Trainer::Gradients Trainer::take_crossed(const Summed& s, int of) {
  const auto layers = model_.moe_layers();
  Gradients gradient;
  for (const int l : s.moe_layers) {
    for (Array<float>& a : layers[std::size_t(l)]->crossing()->take_gradients(of))
      gradient.push_back(std::move(a));
  }
  return gradient;
}

namespace {

// From `all` as many as a layer has experts' parameters that train.
std::vector<Array<float>> of_layer(const std::vector<int>& expert_layer,
                                   const std::vector<std::size_t>& parameters, int layer,
                                   std::vector<Array<float>>& all) {
  std::vector<Array<float>> out;
  for (std::size_t k = 0; k < parameters.size() && k < all.size(); ++k) {
    if (expert_layer[parameters[k]] == layer)
      out.push_back(std::move(all[k]));
  }
  return out;
}

}  // namespace

void Trainer::give_crossed(const Summed& s, int of, Gradients gradient) {
  const auto layers = model_.moe_layers();
  for (const int l : s.moe_layers) {
    layers[std::size_t(l)]->crossing()->give_gradients(
        of, of_layer(expert_layer_, s.parameters, l, gradient));
  }
}

Trainer::Gradients Trainer::exchange_home(const Summed& s, Gradients gradient) {
  const auto layers = model_.moe_layers();
  Gradients out;
  for (const int l : s.moe_layers) {
    for (Array<float>& a : layers[std::size_t(l)]->crossing()->exchange_home(
             of_layer(expert_layer_, s.parameters, l, gradient)))
      out.push_back(std::move(a));
  }
  return out;
}

// Where weights travel: the gradients that lanes of the group have of experts elsewhere.
void Trainer::send_crossed(Summed& s, Index turn) {
  std::vector<bool> ended;
  for (int r = 0; r < group_->size(); ++r) {
    const auto theirs = micro_of(first_of_group() + r, turn);
    ended.push_back(theirs && theirs->last);
  }
  const auto mine = micro_of(comm_.rank(), turn);
  if (mine && !mine->last && abreast())
    s.aside[mine->lane] = exchange_home(s, {});
  const auto layers = model_.moe_layers();
  if (std::ranges::none_of(ended, [](bool e) { return e; }))
    return;
  for (const int l : s.moe_layers)
    layers[std::size_t(l)]->crossing()->send_gradients(ended);
}

// Of experts on several ranks.
void Trainer::crossed_through(Summed& s, Index turn) {
  const bool weights = move() == Move::weights;
  if (weights)
    send_crossed(s, turn);
  for (int r = 0; r < group_->size(); ++r) {
    const auto theirs = micro_of(first_of_group() + r, turn);
    if (theirs && theirs->last)
      add_lane(theirs->lane, s, take_crossed(s, r));
    else if (theirs && abreast() && !weights)
      s.crossed_aside[theirs->lane] = take_crossed(s, r);
  }
}

// The gradients of a lane that is through go to the sums, and the next lane starts with zeros;
// those of one that waits for its next turn are put aside.
void Trainer::lane_through(Summed& s, Index turn) {
  if (crosses(s))
    return crossed_through(s, turn);
  const auto mine = micro_of(comm_.rank(), turn);
  if (mine && mine->last)
    add_lane(mine->lane, s, take(s));
  else if (mine && abreast())
    s.aside[mine->lane] = take(s);
}

void Trainer::turn_done(Index turn) {
  if (!in_lanes() || shards_gradients())
    return;
  const TimeSpan time(TimePart::ranks, "sums of lanes");
  for (Summed& s : summed_)
    lane_through(s, turn);
}

// From lanes to the step's gradient, on the ranks that need it.
void Trainer::reduce() {
  if (!in_lanes() || shards_gradients())
    return;
  const TimeSpan time(TimePart::ranks, "sums over lanes and ranks");
  for (Summed& s : summed_)
    s.owners->reduce(s.sums->take());
  if (!owns_moments())
    share(Ownership::What::gradients);
}

void Trainer::share(Ownership::What what) {
  const TimeSpan time(TimePart::ranks, "numbers for other ranks");
  for (Summed& s : summed_) {
    if (!s.values)
      s.owners->share(what);
  }
}

std::pair<const Trainer::Summed*, std::size_t> Trainer::place_of(std::size_t i) const {
  for (const Summed& s : summed_) {
    const auto at = std::ranges::find(s.parameters, i);
    if (at != s.parameters.end())
      return {&s, std::size_t(at - s.parameters.begin())};
  }
  return {nullptr, 0};
}

const std::vector<NumberRange>& Trainer::owned(std::size_t i) const {
  const auto [summed, k] = place_of(i);
  if (!summed)
    throw Error(Exit::bug, concat("nobody owns '", parameters_[i]->name(), "'"));
  return summed->owners->owned(k);
}

std::vector<Trainer::Stepped> Trainer::stepped(std::size_t i) const {
  std::vector<Stepped> out;
  const Index cols = parameters_[i]->value().cols;
  if (!owns_moments()) {
    for (const auto [first, n] : rows_of(*parameters_[i]))
      out.push_back({{first * cols, n * cols}, first * cols});
    return out;
  }
  Index at = 0;
  for (const NumberRange& run : owned(i)) {
    out.push_back({run, at});
    at += run.count;
  }
  return out;
}

// Of experts on several ranks, piece by piece: for each parameter those of all owners.
std::vector<std::vector<double>> Trainer::squares_of_owners(std::vector<std::vector<double>> here) {
  std::vector<double> words;
  for (const auto& of_parameter : here) {
    words.push_back(double(of_parameter.size()));
    words.insert(words.end(), of_parameter.begin(), of_parameter.end());
  }
  const auto all = group_->gather<double>({"squares of experts"}, words);
  std::vector<std::size_t> next(all.size());
  for (auto& of_parameter : here) {
    of_parameter.clear();
    for (std::size_t r = 0; r < all.size(); ++r) {
      const auto n = std::size_t(all[r].at(next[r]++));
      const auto from = all[r].begin() + std::ptrdiff_t(next[r]);
      of_parameter.insert(of_parameter.end(), from, from + std::ptrdiff_t(n));
      next[r] += n;
    }
  }
  return here;
}

// The pieces of a parameter in order; those of experts after all others.
double Trainer::norm_in_lanes() {
  squares_.assign(parameters_.size(), {});
  for (Summed& s : summed_) {
    auto of = s.owners->squares();
    if (crosses(s))
      of = squares_of_owners(std::move(of));
    for (std::size_t k = 0; k < s.parameters.size(); ++k)
      squares_[s.parameters[k]] = std::move(of[k]);
  }
  double sum = 0;
  for (const bool experts : {false, true}) {
    for (std::size_t i = 0; i < squares_.size(); ++i) {
      for (const double v : squares_[i])
        sum += (expert_layer_[i] >= 0) == experts ? v : 0;
    }
  }
  return std::sqrt(sum);
}

// Those of the pieces that the norm is made of; 0 for experts that do not train.
std::vector<double> Trainer::expert_squares_in_lanes(std::size_t layer) const {
  const int experts = model_.moe_layers()[layer]->config().experts;
  std::vector<double> out(std::size_t(experts), 0.0);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter<float>& p = *parameters_[i];
    if (expert_layer_[i] != int(layer) || p.kind() != ParameterKind::matrix)
      continue;
    std::size_t trained = 0;
    for (int e = 0; e < experts; ++e)
      trained += parts_.trains_expert(e);
    const std::size_t each = trained ? squares_[i].size() / trained : 0;
    std::size_t next = 0;
    for (int e = 0; e < experts; ++e) {
      double sum = 0;
      for (std::size_t n = 0; parts_.trains_expert(e) && n < each; ++n)
        sum += squares_[i][next++];
      out[std::size_t(e)] += sum;
    }
  }
  return out;
}

// Squared norms of the gradients of a MoE layer's experts, (E).
std::vector<double> Trainer::expert_squares(std::size_t number) {
  if (in_lanes())
    return expert_squares_in_lanes(number);
  MoeLayer<float>& layer = *model_.moe_layers()[number];
  const int experts = layer.config().experts;
  Squares squares(model_.backend(), experts);
  auto& bodies = layer.expert_parameters();
  for (auto* p : {&bodies.gate, &bodies.up, &bodies.down}) {
    if (p->grad().empty())
      continue;
    for (Index e = 0; e < experts; ++e)
      squares.add(e, p->grad().block(e, p->value().rows / experts));
  }
  const Matrix<double> sums = squares.read();
  return {sums.flat().begin(), sums.flat().end()};
}

}  // namespace moe
