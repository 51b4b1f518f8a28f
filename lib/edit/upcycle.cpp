// Edits that make a dense model sparse (equations.md section 8).
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/core/shuffle.h"
#include "lib/core/spec_lists.h"
#include "lib/core/tensor.h"
#include "lib/edit/edit.h"
#include "lib/layer/router_product.h"
#include "lib/layer/transform.h"
#include "lib/model/config.h"
#include "lib/model/copy_weights.h"
#include "lib/model/layer_list.h"
#include "lib/model/mixer_type.h"
#include "lib/router/router.h"

namespace moe {
namespace {

constexpr double router_std = 0.02;

// The dense model's configuration with experts of `width` in every n-th layer, and nothing else
// changed.
ModelConfig sparse(const ModelConfig& dense, Index experts, Index width, int every,
                   const std::string& router, const std::string& balance) {
  ModelConfig c = dense;
  if (!c.feed.empty()) {  // what stands for experts of attention in a dense model stays
    std::vector<std::string> feeds = layer_entries(c.feed, c.layers, "feed");
    std::ranges::replace(feeds, std::string(attention_experts), mixers().names().front());
    c.feed = layer_list(std::move(feeds));
  }
  c.dense = false;
  c.dense_layers = 0;
  c.moe_every = every;
  c.dense_width = dense.dense_baseline_width();
  c.moe.experts = int(experts);
  c.moe.width = width;
  c.moe.router = router;
  c.moe.capacity = "none";
  c.moe.balance = split_list(balance, ";+");
  std::erase(c.moe.balance, "none");
  c.moe.shared_width = 0;
  c.moe.types.clear();
  c.moe.widths.clear();
  c.moe.zc_tau = 1;
  c.moe.zc_capacity = c.moe.zc_exclude_zero = c.moe.gate_residual = false;
  c.moe.shared_gate = c.moe.router_bias = c.moe.expert_bias = c.moe.weight_on_input = false;
  c.moe.output_bias = false;
  return c;
}

void disturb(Matrix<float>& m, double noise, Rng rng) {
  double squares = 0;
  for (const float v : m.flat())
    squares += double(v) * v;
  const double size = noise * std::sqrt(squares / double(std::max<Index>(1, m.size())));
  for (float& v : m.flat())
    v = float(double(v) + size * rng.normal());
}

struct Recipe {
  ModelConfig config;
  Matrix<Index> unit;  // (E,I) units of the dense body
  double scale = 1, outer = 1, noise = 0, router_std = moe::router_std;
  Index repeat = 1;  // router rows drawn once for so many experts
};

// Router rows N(0, std^2), each `repeat` times; projections that begin at zero and biases stay 0.
void draw_router(MoeLayer<float>& layer, const Recipe& r, Rng rng) {
  const auto kinds = layer.router().projections();
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    if (kinds[i].zero_init)
      continue;
    Parameter<float>& weight = layer.products()[i].weight();
    Matrix<float> rows(kinds[i].rows / r.repeat, weight.value().cols);
    for (float& v : rows.flat())
      v = float(r.router_std * rng.normal());
    const Matrix<float> all = repeated_rows(rows, r.repeat);
    weight.set(all.view());
  }
}

std::unique_ptr<Decoder<float>> build(Decoder<float>& old, const Recipe& r, std::uint64_t seed) {
  auto made = std::make_unique<Decoder<float>>(r.config, old.backend());
  made->initialise(seed);  // what neither the dense model nor the recipe says
  std::map<std::string, Parameter<float>*> there;
  for (auto* p : old.parameters())
    there[p->name()] = p;
  for (auto* p : made->parameters()) {
    if (const auto at = there.find(p->name()); at != there.end())
      copy_parameter(*at->second, *p);
  }
  for (std::size_t l = 0; l < made->blocks().size(); ++l) {
    if (!made->blocks()[l].moe)
      continue;
    MoeLayer<float>& layer = *made->blocks()[l].moe;
    HostExpertParameters<float> bodies =
        from_units(host_expert_parameters(old.blocks()[l].dense->expert_parameters()), r.unit,
                   r.scale, r.outer);
    Rng rng = Rng(seed).stream(l);
    if (r.noise > 0) {
      int n = 0;
      for (auto* m : {&bodies.gate, &bodies.up, &bodies.down})
        disturb(*m, r.noise, rng.stream(std::uint64_t(++n)));
    }
    set_expert_parameters(layer.expert_parameters(), bodies);
    draw_router(layer, r, rng.stream(0));
  }
  return made;
}

void need_dense(const Decoder<float>& model, const char* what) {
  if (const int n = model.config().moe_layers(); n > 0) {
    throw Error(Exit::usage,
                concat(what, " takes a dense model, and this one has ", n, " MoE layers"))
        .hint("--add, --remove and --merge change a sparse one");
  }
}

}  // namespace

namespace {

// How a dense model becomes sparse, and the sentence that says so.
struct Upcycling {
  Recipe recipe;
  std::string said;
};

Upcycling as_copies(Spec& spec, const ModelConfig& dense, int every) {
  const Index width = dense.dense_baseline_width();
  const int experts = spec.get("experts", 8, 1);
  Recipe r;
  r.noise = spec.get("noise", 0.0, 0.0);
  const std::string router =
      spec.has("router") ? spec.get("router", "")
                         : concat("softmax:k=", spec.get("k", std::min(2, experts), 1), ",norm=1");
  r.unit = units_of_copies(experts, width);
  r.config = sparse(dense, experts, width, every, router, spec.get("balance", "switch:coef=0.01"));
  std::string said = concat(experts, " copies of width ", width);
  if (r.noise > 0)
    said += concat(", with noise of ", r.noise, " times the root mean square of each matrix");
  return {std::move(r), std::move(said)};
}

Upcycling as_shards(Spec& spec, const ModelConfig& dense, int every) {
  const int shards = spec.get("shards", 4, 1);
  const int expansion = spec.get("expansion", 2, 1);
  const int k = spec.get("k", shards, 1);
  const bool norm = spec.get("norm", true);
  const Activation activation = dense.moe.activation;
  Recipe r;
  r.unit = units_of_shards(shards, expansion, dense.dense_baseline_width());
  r.repeat = shards;
  r.scale = granular_scale(activation, shards, expansion, k, norm);
  r.config =
      sparse(dense, r.unit.rows(), r.unit.cols(), every, concat("softmax:k=", k, ",norm=", norm),
             spec.get("balance", "switch:coef=0.01"));
  const bool exact =
      norm && k == shards && (activation == Activation::relu || activation == Activation::relu2);
  std::string said = concat(r.unit.rows(), " experts of width ", r.unit.cols(), ": ", shards,
                            " shards ", expansion, " times, weights times ", r.scale,
                            exact ? "; the output is that of the dense model"
                                  : "; the output is only near that of the dense model");
  return {std::move(r), std::move(said)};
}

// 0, 1, ... width - 1, shuffled where asked for.
std::vector<Index> unit_order(Index width, bool random, std::uint64_t seed) {
  std::vector<Index> order(static_cast<std::size_t>(width));
  std::iota(order.begin(), order.end(), Index(0));
  if (!random)
    return order;
  Rng rng = Rng(seed).stream(0x0bde7);
  shuffle(order, rng);
  return order;
}

}  // namespace

Edited upcycle(Decoder<float>& model, const std::string& text, std::uint64_t seed) {
  need_dense(model, "--upcycle");
  Spec spec(text);
  if (spec.name() != "copy" && spec.name() != "granular")
    no_such("upcycling", spec.name(), {"copy", "granular"});
  const int every = spec.get("every", 1, 1);
  const Upcycling way = spec.name() == "copy" ? as_copies(spec, model.config(), every)
                                              : as_shards(spec, model.config(), every);
  spec.done();
  Edited out{build(model, way.recipe, seed), {}};
  const LayerConfig& moe = out.model->config().moe;
  const std::string which =
      every > 1 ? concat(" in each ", every, ". layer") : std::string(" in every layer");
  out.changes = {concat("the dense feed-forward of width ", model.config().dense_baseline_width(),
                        which, " became ", way.said),
                 concat("router ", moe.router, " with rows drawn from N(0, ", router_std,
                        "^2), balance ", moe.balance.empty() ? "none" : join(moe.balance))};
  return out;
}

Edited split_dense(Decoder<float>& model, const std::string& options, std::uint64_t seed) {
  need_dense(model, "--split");
  Spec spec("split:" + options);
  const int experts = spec.get("experts", 4, 1);
  const int k = spec.get("k", experts, 1);
  const int every = spec.get("every", 1, 1);
  const bool random = spec.choice("order", {"index", "random"}) == "random";
  const std::string balance = spec.get("balance", k == experts ? "none" : "switch:coef=0.01");
  spec.done();
  const Index width = model.config().dense_baseline_width();
  Recipe r;
  r.unit = units_of_parts(unit_order(width, random, seed), experts);
  r.outer = 1.0 / experts;
  if (k == experts)
    r.router_std = 0;  // equal scores: every weight is k * 1/k
  r.config = sparse(model.config(), experts, r.unit.cols(), every,
                    concat("softmax:k=", k, ",norm=1,scale=", k), balance);
  Edited out{build(model, r, seed), {}};
  out.changes.push_back(concat(
      "the dense feed-forward of width ", width, " was cut into ", experts, " experts of width ",
      r.unit.cols(), random ? ", its hidden units shuffled" : ", its hidden units in order"));
  out.changes.push_back(
      k == experts
          ? concat("all ", k,
                   " compute every token with weight 1: the output is that of the dense model")
          : concat(k, " of ", experts,
                   " compute a token, each with a weight near 1: the output is only part of the "
                   "dense model's until it is trained"));
  return out;
}

}  // namespace moe
