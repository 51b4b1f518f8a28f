#include "lib/run/golden_modal_models.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/router/router.h"
#include "lib/run/golden_differences.h"
#include "lib/run/golden_towers.h"
#include "lib/trace/given_rows.h"

namespace moe {
namespace {

// What a MoE layer decided, kept until all layers have run.
struct Decided {
  Routing routing;
  Matrix<double> probability;
};

std::vector<double> whole_numbers(const GoldenFile& file, const std::string& name) {
  const auto all = file.integers(name).values;
  return {all.begin(), all.end()};
}

// Logits of the experts that each row may choose; in the file those of the row's own router alone.
std::vector<double> own_logits(const Routing& r) {
  std::vector<double> out;
  for (Index t = 0; t < r.tokens(); ++t) {
    const auto barred = r.bars_of(t);
    for (Index e = 0; e < r.logits.cols(); ++e) {
      if (barred.empty() || !barred[std::size_t(e)])
        out.push_back(r.logits(t, e));
    }
  }
  return out;
}

// Value of a balance loss over layers, without its coefficient.
double loss_over(const Balancer& loss, std::span<const Decided> layers, const Batch& batch,
                 int experts) {
  const RouterInput router{.scores = {}, .batch = batch};
  std::vector<BalanceInput> in;
  std::vector<Matrix<double>> nothing;
  nothing.reserve(layers.size());
  std::vector<BalanceGrad> grad;
  for (const Decided& d : layers) {
    in.push_back({router, d.routing, d.probability, experts, {}, {}});
    Matrix<double>& unused =
        nothing.emplace_back(d.probability.rows(), std::max<Index>(experts, d.routing.choices()));
    grad.push_back({unused, unused, unused, unused});
  }
  double sum = 0;
  if (loss.across_layers()) {
    for (const double share : loss.losses(in, 0, grad))
      sum += share;
    return sum;
  }
  for (std::size_t l = 0; l < in.size(); ++l)
    sum += loss.loss(in[l], 0, grad[l]);
  return sum;
}

class Comparing {
 public:
  Comparing(Decoder<float>& model, const GoldenFile& file, GoldenModelResult& out)
      : model_(model), file_(file), out_(out), batch_(read_given_rows(file)) {
    for (const std::string& name : file.datasets()) {
      if (name.ends_with("/router_logits"))
        left_.insert(name);
    }
  }

  void run() {
    Decoder<float>::Tape tape;
    model_.infer(
        {.batch = batch_}, tape,
        [&](int place, const MoeTape<float>& t, View<const float> x) { layer(place, t, x); });
    out_.wrong_choices += long(left_.size());  // of layers that the model does not have
    outputs(tape);
    balance();
  }

 private:
  void worse(double& most, const std::string& name, std::span<const float> got) {
    if (file_.has(name))
      most = std::max(most, apart(got, file_.reals(name).values));
  }
  void layer(int place, const MoeTape<float>& t, View<const float> x) {
    const std::string at = concat("moe/layer_", model_.layer_of(place), "/");
    if (left_.erase(at + "router_logits") == 0)
      return void(out_.wrong_choices += 1);
    const std::vector<double> logits = own_logits(t.routing);
    out_.router_logits =
        std::max(out_.router_logits,
                 apart(std::span<const double>(logits), file_.reals(at + "router_logits").values));
    compare_choices(t.routing, whole_numbers(file_, at + "topk_ids"),
                    file_.reals(at + "topk_weights").values, out_);
    MoeLayer<float>& layer = *model_.moe_layers()[std::size_t(place)];
    Matrix<float> input(x.rows, x.cols);
    model_.backend().to_host(x.data, input.data(), std::size_t(input.size()) * sizeof(float));
    worse(out_.hidden, at + "moe_input", std::as_const(input).flat());
    // once more by itself: in the model it is added to the stream
    Array<float> y(model_.backend(), x.rows, x.cols);
    MoeTape<float> again(batch_);
    layer.forward({.batch = batch_}, x, y.view(), again);
    worse(out_.moe_output, at + "moe_output", std::as_const(y).to_host().flat());
    decided_.push_back({t.routing, layer.router().probabilities(t.input, t.routing)});
  }
  void outputs(const Decoder<float>::Tape& tape) {
    Array<float> z(model_.backend(), batch_.tokens(), model_.config().vocabulary);
    model_.logits(tape.normed.view(), z.view());
    worse(out_.logits, "logits", z.to_host().flat());
    worse(out_.hidden, "hidden_states", tape.normed.to_host().flat());
    if (file_.has("loss"))
      out_.loss = std::abs(tape.loss - file_.reals("loss").values.at(0));
  }
  // The class's balance loss where its definition is one of ours: a sum over layers of first
  // choices where the file has one a layer, else all layers stacked as one. A class that counts
  // experts of two groups as one has another.
  void balance() {
    const bool grouped = !decided_.empty() && !decided_[0].routing.barred.empty();
    if (!file_.has("aux_loss") || grouped || decided_.empty())
      return;
    const std::string first = concat("moe/layer_", model_.layer_of(0), "/aux_loss");
    const auto loss =
        make_balancer(file_.has(first) ? "switch:coef=1,counts=top1" : "concat:coef=1");
    const double ours = loss_over(*loss, decided_, batch_, model_.config().moe.experts);
    out_.loss = std::max(out_.loss, std::abs(ours - file_.reals("aux_loss").values.at(0)));
  }

  Decoder<float>& model_;
  const GoldenFile& file_;
  GoldenModelResult& out_;
  const Batch batch_;
  std::set<std::string> left_;  // expected layers that have not run
  std::vector<Decided> decided_;
};

}  // namespace

bool is_modal_case(const GoldenFile& expected) {
  return has_given_rows(expected);
}

void compare_modal(Decoder<float>& model, const GoldenFile& expected, GoldenModelResult& out) {
  Comparing(model, expected, out).run();
}

std::string judge_modal(GoldenModelResult& r) {
  constexpr double router = 1e-5, hidden = 2e-5, output = 5e-5, weights = 3e-6, loss = 1e-5;
  r.allowed = 4e-5;
  const auto far = [](const char* what, double off_by, double allowed) {
    return off_by <= allowed ? std::string()
                             : concat(what, " differ by ", off_by, ", ", allowed, " are allowed");
  };
  if (r.logits < 0 || r.choices == 0)
    return "there are no logits or no choices of experts to compare with";
  if (r.wrong_choices > 0)
    return concat(r.wrong_choices, " of ", r.choices, " choices of experts differ");
  for (const std::string& sentence :
       {far("logits", r.logits, r.allowed), far("router logits", r.router_logits, router),
        far("hidden states", r.hidden, hidden), far("outputs of MoE layers", r.moe_output, output),
        far("weights of experts", r.weights, weights), far("losses", r.loss, loss)}) {
    if (!sentence.empty())
      return sentence;
  }
  return "";
}

std::string judge_encoders(const std::filesystem::path& folder, const GoldenFile& expected,
                           Backend<float>& backend, GoldenModelResult& r) {
  std::string worst;
  const auto judge = [&](const std::vector<TowerDifference>& all, const char* by) {
    for (const TowerDifference& d : all) {
      if (!(d.most <= d.allowed) && worst.empty())
        worst = concat(d.dataset, " differs by ", d.most, by, ", ", d.allowed, " are allowed");
    }
  };
  const auto fast = compare_towers<float>(folder, expected, backend);
  judge(fast, " in float");
  for (const TowerDifference& d : fast)
    r.encoders = std::max(r.encoders, d.most);
  const auto definition = make_reference<double>();
  judge(compare_towers<double>(folder, expected, *definition), " in double");
  return worst;
}

}  // namespace moe
