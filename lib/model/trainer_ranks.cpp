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

namespace moe {

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
  if (ranks.zero < 0 || ranks.zero > 1)
    throw Error(Exit::usage, concat("--zero ", ranks.zero, " is not 0 or 1"));
  const int ep = ranks.expert_ranks;
  if (ep < 1 || size % ep != 0) {
    throw Error(Exit::usage, concat("experts cannot be shared out among ", ep, " of ", size,
                                    " ranks: --ep must divide their number"))
        .hint("--ep 1: every rank holds all experts");
  }
  if (ep > 1 && ep > experts) {
    throw Error(Exit::usage,
                concat("--ep ", ep, " is more ranks than a layer has experts, ", experts))
        .hint(concat("--ep ", std::max(experts, 1), " at most"));
  }
}

// The ranks that share experts out, and those that hold the same ones.
void Trainer::share_experts() {
  const int ep = ranks_.expert_ranks;
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
  model_.share_out(*group_);
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

Trainer::Summed Trainer::summed_over(Comm& ranks, std::vector<std::size_t> parameters,
                                     std::vector<Lanes> of_rank) const {
  std::vector<Trained> all;
  for (const std::size_t i : parameters)
    all.push_back(trained(i));
  return {std::move(parameters),
          std::make_unique<Ownership>(ranks, model_.backend(), options_.lanes, std::move(of_rank),
                                      std::move(all)),
          std::make_unique<LaneSums>(model_.backend(), options_.lanes)};
}

void Trainer::find_summed() {
  std::vector<Parameter<float>*> of_experts;
  for (auto* layer : model_.moe_layers())
    layer->expert_parameters().collect(of_experts);
  std::vector<std::size_t> dense, experts;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const bool expert = std::ranges::find(of_experts, parameters_[i]) != of_experts.end();
    (expert ? experts : dense).push_back(i);
  }
  if (!in_lanes())
    return;
  const int size = comm_.size();
  const int ep = ranks_.expert_ranks;
  std::vector<Lanes> of_rank, of_group;
  for (int r = 0; r < size; ++r)
    of_rank.push_back(lanes_of_rank(r, size, options_.lanes));
  for (int g = 0; g < size / ep; ++g) {
    const Index first = of_rank[std::size_t(g * ep)].first;
    of_group.push_back({first, of_rank[std::size_t((g + 1) * ep - 1)].end() - first});
  }
  dense_ = summed_over(comm_, std::move(dense), of_rank);
  experts_ = summed_over(replicas_ ? *replicas_ : comm_, std::move(experts), of_group);
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

namespace {

using GradientOf = std::map<const Parameter<float>*, Array<float>>;

// What rank r of the group gave to the gradients of the experts here, by layer.
std::vector<std::vector<Array<float>>> crossed_gradients(Decoder<float>& model, int r) {
  std::vector<std::vector<Array<float>>> out;
  for (auto* layer : model.moe_layers())
    out.push_back(layer->crossing()->take_gradients(r));
  return out;
}

GradientOf by_parameter(Decoder<float>& model, std::vector<std::vector<Array<float>>> of_layers) {
  GradientOf out;
  const auto layers = model.moe_layers();
  for (std::size_t l = 0; l < layers.size(); ++l) {
    std::vector<Parameter<float>*> of_layer;
    layers[l]->expert_parameters().collect(of_layer);
    std::erase_if(of_layer, [](const Parameter<float>* p) { return !p->trained(); });
    std::vector<Array<float>>& gradient = of_layers[l];
    for (std::size_t k = 0; k < of_layer.size(); ++k)
      out[of_layer[k]] = std::move(gradient[k]);
  }
  return out;
}

}  // namespace

void Trainer::add_lane(Index lane, Summed& s, std::vector<Array<float>> gradient) {
  note_lane(lane, s, gradient);
  s.sums->add(lane, std::move(gradient));
}

// The gradients of a lane that is through go to the sums, and the next lane starts with zeros;
// those of one that waits for its next turn are put aside.
void Trainer::turn_done(Index turn) {
  if (!in_lanes())
    return;
  const TimeSpan time(TimePart::ranks, "sums of lanes");
  const auto take = [&](const Summed& s) {
    Gradients gradient;
    for (const std::size_t i : s.parameters) {
      gradient.push_back(parameters_[i]->exchange_grad({}));
      parameters_[i]->want_grad(model_.backend());
    }
    return gradient;
  };
  if (const auto mine = micro_of(comm_.rank(), turn); mine && mine->last) {
    add_lane(mine->lane, dense_, take(dense_));
    if (!group_)
      add_lane(mine->lane, experts_, take(experts_));
  } else if (mine && abreast()) {
    dense_of_lane_[mine->lane] = take(dense_);
    if (!group_)
      experts_of_lane_[mine->lane] = take(experts_);
  }
  for (int r = 0; group_ && r < group_->size(); ++r) {
    const auto theirs = micro_of(first_of_group() + r, turn);
    if (theirs && !theirs->last && abreast())
      crossed_of_lane_[theirs->lane] = crossed_gradients(model_, r);
    if (!theirs || !theirs->last)
      continue;
    GradientOf of = by_parameter(model_, crossed_gradients(model_, r));
    Gradients gradient;
    for (const std::size_t i : experts_.parameters)
      gradient.push_back(std::move(of.at(parameters_[i])));
    add_lane(theirs->lane, experts_, std::move(gradient));
  }
}

// From lanes to the step's gradient, on the ranks that need it.
void Trainer::reduce() {
  if (!in_lanes())
    return;
  const TimeSpan time(TimePart::ranks, "sums over lanes and ranks");
  dense_.owners->reduce(dense_.sums->take());
  experts_.owners->reduce(experts_.sums->take());
  if (!owns_moments())
    share(Ownership::What::gradients);
}

void Trainer::share(Ownership::What what) {
  const TimeSpan time(TimePart::ranks, "numbers for other ranks");
  dense_.owners->share(what);
  experts_.owners->share(what);
}

const std::vector<NumberRange>& Trainer::owned(std::size_t i) const {
  for (const Summed* s : {&dense_, &experts_}) {
    const auto at = std::ranges::find(s->parameters, i);
    if (at != s->parameters.end())
      return s->owners->owned(std::size_t(at - s->parameters.begin()));
  }
  throw Error(Exit::bug, concat("nobody owns '", parameters_[i]->name(), "'"));
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

// Of experts on several ranks, in the order of parameters and of all experts.
std::vector<double> Trainer::squares_of_experts(Summed& experts) {
  const std::vector<std::vector<double>> here = experts.owners->squares();
  std::vector<double> words;
  for (const auto& of_parameter : here) {
    words.push_back(double(of_parameter.size()));
    words.insert(words.end(), of_parameter.begin(), of_parameter.end());
  }
  std::vector<std::vector<double>> all(1, words);
  if (group_)
    all = group_->gather<double>({"squares of experts"}, words);
  std::vector<std::size_t> next(all.size());
  std::vector<double> out;
  for (std::size_t p = 0; p < here.size(); ++p) {
    for (std::size_t r = 0; r < all.size(); ++r) {
      const auto n = std::size_t(all[r].at(next[r]++));
      const auto from = all[r].begin() + std::ptrdiff_t(next[r]);
      out.insert(out.end(), from, from + std::ptrdiff_t(n));
      next[r] += n;
    }
  }
  return out;
}

double Trainer::norm_in_lanes() {
  double sum = 0;
  for (const auto& of_parameter : dense_.owners->squares()) {
    for (const double v : of_parameter)
      sum += v;
  }
  for (const double v : squares_of_experts(experts_))
    sum += v;
  return std::sqrt(sum);
}

// Squared norms of the gradients of a MoE layer's experts, (E).
std::vector<double> Trainer::expert_squares(std::size_t number) {
  MoeLayer<float>& layer = *model_.moe_layers()[number];
  const int experts = layer.config().experts;
  const int first = group_ ? layer.crossing()->first_expert(group_->rank()) : 0;
  const int end = group_ ? layer.crossing()->first_expert(group_->rank() + 1) : experts;
  Squares squares(model_.backend(), end - first);
  auto& bodies = layer.expert_parameters();
  for (auto* p : {&bodies.gate, &bodies.up, &bodies.down}) {
    if (p->grad().empty())
      continue;
    for (Index e = 0; e < end - first; ++e)
      squares.add(e, p->grad().block(e, p->value().rows / experts));
  }
  const Matrix<double> sums = squares.read();
  if (!group_)
    return {sums.flat().begin(), sums.flat().end()};
  std::vector<double> out;
  for (const auto& theirs : group_->gather<double>({"norms of experts"}, sums.flat()))
    out.insert(out.end(), theirs.begin(), theirs.end());
  return out;
}

// ---- what ranks give rank 0 ------------------------------------------------------------------

namespace {

constexpr const char* wanted = "numbers wanted";

}  // namespace

// Each rank gives its runs, and rank 0 puts them in their places.
void Trainer::gather_parts(const std::vector<Part>& mine, View<float> whole) {
  std::vector<std::byte> bytes;
  const auto put = [&](const void* from, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(from);
    bytes.insert(bytes.end(), first, first + size);
  };
  for (const Part& part : mine) {
    put(&part.run, sizeof(NumberRange));
    put(part.numbers, std::size_t(part.run.count) * sizeof(float));
  }
  std::vector<ConstBytes> send(std::size_t(comm_.size()));
  send[0] = bytes;
  for (const auto& theirs : comm_.exchange({"numbers of parameters"}, send)) {
    for (std::size_t at = 0; at < theirs.size();) {
      NumberRange run;
      std::memcpy(&run, theirs.data() + at, sizeof(NumberRange));
      at += sizeof(NumberRange);
      std::memcpy(whole.data + run.first, theirs.data() + at,
                  std::size_t(run.count) * sizeof(float));
      at += std::size_t(run.count) * sizeof(float);
    }
  }
}

// Runs of this rank's moments of parameter i, as they are in `held`, on the host. Of ranks that
// hold the same, the first ones give them.
std::vector<Trainer::Part> Trainer::moment_parts(std::size_t i, const Matrix<float>& held) const {
  const Index before = parameters_[i]->first_held() * parameters_[i]->value().cols;
  std::vector<Part> out;
  if (!owns_moments()) {
    if (comm_.rank() < ranks_.expert_ranks && held.size() > 0)
      out.push_back({{before, held.size()}, held.data()});
    return out;
  }
  for (const Stepped& s : stepped(i))
    out.push_back({{before + s.run.first, s.run.count}, held.data() + s.moment});
  return out;
}

Matrix<float> Trainer::lend_moments(std::size_t i, char which) {
  Matrix<float> whole;
  if (comm_.first())
    whole = Matrix<float>(parameters_[i]->value().rows, parameters_[i]->value().cols);
  const Matrix<float> held = moments(i, which).to_host();
  gather_parts(moment_parts(i, held), whole.view());
  return whole;
}

// Rows of a parameter of the model whose owners are others, for rank 0, while they lend().
void Trainer::borrow_rows(std::size_t i, Index first, View<float> out) {
  if (!comm_.first()) {
    throw Error(Exit::bug, concat("rows of '", model_.parameters()[i]->name(),
                                  "' are wanted by a rank that nobody lends them to"));
  }
  comm_.from_first({wanted}, concat("p", i, " ", first, " ", out.rows));
  gather_parts({}, {out.data - first * out.cols, out.rows, out.cols});
}

// This rank's share of rows of a parameter of the model.
void Trainer::lend_rows(std::size_t i, Index first, Index count) {
  const Parameter<float>& p = *model_.parameters()[i];
  const Index from = std::max(first, p.first_held());
  const Index end = std::min(first + count, p.first_held() + p.held().rows);
  const Index cols = p.value().cols;
  Matrix<float> rows(std::max<Index>(0, end - from), cols);
  std::vector<Part> mine;
  if (rows.rows() > 0 && comm_.rank() < ranks_.expert_ranks) {
    p.read(from, rows.view());
    mine.push_back({{from * cols, rows.size()}, rows.data()});
  }
  gather_parts(mine, {});
}

void Trainer::lend() {
  while (group_ || owns_moments()) {
    const std::string text = comm_.from_first({wanted}, "");
    if (text.empty())
      return;
    std::size_t i = 0;
    Index first = 0;
    Index count = 0;
    std::sscanf(text.c_str() + 1, "%zu %ld %ld", &i, &first, &count);
    if (text[0] == 'p')
      lend_rows(i, first, count);
    else
      lend_moments(i, text[0]);
  }
}

void Trainer::end_reading() {
  if (group_ || owns_moments())
    comm_.from_first({wanted}, "");
}

void Trainer::set_moments(std::size_t i, View<const float> host, char which) {
  Array<float>& moments = (which == 'm' ? m_ : v_)[i];
  const Parameter<float>& p = *parameters_[i];
  const float* from = host.data + p.first_held() * p.value().cols;
  if (!owns_moments())
    return moments.set({from, moments.rows(), moments.cols()});
  for (const Stepped& s : stepped(i)) {
    model_.backend().to_device(from + s.run.first, moments.view().data + s.moment,
                               std::size_t(s.run.count) * sizeof(float));
  }
}

std::vector<Trainer::Moment> Trainer::moments() {
  std::vector<Moment> out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    for (const char which : {'m', 'v'}) {
      const auto read = [this, i, which] {
        if (!lends_moments(i))
          return moments(i, which).to_host();
        comm_.from_first({wanted}, concat(which, i));
        return lend_moments(i, which);
      };
      const auto set = [this, i, which](View<const float> host) {
        set_moments(i, host, which);
      };
      out.push_back(
          {concat(parameters_[i]->name(), ".", which), &parameters_[i]->dims(), read, set});
    }
  }
  return out;
}

}  // namespace moe
