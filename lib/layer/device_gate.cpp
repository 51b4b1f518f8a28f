// Routing that never leaves the device: scores, choice, weights and their backward are operations
// of OnDevice, and the host learns how many choices every expert got (the plan tells it) and, after
// the last layer, sums over tokens. For routers that are a DeviceRule, balancers with losses
// by_sums(), no capacity rule, no jitter.
#include <algorithm>
#include <limits>
#include <utility>

#include "lib/backend/on_device.h"
#include "lib/core/convert.h"
#include "lib/core/error.h"
#include "lib/layer/gate.h"
#include "lib/layer/gate_rules.h"
#include "lib/router/device_rule.h"

namespace moe {
namespace {

std::vector<std::int64_t> counts_of(const Plan& plan) {
  std::vector<std::int64_t> offset(plan.host_offset.begin(), plan.host_offset.end());
  if (offset.empty()) {
    const Matrix<int> on_host = plan.offset.to_host();
    offset.assign(on_host.flat().begin(), on_host.flat().end());
  }
  std::vector<std::int64_t> n;
  for (std::size_t e = 0; e + 1 < offset.size(); ++e)
    n.push_back(offset[e + 1] - offset[e]);
  return n;
}
bool draws_given(const GivenNoise* g) {
  return g && !(g->noise.empty() && g->jitter.empty() && g->drop.empty() && g->table.empty() &&
                g->expert.empty());
}
View<const double> as_row(std::span<const double> v) {
  return {v.data(), v.empty() ? 0 : 1, Index(v.size())};
}

template <class S>
struct DeviceMemory final : GateMemory {
  TopK rule;
  Array<S> logits;   // (T,E) before temperature
  Array<int> valid;  // (1,T) or empty: all
  Array<S> sums;     // (1,E+2) over tokens: probabilities, lse^2, entropy
  // (E) gradient of the balance losses by every token's probability; empty = none
  std::vector<double> dprobability;
  double dsquare = 0;  // the same by lse^2
  // These stay: losses may be read after the backward pass.
  std::vector<SumFactors> factors;  // one a balancer: what makes losses of the sums
  RoutingSums routed;
  void release() override {
    logits = {};
    valid = {};
    sums = {};
  }
  // Adds a loss's gradient to what every token will get.
  void weigh(const Balancer& b, const SumFactors& f, double scale) {
    if (!f.probability.empty())
      dprobability.resize(f.probability.size());
    for (std::size_t e = 0; e < f.probability.size(); ++e)
      dprobability[e] += scale * b.coefficient() * f.probability[e];
    dsquare += scale * b.coefficient() * f.square;
  }
};

template <class S>
class DeviceGate final : public Gate<S> {
 public:
  DeviceGate(GateRules<S>& rules, OnDevice<S>& device) : rules_(rules), device_(device) {}
  bool on_device() const override {
    return true;
  }
  bool can_route(const Pass& pass) const override {
    const auto* rule = capability<DeviceRule>(*rules_.router);
    if (!rule || !rule->top_k() || !rules_.products[0].plain())
      return false;
    if (pass.gate.on_host || draws_given(pass.gate.given) || rules_.config.gate_residual ||
        rules_.config.expert_scale) {
      return false;
    }
    if (rules_.capacity->limits() || !rules_.missing.empty() || !rules_.config.all_ffn() ||
        (rules_.router->jitter > 0 && pass.training)) {
      return false;
    }
    return std::ranges::all_of(rules_.balancers, [](const auto& b) { return b->by_sums(); });
  }

  void route(const Pass& pass, View<const S> x, GateTape<S>& t) override {
    t.gate = this;
    auto made = std::make_unique<DeviceMemory<S>>();
    DeviceMemory<S>& m = *made;
    t.memory = std::move(made);
    Backend<S>& backend = rules_.backend;
    const Index tokens = x.rows;
    const Index experts = rules_.config.experts;
    m.rule = *capability<DeviceRule>(*rules_.router)->top_k();
    m.logits = rules_.products[0].logits(x);
    t.choices.expert = Array<int>(backend, tokens, m.rule.k);
    t.choices.weight = Array<S>(backend, tokens, m.rule.k);
    const std::vector<int> valid(pass.batch.valid.begin(), pass.batch.valid.end());
    if (!valid.empty())
      m.valid = Array<int>(backend, View<const int>{valid.data(), 1, tokens});
    const Array<double> bias(backend, as_row(rules_.router->correction_bias()));
    Array<S> seen(backend, tokens, experts + 2);
    device_.top_k(std::as_const(m.logits).view(), m.rule, bias.view(),
                  std::as_const(m.valid).view(), t.choices.expert.view(), t.choices.weight.view(),
                  seen.view());
    m.sums = Array<S>::zeros(backend, 1, experts + 2);
    backend.bias_grad(std::as_const(seen).view(), m.sums.view());  // column sums
  }

  // The plan's counts, and what balance losses make of them.
  void balance(const Pass& pass, const Plan& plan, GateTape<S>& t) override {
    DeviceMemory<S>& m = memory(t);
    m.routed.counts = m.routed.kept = counts_of(plan);
    for (Index n = 0; n < pass.batch.tokens(); ++n)
      m.routed.tokens += pass.batch.is_valid(n);
    m.routed.entropy = std::numeric_limits<double>::quiet_NaN();  // until it is read
    for (const auto& b : rules_.balancers) {
      const bool later = b->across_layers() || (b->counts_whole_step() && pass.counts_follow);
      m.factors.push_back(later ? SumFactors{}
                                : b->sum_factors({m.routed.counts, m.routed.tokens,
                                                  pass.other_counts, rules_.eta}));
      m.weigh(*b, m.factors.back(), pass.loss_scale * b->reduction(pass.layers.count));
    }
    if (pass.layers.losses_follow)
      return;
    GateTape<S>* alone[] = {&t};
    const Matrix<S> sums = balance_across(pass, alone).to_host();
    read_sums(sums.row(0), t);
  }

  // Gradients of losses over all layers; the sums of all layers, for one copy.
  Array<S> balance_across(const Pass& pass, std::span<GateTape<S>* const> layers) override {
    const std::size_t experts = std::size_t(rules_.config.experts);
    auto sums = Array<S>::zeros(rules_.backend, Index(layers.size()), Index(experts) + 2);
    std::vector<std::int64_t> counts(experts, 0);
    Index tokens = 0;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const DeviceMemory<S>& m = memory(*layers[l]);
      rules_.backend.add(m.sums.view(), sums.view().slice(Index(l), 1), 1);
      for (std::size_t e = 0; e < experts; ++e)
        counts[e] += m.routed.counts[e];
      tokens += m.routed.tokens;
    }
    for (GateTape<S>* t : layers) {
      const auto& balancers = static_cast<DeviceGate&>(*t->gate).rules_.balancers;
      DeviceMemory<S>& m = memory(*t);
      for (std::size_t b = 0; b < balancers.size(); ++b) {
        if (!balancers[b]->across_layers())
          continue;
        m.factors[b] = balancers[b]->sum_factors({.chosen = counts, .tokens = tokens});
        m.weigh(*balancers[b], m.factors[b], pass.loss_scale);
      }
    }
    return sums;
  }

  void read_sums(std::span<const S> row, GateTape<S>& t) override {
    DeviceMemory<S>& m = memory(t);
    const std::size_t experts = row.size() - 2;
    m.routed.entropy = double(row[experts + 1]);
    t.losses.clear();
    for (const SumFactors& f : m.factors) {
      double loss = f.square * double(row[experts]);
      for (std::size_t e = 0; e < f.probability.size(); ++e)
        loss += f.probability[e] * double(row[e]);
      t.losses.push_back(loss);
    }
  }

  std::vector<std::int64_t> step_counts(const Pass&, const GateTape<S>& t) const override {
    std::vector<std::int64_t> out;
    for (int b = 0; b < rules_.step_balancers(); ++b) {
      const auto& counts = memory(t).routed.counts;
      out.insert(out.end(), counts.begin(), counts.end());
    }
    return out;
  }
  void balance_step(const Pass& pass, std::span<const std::int64_t> others,
                    GateTape<S>& t) override {
    DeviceMemory<S>& m = memory(t);
    const std::size_t experts = m.routed.counts.size();
    for (std::size_t b = 0; b < rules_.balancers.size(); ++b) {
      const Balancer& balancer = *rules_.balancers[b];
      if (!balancer.counts_whole_step())
        continue;
      m.factors[b] = balancer.sum_factors(
          {m.routed.counts, m.routed.tokens, others.first(experts), rules_.eta});
      m.weigh(balancer, m.factors[b], pass.loss_scale * balancer.reduction(pass.layers.count));
      others = others.subspan(experts);
    }
  }

  void backward(const Pass&, const GateTape<S>& t, View<const S> x, const ChoiceGradients<S>& d,
                View<S> dx, const GateGradients& more) override {
    const DeviceMemory<S>& m = memory(t);
    Array<S> dz(rules_.backend, m.logits.rows(), m.logits.cols());
    const Array<double> dprobability(rules_.backend, as_row(m.dprobability));
    device_.top_k_backward(m.logits.view(), m.rule, m.valid.view(), t.choices.expert.view(),
                           d.weight.view(), dprobability.view(), m.dsquare, dz.view());
    if (more.dlogits) {
      throw Error(Exit::bug,
                  "gradients of logits arrived at a layer whose logits stayed on the device");
    }
    if (more.dscores) {
      more.dscores->assign(1, converted<double>(dz.to_host()));
      for (double& v : (*more.dscores)[0].flat())
        v *= m.rule.temperature;
    }
    rules_.products[0].logits_backward(x, std::as_const(dz).view(), dx);
  }

  // The router fills in weights and scores for the device's choices.
  void fetch(GateTape<S>& t) override {
    const DeviceMemory<S>& m = memory(t);
    if (m.logits.empty())
      return;
    Matrix<double> scores = converted<double>(m.logits.to_host());
    for (double& s : scores.flat())
      s /= m.rule.temperature;
    t.input.scores.assign(1, std::move(scores));
    const GivenNoise chosen{.expert = t.choices.expert.to_host()};
    const GivenNoise* before = std::exchange(t.input.given, &chosen);
    t.routing = rules_.router->route(t.input);
    t.input.given = before;
    if (rules_.balances())
      t.probability = rules_.router->probabilities(t.input, t.routing);
  }

  RoutingSums sums(const GateTape<S>& t) const override {
    return memory(t).routed;
  }

 private:
  static DeviceMemory<S>& memory(const GateTape<S>& t) {
    return static_cast<DeviceMemory<S>&>(*t.memory);
  }

  GateRules<S>& rules_;
  OnDevice<S>& device_;
};

}  // namespace

template <class S>
std::unique_ptr<Gate<S>> make_device_gate(GateRules<S>& rules) {
  auto* device = dynamic_cast<OnDevice<S>*>(&rules.backend);
  return device ? std::make_unique<DeviceGate<S>>(rules, *device) : nullptr;
}

template std::unique_ptr<Gate<float>> make_device_gate(GateRules<float>&);
template std::unique_ptr<Gate<double>> make_device_gate(GateRules<double>&);

}  // namespace moe
