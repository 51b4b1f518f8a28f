#include "apps/other_k.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/model/config.h"

namespace moe {

void KSums::add(int moe_layer, const Batch& batch, const Routing& r) {
  const auto n = std::size_t(moe_layer);
  if (layers_.size() <= n)
    layers_.resize(n + 1);
  Layer& l = layers_[n];
  l.weight.resize(std::size_t(r.choices()));
  for (Index t = 0; t < r.tokens(); ++t) {
    if (!batch.is_valid(t))
      continue;
    for (Index j = 0; j < r.choices(); ++j) {
      const int e = r.expert(t, j);
      if (e < 0)
        continue;
      if (std::size_t(e) >= l.load.size())
        l.load.resize(std::size_t(e) + 1);
      l.load[e] += 1;
      l.weight[j] += r.weight(t, j);
    }
  }
}

double KSums::busiest(std::size_t moe_layer, int experts) const {
  const std::vector<double>& load = layers_[moe_layer].load;
  const double all = std::accumulate(load.begin(), load.end(), 0.0);
  return all > 0 ? *std::ranges::max_element(load) * experts / all : NAN;
}

double KSums::beyond(std::size_t moe_layer, int k) const {
  const std::vector<double>& weight = layers_[moe_layer].weight;
  const double all = std::accumulate(weight.begin(), weight.end(), 0.0);
  const auto from = weight.begin() + std::min<std::ptrdiff_t>(k, std::ssize(weight));
  return all > 0 ? std::accumulate(from, weight.end(), 0.0) / all : NAN;
}

double KSums::share(std::size_t moe_layer, int expert) const {
  if (moe_layer >= layers_.size())
    return NAN;
  const std::vector<double>& load = layers_[moe_layer].load;
  const double all = std::accumulate(load.begin(), load.end(), 0.0);
  if (!(all > 0))
    return NAN;
  return std::size_t(expert) < load.size() ? load[std::size_t(expert)] / all : 0;
}

Table k_losses(const LossChanges& rows, int trained, int k) {
  Table t{.id = "loss_by_k", .title = fmt::format("Loss with k={} and k={}", trained, k)};
  t.reading = fmt::format(
      "The same text with the {} experts a token that the model was trained with, and with {}. "
      "Intervals (95 %) are by sequences: one that holds 0 is no change that this much text can "
      "show.",
      trained, k);
  t.columns = {{.name = "domain", .cells = rows.name},
               {.name = fmt::format("loss k={}", trained),
                .unit = "nats",
                .meaning = "as trained",
                .cells = rows.before,
                .digits = 4},
               {.name = fmt::format("loss k={}", k),
                .unit = "nats",
                .meaning = "as asked for",
                .cells = rows.after,
                .digits = 4},
               rows.column(fmt::format("loss k={} - loss k={}", k, trained))};
  if (const std::string unclear = rows.warning(); !unclear.empty())
    t.warnings.push_back(unclear);
  return t;
}

Table k_routing(Decoder<float>& model, const KSums& as_trained, const KSums& now, int trained,
                int k) {
  std::vector<std::int64_t> layer;
  std::vector<double> before, after, beyond;
  const int few = std::min(trained, k);
  const int experts = model.config().moe.experts;
  for (std::size_t l = 0; l < std::size_t(model.config().moe_layers()); ++l) {
    layer.push_back(model.layer_of(int(l)));
    before.push_back(as_trained.busiest(l, experts));
    after.push_back(now.busiest(l, experts));
    beyond.push_back((k > trained ? now : as_trained).beyond(l, few));
  }
  Table t{.id = "routing_by_k", .title = fmt::format("Routing with k={} and k={}", trained, k)};
  t.reading = fmt::format(
      "How uneven the load is, and what weight the choices have that {}. moe trace --top-k {} "
      "records all of it.",
      k > trained ? "come in addition" : "fall away", k);
  t.columns = {
      {.name = "layer", .cells = layer},
      {.name = fmt::format("busiest k={}", trained),
       .meaning = "choices of the busiest expert over the mean of all",
       .cells = before},
      {.name = fmt::format("busiest k={}", k), .meaning = "the same as asked for", .cells = after},
      {.name = fmt::format("weight behind {}", few),
       .meaning = fmt::format("share of the combine weights of k={} that choices behind "
                              "the first {} have",
                              std::max(trained, k), few),
       .cells = beyond}};
  return t;
}

}  // namespace moe
