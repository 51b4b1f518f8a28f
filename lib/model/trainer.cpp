#include "lib/model/trainer.h"

#include <cmath>
#include <numbers>

#include "lib/backend/on_device.h"
#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/router/router.h"

namespace moe {
namespace {

// Sums of squares, read once together: a device gathers them where they are, so that the host waits
// once and not at every one.
class Squares {
 public:
  Squares(Backend<float>& b, Index n)
      : backend_(b), device_(dynamic_cast<OnDevice<float>*>(&b)), host_(n, 1) {
    if (device_)
      on_device_ = Array<double>::zeros(b, n, 1);
  }
  void add(Index i, View<const float> x) {
    if (device_)
      device_->add_squares(x, on_device_.view().slice(i, 1));
    else
      host_(i, 0) += backend_.sum_squares(x);
  }
  Matrix<double> read() const {
    return device_ ? on_device_.to_host() : host_;
  }

 private:
  Backend<float>& backend_;
  OnDevice<float>* device_;
  Matrix<double> host_;
  Array<double> on_device_;
};

}  // namespace

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

Trainer::Trainer(Decoder<float>& model, const TrainOptions& o, Comm& comm)
    : model_(model),
      options_(o),
      schedule_(o.schedule, o.steps),
      comm_(comm),
      parts_(o.trained, o.lr_factor, model) {
  options_.schedule = schedule_.resolved();
  for (auto* p : model_.parameters()) {
    if (!parts_.trains(*p))
      p->freeze();
    if (!p->trained())
      continue;
    parameters_.push_back(p);
    m_.push_back(Array<float>::zeros(model_.backend(), p->value().rows, p->value().cols));
    v_.push_back(Array<float>::zeros(model_.backend(), p->value().rows, p->value().cols));
  }
  model_.want_grads();
  for (auto* layer : model_.moe_layers())
    steps_with_gradient_.emplace_back(std::size_t(layer->config().experts), 0);
}

std::vector<Trainer::Rows> Trainer::rows_of(const Parameter<float>& p) const {
  const Index all = p.value().rows;
  if (parts_.experts().empty() || parts_.group(p) != "experts")
    return {{0, all}};
  const Index each = all / p.dims()[0];
  std::vector<Rows> out;
  for (const int e : parts_.experts())
    out.push_back({e * each, each});
  return out;
}

std::vector<Trainer::Moment> Trainer::moments() {
  std::vector<Moment> out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    out.push_back({parameters_[i]->name() + ".m", &parameters_[i]->dims(), &m_[i]});
    out.push_back({parameters_[i]->name() + ".v", &parameters_[i]->dims(), &v_[i]});
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

std::optional<Decoder<float>::Tape> Trainer::micro_step(std::uint64_t number, const NextBatch& next,
                                                        const Observe& observe, StepResult& r) {
  const Batch batch = next(number);
  Rng rng = Rng(options_.seed).stream(number);
  Decoder<float>::Tape tape;
  const Pass pass{.batch = batch,
                  .training = true,
                  .rng = &rng,
                  .loss_scale = 1.0 / double(options_.accumulate)};
  using ReadLosses = Decoder<float>::ReadLosses;
  model_.forward(pass, tape, observe ? ReadLosses::now : ReadLosses::later);
  const bool later = !tape.loss_on_device.empty();
  if (!later) {
    measure(tape, r);
    refuse_nonfinite(r, tape);
  }
  if (observe) {
    model_.fetch_routing(tape);
    observe(batch, tape);
  }
  model_.backward(pass, tape);
  if (!later)
    return {};
  return tape;
}

StepResult Trainer::step(const NextBatch& next, bool want_gradient_norms, const Observe& observe) {
  StepResult r = begin_step();
  model_.clear_grads();
  // whose losses are still on the device: read with the gradient norm, once a step
  std::vector<Decoder<float>::Tape> kept;
  for (Index micro = 0; micro < options_.accumulate; ++micro) {
    const std::uint64_t number = std::uint64_t(done_ * options_.accumulate + micro);
    if (auto tape = micro_step(number, next, observe, r))
      kept.push_back(std::move(*tape));
  }
  r.gradient_norm = norm_of_gradients();
  model_.read_losses(kept);
  for (const auto& tape : kept)
    measure(tape, r);
  if (!kept.empty())
    refuse_nonfinite(r, {});
  if (!std::isfinite(r.gradient_norm))
    refuse_nonfinite(r, {});
  if (want_gradient_norms)
    norms_by_expert(r);
  update(r);
  settle(r);
  ++done_;
  return r;
}

// Clips and moves the parameters.
void Trainer::update(const StepResult& r) {
  const double norm = r.gradient_norm;
  AdamW o{.lr = r.lr,
          .beta1 = options_.beta1,
          .beta2 = options_.beta2,
          .eps = options_.eps,
          .step = r.step};
  o.grad_scale = options_.clip > 0 && norm > options_.clip ? options_.clip / norm : 1;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    o.decay = parameters_[i]->kind() == ParameterKind::matrix ? options_.decay : 0;
    o.lr = r.lr * parts_.factor(*parameters_[i]);
    const View<float> value = parameters_[i]->mutate();
    const View<float> grad = parameters_[i]->grad();
    for (const auto [first, n] : rows_of(*parameters_[i])) {
      model_.backend().adamw(value.slice(first, n), grad.slice(first, n),
                             m_[i].view().slice(first, n), v_[i].view().slice(first, n), o);
    }
  }
}

// Balancers without gradient, and who got a gradient.
void Trainer::settle(StepResult& r) {
  const auto layers = model_.moe_layers();
  for (std::size_t l = 0; l < layers.size(); ++l) {
    comm_.all_reduce_sum(r.layer[l].counts);
    std::int64_t tokens = r.layer[l].tokens;
    comm_.all_reduce_sum(std::span(&tokens, 1));
    if (parts_.trains("router"))
      layers[l]->stepped(r.layer[l].counts, tokens);
    for (std::size_t e = 0; e < r.layer[l].kept.size(); ++e)
      steps_with_gradient_[l][e] += r.layer[l].kept[e] > 0 && parts_.trains_expert(int(e));
  }
}

// Adds one micro-batch's losses and load to the step's.
void Trainer::measure(const Decoder<float>::Tape& tape, StepResult& r) const {
  const double share = 1.0 / double(options_.accumulate);
  r.loss += tape.loss * share;
  r.total_loss += tape.loss * share;
  std::size_t l = 0;
  const auto layers = model_.moe_layers();
  for (const auto& block : tape.block) {
    if (!block.moe)
      continue;
    const MoeTape<float>& t = *block.moe;
    LayerStep& s = r.layer[l];
    const auto add = [](std::vector<std::int64_t>& to, const std::vector<std::int64_t>& from) {
      for (std::size_t e = 0; e < to.size(); ++e)
        to[e] += from[e];
    };
    const RoutingSums f = layers[l]->routing_sums(t);
    add(s.counts, f.counts);
    add(s.kept, f.kept);
    s.tokens += f.tokens;
    s.entropy += f.entropy * share / double(std::max<Index>(1, f.tokens));
    for (std::size_t b = 0; b < t.losses.size(); ++b) {
      s.losses[b] += t.losses[b] * share;
      r.total_loss += layers[l]->balancers()[b]->coefficient() *
                      layers[l]->balancers()[b]->reduction(int(layers.size())) * t.losses[b] *
                      share;
    }
    ++l;
  }
}

double Trainer::norm_of_gradients() {
  Squares squares(model_.backend(), 1);
  for (auto* p : parameters_) {
    for (const auto [first, n] : rows_of(*p))
      squares.add(0, p->grad().slice(first, n));
  }
  double sum = squares.read()(0, 0);
  comm_.all_reduce_sum(std::span(&sum, 1));
  return std::sqrt(sum);
}

void Trainer::norms_by_expert(StepResult& r) {
  const auto layers = model_.moe_layers();
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Index experts = layers[l]->config().experts;
    Squares squares(model_.backend(), experts);
    auto& bodies = layers[l]->expert_parameters();
    for (auto* p : {&bodies.gate, &bodies.up, &bodies.down}) {
      if (p->grad().empty())
        continue;
      for (Index e = 0; e < experts; ++e)
        squares.add(e, p->grad().block(e, p->grad().rows / experts));
    }
    const Matrix<double> sums = squares.read();  // a name: a temporary would end before the loop
    for (const double v : sums.flat())
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
    if (!std::isfinite(model_.backend().sum_squares(parameters_[i]->grad()))) {
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
