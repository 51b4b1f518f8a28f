#include "lib/model/trainer.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/profile.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/squares.h"
#include "lib/router/router.h"

namespace moe {

Schedule::Schedule(const std::string& text, Index horizon) : horizon_(horizon) {
  Spec spec(text);
  const std::vector<std::string> names = {"cosine", "wsd", "constant"};
  if (spec.name() != "cosine" && spec.name() != "wsd" && spec.name() != "constant")
    no_such("schedule", spec.name(), names);
  kind_ = spec.name() == "cosine" ? Kind::cosine
          : spec.name() == "wsd"  ? Kind::wsd
                                  : Kind::constant;
  warmup_ = spec.get("warmup", double(std::min<Index>(100, horizon / 10)), 0.0);
  if (kind_ != Kind::constant)
    floor_ = spec.get("floor", kind_ == Kind::cosine ? 0.1 : 0.0, 0.0);
  if (kind_ == Kind::wsd)
    decay_ = spec.get("decay", 0.2, 0.0);
  spec.done();
  resolved_ = spec.resolved();
}

double Schedule::factor(Index step) const {
  const double n = double(step);
  if (n < warmup_)
    return (n + 1) / warmup_;
  if (kind_ == Kind::constant)
    return 1;
  const double first =
      kind_ == Kind::cosine ? warmup_ : std::max(warmup_, double(horizon_) * (1 - decay_));
  const double along = std::clamp((n - first) / std::max(1.0, double(horizon_) - first), 0.0, 1.0);
  if (kind_ == Kind::wsd)
    return n < first ? 1 : 1 + (floor_ - 1) * along;
  return floor_ + (1 - floor_) * 0.5 * (1 + std::cos(std::numbers::pi * along));
}

Trainer::Trainer(Decoder<float>& model, const TrainOptions& o, Comm& comm, const RankOptions& ranks)
    : model_(model),
      options_(o),
      ranks_(ranks),
      schedule_(o.schedule, o.steps),
      comm_(comm),
      parts_(o.trained, o.lr_factor, model) {
  refuse_layout(options_, ranks_, comm_.size(),
                model.moe_layers().empty() ? 0 : model.config().moe.experts);
  options_.schedule = schedule_.resolved();
  share_experts();
  for (auto* p : model_.parameters()) {
    if (!parts_.trains(*p))
      p->freeze();
    if (p->trained())
      parameters_.push_back(p);
  }
  find_experts();
  find_summed();
  counts_step_ = model_.counts_whole_step();
  keep_shards();
  if (!comm_.alone())
    model_.backend().give_back();  // of the whole model, of which a share is kept
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    View<const float> all{nullptr, parameters_[i]->held_rows(), parameters_[i]->value().cols};
    if (owns_moments()) {
      all = {nullptr, 1, 0};
      for (const NumberRange& run : owned(i))
        all.cols += run.count;
    }
    m_.push_back(Array<float>::zeros(model_.backend(), all.rows, all.cols));
    v_.push_back(Array<float>::zeros(model_.backend(), all.rows, all.cols));
  }
  if (!shards_gradients())
    model_.want_grads();
  for (auto* layer : model_.moe_layers())
    steps_with_gradient_.emplace_back(std::size_t(layer->config().experts), 0);
}

std::vector<Trainer::Rows> Trainer::rows_of(const Parameter<float>& p) const {
  const Index here = p.held_rows();
  if (parts_.experts().empty() || parts_.group(p) != "experts")
    return {{0, here}};
  const Index each = p.value().rows / p.dims()[0];
  std::vector<Rows> out;
  for (const int e : parts_.experts()) {
    const Index first = e * each - p.first_held();
    if (first >= 0 && first < here)
      out.push_back({first, each});
  }
  return out;
}

StepResult Trainer::begin_step() {
  StepResult r;
  r.step = done_ + 1;
  r.lr = options_.lr * schedule_.factor(done_);
  for (auto* layer : model_.moe_layers()) {
    const std::size_t experts = std::size_t(layer->config().experts);
    r.layer.push_back({.counts = std::vector<std::int64_t>(experts),
                       .kept = std::vector<std::int64_t>(experts),
                       .losses = std::vector<double>(layer->balancers().size())});
    layer->router().set_progress(double(done_) / double(std::max<Index>(1, options_.steps - 1)));
    r.layer.back().temperature = layer->router().temperature;
  }
  return r;
}

void Trainer::begin(std::uint64_t number, const NextBatch& next, AtWork& micro) const {
  const TimeSpan data(TimePart::data, "data");
  micro.batch = next(number);
  micro.rng = Rng(options_.seed).stream(number);
}

Pass Trainer::pass_of(AtWork& micro) const {
  return {.batch = *micro.batch,
          .training = true,
          .rng = &*micro.rng,
          .loss_scale = 1.0 / double(options_.accumulate),
          .counts_follow = abreast()};
}

std::optional<Decoder<float>::Tape> Trainer::micro_step(std::uint64_t number, const NextBatch& next,
                                                        const Observe& observe, StepResult& r,
                                                        std::vector<MicroFigures>& figures) {
  const TimeSpan time("micro-batch", int(number % std::uint64_t(options_.accumulate)));
  AtWork micro;
  begin(number, next, micro);
  Decoder<float>::Tape& tape = micro.tape;
  const Pass pass = pass_of(micro);
  using ReadLosses = Decoder<float>::ReadLosses;
  model_.forward(pass, tape, observe ? ReadLosses::now : ReadLosses::later);
  const bool later = !tape.loss_on_device.empty();
  if (!later) {
    figures.push_back(figures_of(tape));
    add(figures.back(), r);
    refuse_nonfinite(r, tape);
  }
  if (observe) {
    const TimeSpan record("record");
    model_.fetch_routing(tape);
    observe(*micro.batch, tape);
  }
  model_.backward(pass, tape);
  if (!later)
    return {};
  return std::move(tape);
}

std::vector<Trainer::MicroFigures> Trainer::run_lanes(const NextBatch& next, const Observe& observe,
                                                      StepResult& r) {
  std::vector<MicroFigures> figures;
  // whose losses are still on the device: read together, once a step
  std::vector<Decoder<float>::Tape> kept;
  begin_gradients();
  for (Index turn = 0; turn < turns(); ++turn) {
    turn_ = turn;
    if (const auto micro = micro_of(comm_.rank(), turn)) {
      const std::uint64_t number = std::uint64_t(done_ * options_.accumulate + micro->number);
      if (auto tape = micro_step(number, next, observe, r, figures))
        kept.push_back(std::move(*tape));
    } else if (serves()) {
      model_.serve_backward(model_.serve(true));
    }
    turn_done(turn);
  }
  reduce();
  r.gradient_norm = norm_of_gradients();
  model_.read_losses(kept);
  for (const auto& tape : kept) {
    figures.push_back(figures_of(tape));
    add(figures.back(), r);
  }
  return figures;
}

StepResult Trainer::step(const NextBatch& next, bool want_gradient_norms, const Observe& observe) {
  const ProfileAtWork profiled(profile_);
  const TimeSpan time(TimePart::rest, "step", int(done_ + 1));
  comm_.at_step(done_ + 1);
  measuring_noise_ = options_.noise_scale && want_gradient_norms;
  if (measuring_noise_)
    lane_squares_ = Matrix<double>(options_.lanes, noise_columns());
  StepResult r = begin_step();
  const std::vector<MicroFigures> figures =
      abreast() ? run_abreast(next, observe, r) : run_lanes(next, observe, r);
  refuse_nonfinite(r, {});
  if (!comm_.alone()) {
    StepResult all = begin_step();
    all.gradient_norm = r.gradient_norm;
    add_all(figures, all);
    r = std::move(all);
    refuse_nonfinite(r, {});
  } else {
    take_seen(figures);
  }
  if (want_gradient_norms)
    norms_by_expert(r);
  measure_noise(r);
  update(r);
  settle(r);
  ++done_;
  return r;
}

namespace {

View<float> run_of(View<float> all, Index first, Index count) {
  return {all.data + first, 1, count};
}

AdamW adam_of(const TrainOptions& options, const StepResult& r) {
  const double norm = r.gradient_norm;
  AdamW o{.lr = r.lr,
          .beta1 = options.beta1,
          .beta2 = options.beta2,
          .eps = options.eps,
          .step = r.step};
  o.grad_scale = options.clip > 0 && norm > options.clip ? options.clip / norm : 1;
  return o;
}

}  // namespace

// Clips and moves the parameters.
void Trainer::update(const StepResult& r) {
  const TimeSpan time(TimePart::optimiser, "update");
  AdamW o = adam_of(options_, r);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    o.decay = parameters_[i]->kind() == ParameterKind::matrix ? options_.decay : 0;
    const auto [summed, k] = place_of(i);
    const bool away = summed && summed->values;
    const View<float> value = away ? View<float>{} : parameters_[i]->mutate();
    const auto numbers = [&, k = k, s = summed](NumberRange run) {
      return away ? s->values->own(k, run) : run_of(value, run.first, run.count);
    };
    const auto gradient = [&, k = k, s = summed](NumberRange run) {
      return s ? s->owners->gradient(k, run) : run_of(parameters_[i]->grad(), run.first, run.count);
    };
    for (const auto& [run, at] : stepped(i)) {
      for (const auto& [part, factor] : rated(i, run, r)) {
        const Index moment = at + part.first - run.first;
        o.lr = r.lr * factor;
        model_.backend().adamw(numbers(part), gradient(part),
                               run_of(m_[i].view(), moment, part.count),
                               run_of(v_[i].view(), moment, part.count), o);
      }
    }
  }
  if (owns_moments())
    share(Ownership::What::values);
}

// Of which MoE layer the experts' parameters are.
void Trainer::find_experts() {
  expert_layer_.assign(parameters_.size(), -1);
  const auto layers = model_.moe_layers();
  for (std::size_t l = 0; l < layers.size(); ++l) {
    std::vector<Parameter<float>*> of_layer;
    layers[l]->expert_parameters().collect(of_layer);
    for (const auto* p : of_layer) {
      const auto at = std::ranges::find(parameters_, p);
      if (at != parameters_.end())
        expert_layer_[std::size_t(at - parameters_.begin())] = int(l);
    }
  }
}

std::vector<Trainer::Rated> Trainer::rated(std::size_t i, NumberRange run,
                                           const StepResult& r) const {
  const Parameter<float>& p = *parameters_[i];
  if (expert_layer_[i] < 0 || !parts_.rates_experts())
    return {{run, parts_.factor(p)}};
  const Index each = p.value().size() / p.dims()[0];
  const Index before = p.first_held() * p.value().cols;
  const LayerStep& layer = r.layer[std::size_t(expert_layer_[i])];
  std::vector<Rated> out;
  for (Index at = run.first; at < run.first + run.count;) {
    const Index expert = (before + at) / each;
    const Index end = std::min(run.first + run.count, (expert + 1) * each - before);
    out.push_back({{at, end - at}, parts_.expert_factor(int(expert), layer.kept)});
    at = end;
  }
  return out;
}

// Balancers without gradient, and who got a gradient.
void Trainer::settle(StepResult& r) {
  const auto layers = model_.moe_layers();
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (parts_.trains("router"))
      layers[l]->stepped(r.layer[l].counts, r.layer[l].tokens);
    for (std::size_t e = 0; e < r.layer[l].kept.size(); ++e)
      steps_with_gradient_[l][e] += r.layer[l].kept[e] > 0 && parts_.trains_expert(int(e));
  }
}

Trainer::MicroFigures Trainer::figures_of(const Decoder<float>::Tape& tape) const {
  const double share = 1.0 / double(options_.accumulate);
  MicroFigures out;
  out.numbers.push_back(tape.loss);
  const auto layers = model_.moe_layers();
  std::size_t l = 0;
  for (const auto& block : tape.block) {
    if (!block.moe)
      continue;
    const MoeTape<float>& t = *block.moe;
    const RoutingSums f = layers[l]->routing_sums(t);
    const std::size_t balancers = layers[l++]->balancers().size();
    out.numbers.push_back(f.entropy * share / double(std::max<Index>(1, f.tokens)));
    out.numbers.insert(out.numbers.end(), t.losses.begin(), t.losses.end());
    out.numbers.resize(out.numbers.size() + balancers - t.losses.size());
    out.counts.push_back(f.tokens);
    out.counts.insert(out.counts.end(), f.counts.begin(), f.counts.end());
    out.counts.insert(out.counts.end(), f.kept.begin(), f.kept.end());
    for (std::size_t b = 0; b < balancers; ++b) {
      const auto seen = b < t.seen.size() ? t.seen[b] : std::vector<double>{};
      out.seen.push_back(double(seen.size()));
      out.seen.insert(out.seen.end(), seen.begin(), seen.end());
    }
  }
  return out;
}

// Gives the balancers what they saw of the step, micro-batch by micro-batch.
void Trainer::take_seen(const std::vector<MicroFigures>& figures) {
  const auto layers = model_.moe_layers();
  for (const MicroFigures& f : figures) {
    const double* at = f.seen.data();
    for (MoeLayer<float>* layer : layers) {
      for (std::size_t b = 0; b < layer->balancers().size(); ++b) {
        const auto n = std::size_t(*at++);
        layer->take_seen(b, {at, n});
        at += n;
      }
    }
  }
}

namespace {

template <class T>
void push(std::vector<std::uint64_t>& words, const std::vector<T>& values) {
  words.push_back(values.size());
  for (const T v : values)
    words.push_back(std::bit_cast<std::uint64_t>(v));
}
template <class T>
std::vector<T> pull(const std::uint64_t*& word) {
  std::vector<T> values(std::size_t(*word++));
  for (T& v : values)
    v = std::bit_cast<T>(*word++);
  return values;
}

}  // namespace

void Trainer::add_all(const std::vector<MicroFigures>& mine, StepResult& r) {
  const TimeSpan time(TimePart::ranks, "figures of ranks");
  std::vector<std::uint64_t> words;
  for (const MicroFigures& f : mine) {
    push(words, f.numbers);
    push(words, f.counts);
    push(words, f.seen);
  }
  std::vector<MicroFigures> all;
  for (const auto& theirs : comm_.gather<std::uint64_t>({"figures of micro-batches"}, words)) {
    const std::uint64_t* at = theirs.data();
    while (at != theirs.data() + theirs.size()) {
      MicroFigures f;
      f.numbers = pull<double>(at);
      f.counts = pull<std::int64_t>(at);
      f.seen = pull<double>(at);
      add(f, r);
      all.push_back(std::move(f));
    }
  }
  take_seen(all);
}

// Adds one micro-batch's losses and load to the step's.
void Trainer::add(const MicroFigures& f, StepResult& r) const {
  const double share = 1.0 / double(options_.accumulate);
  const double* number = f.numbers.data();
  const std::int64_t* count = f.counts.data();
  const double loss = *number++;
  r.loss += loss * share;
  r.total_loss += loss * share;
  const auto layers = model_.moe_layers();
  for (std::size_t l = 0; l < r.layer.size(); ++l) {
    LayerStep& s = r.layer[l];
    s.entropy += *number++;
    for (std::size_t b = 0; b < s.losses.size(); ++b) {
      const double value = *number++;
      s.losses[b] += value * share;
      r.total_loss += layers[l]->balancers()[b]->coefficient() *
                      layers[l]->balancers()[b]->reduction(int(layers.size())) * value * share;
    }
    s.tokens += *count++;
    for (std::int64_t& n : s.counts)
      n += *count++;
    for (std::int64_t& n : s.kept)
      n += *count++;
  }
}

double Trainer::norm_of_gradients() {
  const TimeSpan time(TimePart::optimiser, "gradient norm");
  if (in_lanes())
    return norm_in_lanes();
  Squares squares(model_.backend(), 1);
  for (auto* p : parameters_) {
    for (const auto [first, n] : rows_of(*p))
      squares.add(0, p->grad().slice(first, n));
  }
  return std::sqrt(squares.read()(0, 0));
}

void Trainer::norms_by_expert(StepResult& r) {
  const TimeSpan time(TimePart::optimiser, "gradient norms of experts");
  for (std::size_t l = 0; l < r.layer.size(); ++l) {
    for (const double v : expert_squares(l))
      r.layer[l].gradient_norm.push_back(std::sqrt(v));
  }
}

// Names what went wrong first: the layer whose logits, or the parameter whose gradient, is not
// finite.
void Trainer::refuse_nonfinite(const StepResult& r, const Decoder<float>::Tape& tape) {
  if (std::isfinite(r.total_loss) && std::isfinite(r.gradient_norm))
    return;
  std::string where;
  for (std::size_t l = 0; l < tape.block.size() && where.empty(); ++l) {
    if (!tape.block[l].mixed.empty() &&
        !std::isfinite(model_.backend().sum_squares(tape.block[l].mixed.view()))) {
      where = concat("layer ", l);
    }
  }
  // as backward went: from the output down
  for (std::size_t i = parameters_.size(); i-- > 0 && where.empty() && tape.block.empty();) {
    const bool finite =
        in_lanes() ? std::ranges::all_of(squares_.empty() ? std::vector<double>{} : squares_[i],
                                         [](double v) { return std::isfinite(v); })
                   : std::isfinite(model_.backend().sum_squares(parameters_[i]->grad()));
    if (!finite) {
      where = concat("the gradient of ", parameters_[i]->name(),
                     parameters_[i]->name().starts_with("layers.") ? "" : " (outside the layers)");
    }
  }
  throw Error(Exit::numeric,
              concat("step ", r.step, ": ", std::isfinite(r.total_loss) ? "a gradient" : "the loss",
                     " is not finite (loss ", r.loss, ", with balance losses ", r.total_loss,
                     "), first in ", where.empty() ? "the output" : where))
      .hint("a smaller --lr, a longer warm-up, or --balance z:coef=0.001 against growing logits");
}

}  // namespace moe
