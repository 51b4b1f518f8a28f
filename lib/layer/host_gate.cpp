// Routing on the host, in double, by any router of lib/router: scores come from the backend,
// choices and combine weights go back to it, and so do the gradients.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "lib/core/convert.h"
#include "lib/core/error.h"
#include "lib/core/profile.h"
#include "lib/core/rng.h"
#include "lib/layer/gate.h"
#include "lib/layer/gate_rules.h"
#include "lib/router/mixing.h"
#include "lib/router/weighs_chosen.h"

namespace moe {
namespace {

// From so many experts on, and so many a choice, gradients of the weights of choices go to the
// chosen experts' rows of the router's matrix alone, where they reach no other.
constexpr int many_experts = 512;
constexpr int many_a_choice = 16;

// x times the jitter factors, in the backend's memory.
template <class S>
Array<S> jittered(Backend<S>& backend, View<const S> x, const Matrix<double>& factor) {
  Matrix<S> host = Matrix<S>::unset(x.rows, x.cols);
  backend.to_host(x.data, host.data(), std::size_t(x.size()) * sizeof(S));
  for (Index i = 0; i < host.size(); ++i)
    host.data()[i] = S(double(host.data()[i]) * factor.data()[i]);
  return Array<S>(backend, std::as_const(host).view());
}

template <class S>
Array<S> to_backend(Backend<S>& backend, const Matrix<double>& m) {
  const Matrix<S> host = converted<S>(m);
  return Array<S>(backend, host.view());
}

void add(const Matrix<double>& from, Matrix<double>& to) {
  parallel_for(from.size(), numbers_at_once, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i)
      to.data()[i] += from.data()[i];
  });
}

Index valid_tokens(const Batch& batch) {
  Index n = 0;
  for (Index t = 0; t < batch.tokens(); ++t)
    n += batch.is_valid(t);
  return n;
}

// -sum p ln p over the rows of valid tokens: logarithms by all threads, added in order.
double entropy(const Matrix<double>& p, const Batch& batch) {
  double sum = 0;
  const Index at_once = std::max<Index>(1, 4 * numbers_at_once / p.cols());
  Matrix<double> term = Matrix<double>::unset(std::min(at_once, p.rows()), p.cols());
  for (Index first = 0; first < p.rows(); first += at_once) {
    const Index rows = std::min(at_once, p.rows() - first);
    parallel_for(rows, std::max<Index>(1, 4096 / p.cols()), [&](Index begin, Index end) {
      for (Index n = begin; n < end; ++n) {
        for (Index e = 0; e < p.cols(); ++e) {
          const double v = p(first + n, e);
          term(n, e) = v > 0 ? v * std::log(v) : 0;
        }
      }
    });
    for (Index n = 0; n < rows; ++n) {
      for (Index e = 0; e < p.cols() && batch.is_valid(first + n); ++e)
        sum -= term(n, e);
    }
  }
  return sum;
}

template <class S>
struct HostMemory final : GateMemory {
  Matrix<double> dprob, dlogits, dnoise, dweight;  // of the balance losses
  Matrix<double> dmatrix;                          // (E,H) of losses of the router's matrix
  Matrix<double> jitter;                           // (T,H) factors; empty = none
  Matrix<double> unscaled;                         // (T,K) weights without expert_scale
  std::vector<typename RouterProduct<S>::Tape> products;
  void release() override {
    *this = HostMemory();
  }
};

template <class S>
class HostGate final : public Gate<S> {
 public:
  explicit HostGate(GateRules<S>& rules) : rules_(rules) {}
  bool on_device() const override {
    return false;
  }
  bool can_route(const Pass&) const override {
    return true;
  }

  void route(const Pass& pass, View<const S> x, GateTape<S>& t) override {
    t.gate = this;
    t.memory = std::make_unique<HostMemory<S>>();
    {
      const TimeSpan time("scores");
      score(pass, x, t);
    }
    t.input.training = pass.training;
    t.input.rng = pass.rng;
    t.input.given = pass.gate.given;
    {
      const TimeSpan time("top-k");
      t.routing = rules_.router->route(t.input);
    }
    rules_.capacity->apply(t.routing, t.input, *rules_.router);
    if (!rules_.expert_scale.empty())
      scale_weights(t);
    if (!rules_.missing.empty() && pass.training)
      throw Error(Exit::bug, "a layer with experts knocked out cannot train");
    if (!rules_.missing.empty())
      drop_missing(t.routing);
    hand_over(pass, t);
  }

  void balance(const Pass& pass, const Plan&, GateTape<S>& t) override {
    t.choices.expert = {};  // the plan says it now
    if (!rules_.balances())
      return;
    t.probability = rules_.router->probabilities(t.input, t.routing);
    const Index rows = t.probability.rows();
    const Index cols = t.probability.cols();
    HostMemory<S>& m = memory(t);
    m.dprob = zeros<double>(rows, cols);
    m.dlogits = zeros<double>(rows, cols);
    m.dnoise = zeros<double>(rules_.router->facts().learns_noise ? rows : 0, cols);
    m.dweight = Matrix<double>(t.routing.tokens(), t.routing.choices());
    const BalanceInput in = balance_input(pass, t);
    for (const auto& b : rules_.balancers) {
      const bool later = (b->across_layers() && pass.layers.losses_follow) ||
                         (b->counts_whole_step() && pass.counts_follow);
      const double scale = pass.loss_scale * b->reduction(pass.layers.count);
      if (b->of_matrix())
        t.losses.push_back(matrix_loss(*b, scale, m));
      else
        t.losses.push_back(later ? 0 : b->loss(in, scale, gradients(t)));
      if (pass.training)
        t.seen.push_back(b->seen(*rules_.router, in));
    }
  }

  Array<S> balance_across(const Pass& pass, std::span<GateTape<S>* const> layers) override {
    if (!rules_.balances())
      return {};
    std::vector<BalanceInput> in;
    std::vector<BalanceGrad> grad;
    for (GateTape<S>* t : layers) {
      in.push_back(static_cast<HostGate&>(*t->gate).balance_input(pass, *t));
      grad.push_back(gradients(*t));
    }
    // the layers of a model have the same balancers
    for (std::size_t b = 0; b < rules_.balancers.size(); ++b) {
      const Balancer& balancer = *rules_.balancers[b];
      if (!balancer.across_layers())
        continue;
      const std::vector<double> shares = balancer.losses(in, pass.loss_scale, grad);
      for (std::size_t l = 0; l < layers.size(); ++l)
        layers[l]->losses[b] = shares[l];
    }
    return {};
  }
  void read_sums(std::span<const S>, GateTape<S>&) override {}

  std::vector<std::int64_t> step_counts(const Pass& pass, const GateTape<S>& t) const override {
    std::vector<std::int64_t> out;
    for (const auto& b : rules_.balancers) {
      if (!b->counts_whole_step() || rules_.step_balancers() == 0)
        continue;
      const auto counted = b->counted(balance_input(pass, t));
      out.insert(out.end(), counted.begin(), counted.end());
    }
    return out;
  }
  void balance_step(const Pass& pass, std::span<const std::int64_t> others,
                    GateTape<S>& t) override {
    const std::size_t experts = std::size_t(rules_.config.experts);
    for (std::size_t b = 0; b < t.losses.size(); ++b) {
      const Balancer& balancer = *rules_.balancers[b];
      if (!balancer.counts_whole_step())
        continue;
      BalanceInput in = balance_input(pass, t);
      in.other_counts = others.first(experts);
      others = others.subspan(experts);
      const double scale = pass.loss_scale * balancer.reduction(pass.layers.count);
      t.losses[b] = balancer.loss(in, scale, gradients(t));
    }
  }

  void backward(const Pass& pass, const GateTape<S>& t, View<const S> x,
                const ChoiceGradients<S>& d, View<S> dx, const GateGradients& more) override {
    if (rules_.products.empty())
      return;
    if (reaches_chosen_alone(t, more))
      return chosen_backward(t, x, d, dx);
    std::vector<Matrix<double>> dscores;
    for (const auto& s : t.input.scores)
      dscores.push_back(zeros<double>(s.rows(), s.cols()));
    const HostMemory<S>& m = memory(t);
    choices_backward(t, d, dscores);
    const TimeSpan time("scores backward");
    score_backward(pass, m, x, std::move(dscores), dx, more);
    matrix_backward(m);
  }

  void fetch(GateTape<S>&) override {}

  RoutingSums sums(const GateTape<S>& t) const override {
    RoutingSums f{count_experts(t.routing.expert, rules_.config.experts),
                  count_experts(t.routing.computed(), rules_.config.experts)};
    const Matrix<double>& p = t.probability.empty() ? t.routing.score : t.probability;
    f.tokens = valid_tokens(t.input.batch);
    f.entropy = p.empty() ? std::numeric_limits<double>::quiet_NaN() : entropy(p, t.input.batch);
    return f;
  }

 private:
  // From the choices and the balance losses to the scores.
  void choices_backward(const GateTape<S>& t, const ChoiceGradients<S>& d,
                        std::vector<Matrix<double>>& dscores) {
    const TimeSpan time("top-k backward");
    if (const auto* mixing = capability<Mixing>(*rules_.router)) {
      mixing->mix_backward(t.input, t.routing, converted<double>(d.dispatch.to_host()),
                           converted<double>(d.mix.to_host()), dscores);
    } else {
      const Matrix<double> dweight = by_weights(t, d);
      Routing unscaled;
      rules_.router->backward(t.input, as_routed(t, unscaled), dweight, memory(t).dprob, dscores);
    }
  }
  // By the weights of the router, (T,K), or (T,2K) with those of moved slots beside them.
  Matrix<double> by_weights(const GateTape<S>& t, const ChoiceGradients<S>& d) {
    const HostMemory<S>& m = memory(t);
    Matrix<double> dweight =
        rules_.capacity->backward(t.routing, converted<double>(d.weight.to_host()));
    for (Index n = 0; n < m.dweight.rows(); ++n) {
      for (Index j = 0; j < m.dweight.cols(); ++j)
        dweight(n, j) += m.dweight(n, j);
    }
    if (!rules_.expert_scale.empty())
      scale_backward(t, dweight);
    return dweight;
  }

  bool pays_to_leave_out(const Matrix<int>& expert) const {
    const Index experts = rules_.config.experts;
    return experts >= many_experts && experts >= many_a_choice * expert.cols();
  }
  // Whether nothing but the weights of choices has a gradient that reaches the scores, and it pays
  // to leave out the experts that it does not reach.
  bool reaches_chosen_alone(const GateTape<S>& t, const GateGradients& more) const {
    const auto weighs = [](const auto& b) {
      return b->coefficient() != 0;
    };
    const auto* router = capability<WeighsChosen>(*rules_.router);
    return pays_to_leave_out(t.routing.expert) && router && router->by_chosen_alone() &&
           std::ranges::none_of(rules_.balancers, weighs) && !rules_.capacity->reroutes() &&
           memory(t).jitter.empty() && !more.dlogits && !more.dscores &&
           rules_.products.size() == 1 && rules_.products[0].reaches_chosen();
  }
  void chosen_backward(const GateTape<S>& t, View<const S> x, const ChoiceGradients<S>& d,
                       View<S> dx) {
    Matrix<double> dz = Matrix<double>::unset(t.routing.tokens(), t.routing.choices());
    Routing unscaled;
    const Routing& r = as_routed(t, unscaled);
    {
      const TimeSpan time("top-k backward");
      capability<WeighsChosen>(*rules_.router)->chosen_backward(t.input, r, by_weights(t, d), dz);
    }
    const TimeSpan time("scores backward");
    RouterProduct<S>& product = rules_.products[0];
    const double tau = product.projection().tempered ? rules_.router->temperature : 1;
    product.chosen_backward(x, tau, r.expert, std::move(dz), dx);
  }

  static HostMemory<S>& memory(const GateTape<S>& t) {
    return static_cast<HostMemory<S>&>(*t.memory);
  }
  static BalanceGrad gradients(const GateTape<S>& t) {
    HostMemory<S>& m = memory(t);
    return {m.dprob, m.dlogits, m.dnoise, m.dweight};
  }
  BalanceInput balance_input(const Pass& pass, const GateTape<S>& t) const {
    return {t.input,           t.routing, t.probability, rules_.config.experts,
            pass.other_counts, rules_.eta};
  }

  double matrix_loss(const Balancer& b, double scale, HostMemory<S>& m) const {
    const Matrix<double> w = converted<double>(rules_.products[0].weight().to_host());
    if (m.dmatrix.empty())
      m.dmatrix = Matrix<double>(w.rows(), w.cols());
    return b.matrix_loss(w, scale, m.dmatrix);
  }
  void matrix_backward(const HostMemory<S>& m) {
    const View<S> grad = rules_.products[0].weight().grad();
    if (!m.dmatrix.empty() && !grad.empty()) {
      const Array<S> there = to_backend(rules_.backend, m.dmatrix);
      rules_.backend.add(there.view(), grad, 1);
    }
  }

  // What the router decided, before factors of experts; `space` is for what differs.
  const Routing& as_routed(const GateTape<S>& t, Routing& space) const {
    if (rules_.expert_scale.empty())
      return t.routing;
    space = t.routing;
    space.weight = memory(t).unscaled;
    return space;
  }
  // weight of a choice times the factor of its expert
  void scale_weights(GateTape<S>& t) const {
    const Matrix<S> scale = rules_.expert_scale.to_host();
    Routing& r = t.routing;
    memory(t).unscaled = r.weight;
    for (Index n = 0; n < r.tokens(); ++n) {
      for (Index j = 0; j < r.choices(); ++j) {
        if (r.expert(n, j) >= 0)
          r.weight(n, j) *= double(scale(0, r.expert(n, j)));
      }
    }
  }
  // dweight: by the scaled weights in, by those of the router out
  void scale_backward(const GateTape<S>& t, Matrix<double>& dweight) {
    const Matrix<S> scale = rules_.expert_scale.to_host();
    const Routing& r = t.routing;
    const Matrix<double>& unscaled = memory(t).unscaled;
    Matrix<double> dscale(1, scale.cols());
    for (Index n = 0; n < r.tokens(); ++n) {
      for (Index j = 0; j < r.choices(); ++j) {
        const int e = r.expert(n, j);
        if (e < 0)
          continue;
        dscale(0, e) += dweight(n, j) * unscaled(n, j);
        dweight(n, j) *= double(scale(0, e));
      }
    }
    if (!rules_.expert_scale.grad().empty()) {
      const Array<S> there = to_backend(rules_.backend, dscale);
      rules_.backend.add(there.view(), rules_.expert_scale.grad(), 1);
    }
  }

  void draw_jitter(const Pass& pass, View<const S> x, HostMemory<S>& m) const {
    const GivenNoise* given = pass.gate.given;
    if (given && !given->jitter.empty()) {
      m.jitter = given->jitter;
      return;
    }
    if (!pass.training)
      return;
    m.jitter = Matrix<double>(x.rows, x.cols);
    for (double& u : m.jitter.flat())
      u = 1 + rules_.router->jitter * (2 * pass.rng->uniform() - 1);
  }

  // z = (W (x*u) + b + R) / tau, one matrix a projection
  void score(const Pass& pass, View<const S> x, GateTape<S>& t) const {
    HostMemory<S>& m = memory(t);
    Array<S> shaken;
    if (rules_.router->jitter > 0)
      draw_jitter(pass, x, m);
    if (!m.jitter.empty())
      shaken = jittered(rules_.backend, x, m.jitter);
    m.products.resize(rules_.products.size());
    for (std::size_t i = 0; i < rules_.products.size(); ++i) {
      const RouterProduct<S>& product = rules_.products[i];
      const bool tempered = product.projection().tempered;
      const View<const S> u = tempered && !m.jitter.empty() ? View<const S>(shaken.view()) : x;
      t.input.scores.push_back(product.forward(u, tempered ? rules_.router->temperature : 1,
                                               pass.gate.previous, m.products[i]));
    }
  }

  void drop_missing(Routing& r) const {
    Matrix<int> kept = r.computed();
    Matrix<double> weight = r.combined();
    for (Index t = 0; t < kept.rows(); ++t) {
      double before = 0;
      double left = 0;
      for (Index j = 0; j < kept.cols(); ++j) {
        before += weight(t, j);
        if (std::ranges::find(rules_.missing, kept(t, j)) != rules_.missing.end()) {
          kept(t, j) = -1;
          weight(t, j) = 0;
        }
        left += weight(t, j);
      }
      for (Index j = 0; rules_.renormalise && left > 0 && j < kept.cols(); ++j)
        weight(t, j) *= before / left;
    }
    r.kept = std::move(kept);
    r.combine = std::move(weight);
  }

  // The routing becomes choices in the backend's memory.
  void hand_over(const Pass& pass, GateTape<S>& t) const {
    const Routing& r = t.routing;
    if (!r.mix.empty()) {
      t.choices.dispatch = to_backend(rules_.backend, r.dispatch);
      t.choices.mix = to_backend(rules_.backend, r.mix);
      return;
    }
    Matrix<int> bodied = r.computed();
    for (int& e : bodied.flat()) {
      if (e >= 0 && rules_.config.type_of(e) != ExpertKind::ffn)
        e = -1;
    }
    t.choices.expert = Array<int>(rules_.backend, std::as_const(bodied).view());
    t.choices.weight = to_backend(rules_.backend, r.combined());
    if (!rules_.capacity->identity_output())
      return;
    t.choices.identity.assign(std::size_t(r.tokens()), 0);
    for (Index n = 0; n < r.tokens(); ++n) {
      const auto row = r.computed().row(n);
      t.choices.identity[n] =
          pass.batch.is_valid(n) && std::ranges::all_of(row, [](int e) { return e < 0; });
    }
  }

  // From the scores to the projections and x.
  void score_backward(const Pass& pass, const HostMemory<S>& m, View<const S> x,
                      std::vector<Matrix<double>> dscores, View<S> dx, const GateGradients& more) {
    add(m.dlogits, dscores[0]);
    if (!m.dnoise.empty())
      add(m.dnoise, dscores[1]);
    if (more.dlogits)
      add(*more.dlogits, dscores[0]);
    if (more.dscores)
      *more.dscores = dscores;
    Backend<S>& backend = rules_.backend;
    const Array<S> shaken = m.jitter.empty() ? Array<S>{} : jittered(backend, x, m.jitter);
    for (std::size_t i = 0; i < rules_.products.size(); ++i) {
      RouterProduct<S>& product = rules_.products[i];
      const bool tempered = product.projection().tempered;
      const double tau = tempered ? rules_.router->temperature : 1;
      if (!tempered || m.jitter.empty()) {
        product.backward(x, tau, pass.gate.previous, m.products[i], std::move(dscores[i]), dx,
                         more.dprevious);
        continue;
      }
      Array<S> du = Array<S>::zeros(backend, x.rows, x.cols);
      product.backward(shaken.view(), tau, pass.gate.previous, m.products[i], std::move(dscores[i]),
                       du.view(), more.dprevious);
      backend.add(jittered(backend, View<const S>(du.view()), m.jitter).view(), dx, 1);
    }
  }

  GateRules<S>& rules_;
};

}  // namespace

template <class S>
std::unique_ptr<Gate<S>> make_host_gate(GateRules<S>& rules) {
  return std::make_unique<HostGate<S>>(rules);
}

template std::unique_ptr<Gate<float>> make_host_gate(GateRules<float>&);
template std::unique_ptr<Gate<double>> make_host_gate(GateRules<double>&);

}  // namespace moe
