#include "lib/golden/golden_rules.h"

#include <numeric>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/golden/golden_case.h"
#include "lib/router/router.h"

namespace moe {
namespace {

// The loss over all layers together, from what each of them leaves: value and gradient on the
// logits, coefficient 1.
std::pair<double, std::vector<double>> concat_loss(Router& router, const Batch& batch,
                                                   const std::vector<Matrix<double>>& logits) {
  struct Layer {
    RouterInput in;
    Routing routing;
    Matrix<double> p, dprob, dlogits, dnoise, dweight;
  };
  std::vector<Layer> layers;
  layers.reserve(logits.size());  // inputs refer to what stands beside them
  std::vector<BalanceInput> in;
  std::vector<BalanceGrad> grad;
  for (const Matrix<double>& z : logits) {
    Layer& l = layers.emplace_back(Layer{.in = {.scores = {z}, .batch = batch}});
    l.routing = router.route(l.in);
    l.p = router.probabilities(l.in, l.routing);
    l.dprob = l.dlogits = Matrix<double>(z.rows(), z.cols());
    in.push_back({l.in, l.routing, l.p, router.experts(), {}, {}});
    grad.push_back({l.dprob, l.dlogits, l.dnoise, l.dweight});
  }
  const auto shares = make_balancer("concat:coef=1")->losses(in, 1, grad);
  std::pair<double, std::vector<double>> out{std::accumulate(shares.begin(), shares.end(), 0.0),
                                             {}};
  for (Layer& l : layers) {
    std::vector<Matrix<double>> dz{Matrix<double>(l.p.rows(), l.p.cols())};
    router.backward(l.in, l.routing, {}, l.dprob, dz);
    out.second.insert(out.second.end(), dz[0].flat().begin(), dz[0].flat().end());
  }
  return out;
}

struct LayerLoss {
  double value = 0;
  std::vector<double> dz;  // (T*E)
};

// One balancer's loss and gradient on the logits of one layer, coefficient 1.
LayerLoss loss_of(const char* balancer, Router& router, const Batch& batch,
                  const Matrix<double>& logits, Routing& routing) {
  RouterInput in{.scores = {logits}, .batch = batch};
  routing = router.route(in);
  const Matrix<double> p = router.probabilities(in, routing);
  Matrix<double> dprob(p.rows(), p.cols());
  Matrix<double> dlogits(p.rows(), p.cols());
  Matrix<double> dnoise;
  Matrix<double> dweight;
  const auto balance = make_balancer(concat(balancer, ":coef=1"));
  LayerLoss out;
  out.value =
      balance->loss({in, routing, p, router.experts(), {}}, 1, {dprob, dlogits, dnoise, dweight});
  std::vector<Matrix<double>> dscores{dlogits};
  router.backward(in, routing, {}, dprob, dscores);
  out.dz.assign(dscores[0].flat().begin(), dscores[0].flat().end());
  return out;
}

struct LossInputs {
  Batch batch;
  std::vector<Matrix<double>> logits;  // (L) of (T,E)
};

LossInputs read_loss_inputs(const GoldenFile& file) {
  const Index layers = file.integer("num_layers");
  const Index tokens = file.integer("num_tokens");
  const Index experts = file.integer("num_experts");
  const auto logits = file.reals("input/logits").values;
  LossInputs in;
  in.batch.token.assign(std::size_t(tokens), 0);
  in.batch.start = {0, tokens};
  for (const auto v : file.integers("input/mask").values)
    in.batch.valid.push_back(std::uint8_t(v));
  if (Index(logits.size()) != layers * tokens * experts || Index(in.batch.valid.size()) != tokens) {
    throw Error(Exit::input, "input/logits or input/mask has another size than the options say");
  }
  for (Index l = 0; l < layers; ++l) {
    Matrix<double> z(tokens, experts);
    std::copy_n(logits.begin() + std::ptrdiff_t(l * z.size()), z.size(), z.data());
    in.logits.push_back(std::move(z));
  }
  return in;
}

// One loss of each layer, its gradients one behind the other.
struct LayerLosses {
  std::vector<double> value, dz;
  void add(const LayerLoss& l) {
    value.push_back(l.value);
    dz.insert(dz.end(), l.dz.begin(), l.dz.end());
  }
};

void run_losses(const GoldenFile& file, Comparison& out) {
  const LossInputs in = read_loss_inputs(file);
  const int experts = int(file.integer("num_experts"));
  const auto router = make_router(concat("softmax:k=", int(file.integer("top_k"))), experts);
  LayerLosses even, z;
  std::vector<std::int64_t> ids, counts;
  for (const Matrix<double>& logits : in.logits) {
    Routing routing;
    even.add(loss_of("switch", *router, in.batch, logits, routing));
    ids.insert(ids.end(), routing.expert.flat().begin(), routing.expert.flat().end());
    const auto n = count_experts(routing.expert, experts);
    counts.insert(counts.end(), n.begin(), n.end());
    z.add(loss_of("z", *router, in.batch, logits, routing));
  }
  const auto [concat_value, concat_dz] = concat_loss(*router, in.batch, in.logits);
  out.real("concat_loss", concat_value);
  out.reals("grad/concat_logits", concat_dz);
  out.integers("topk_ids", ids);
  out.integers("counts", counts);
  out.reals("switch_loss", even.value);
  out.reals("z_loss", z.value);
  const double sum = std::accumulate(even.value.begin(), even.value.end(), 0.0);
  out.real("switch_loss_sum", sum);
  out.real("switch_loss_mean", sum / double(in.logits.size()));
  out.reals("grad/switch_sum_logits", even.dz);
  out.reals("grad/z_sum_logits", z.dz);
}

// The L1 coefficient driven by given sparsities: counts of a large batch that have them.
void run_l1_updates(const GoldenFile& file, int experts, Comparison& out) {
  const auto l1 =
      make_balancer(concat("l1:coef=", file.reals("input/l1_coef").values.at(0),
                           ",growth=", file.real("l1_growth"), ",k=", file.integer("top_k")));
  const auto router = make_router("relu", experts);
  constexpr std::int64_t tokens = 1'000'000'000;
  std::vector<double> after;
  for (const double sparsity : file.reals("input/sparsity").values) {
    std::vector<std::int64_t> counts(std::size_t(experts), 0);
    counts[0] = std::llround((1 - sparsity) * double(tokens) * experts);
    l1->stepped(*router, counts, tokens);
    after.push_back(l1->coefficient());
  }
  out.reals("l1_coef", after);
}

// The selection bias after each of several steps.
void run_updates(const GoldenFile& file, Comparison& out) {
  const int experts = int(file.integer("num_experts"));
  const Index steps = file.integer("num_steps");
  const auto start = file.reals("input/bias").values;
  const auto counts = file.integers("input/counts").values;
  if (Index(start.size()) != experts || Index(counts.size()) != steps * experts)
    throw Error(Exit::input, "input/bias or input/counts has another size than the options say");
  for (const bool center : {false, true}) {
    const auto router = make_router(concat("softmax:bias=1,k=", file.integer("top_k")), experts);
    const auto bias =
        make_balancer(concat("bias:rate=", file.real("bias_update_rate"), ",center=", center));
    std::ranges::copy(start, router->correction_bias().begin());
    std::vector<double> after;
    for (Index s = 0; s < steps; ++s) {
      bias->stepped(*router,
                    std::span(counts).subspan(std::size_t(s * experts), std::size_t(experts)), 0);
      after.insert(after.end(), router->correction_bias().begin(), router->correction_bias().end());
    }
    out.reals(center ? "bias_sign_centered" : "bias_sign", after);
  }
  run_l1_updates(file, experts, out);
}

}  // namespace

void run_golden_rules(const GoldenFile& file, const std::string& kind, Comparison& out) {
  if (kind == "loss")
    return run_losses(file, out);
  if (kind == "update")
    return run_updates(file, out);
  if (kind == "transform")
    return run_golden_transform(file, out);
  throw Unsupported{concat("kind '", kind, "' is not there")};
}

}  // namespace moe
