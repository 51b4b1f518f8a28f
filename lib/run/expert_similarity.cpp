// How alike the experts of a model are: weights and outputs brought to the host and handed to
// lib/core/similarity.h.
#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/similarity.h"
#include "lib/model/config.h"
#include "lib/run/recorder.h"

namespace moe {
namespace {

constexpr double cka_bytes = 256 << 20;

Matrix<float> as_float(const Matrix<double>& m) {
  Matrix<float> out(m.rows(), m.cols());
  for (Index i = 0; i < m.size(); ++i)
    out.data()[i] = float(m.data()[i]);
  return out;
}

// Calls f with each layer's weights on the host.
template <class F>
void each_layer(Decoder<float>& model, F f) {
  for (auto* layer : model.moe_layers()) {
    const auto& b = layer->expert_parameters();
    const auto host = [](const Parameter<float>& p) {
      return p.empty() ? Matrix<float>() : p.to_host();
    };
    const Matrix<float> gate = host(b.gate);
    const Matrix<float> up = host(b.up);
    const Matrix<float> down = host(b.down);
    f(ExpertMatrices<float>{layer->config().experts, gate.view(), up.view(), down.view()});
  }
}

}  // namespace

PairMatrix weight_cosine(Decoder<float>& model) {
  PairMatrix out{"expert_weight_cosine", {}};
  each_layer(model, [&](const ExpertMatrices<float>& w) {
    out.layer.push_back(as_float(expert_weight_cosines(w).all));
  });
  return out;
}

std::vector<PairMatrix> weight_similarity(Decoder<float>& model, bool matched) {
  std::vector<PairMatrix> out{
      {"expert_weight_cosine", {}}, {"expert_up_cosine", {}}, {"expert_neuron_mean_cosine", {}}};
  if (matched)
    out.push_back({"expert_matched_cosine", {}});
  each_layer(model, [&](const ExpertMatrices<float>& w) {
    const WeightCosines of_weights = expert_weight_cosines(w);
    out[0].layer.push_back(as_float(of_weights.all));
    out[1].layer.push_back(as_float(of_weights.up));
    out[2].layer.push_back(as_float(expert_neuron_mean_cosine(w)));
    if (matched)
      out[3].layer.push_back(as_float(expert_matched_cosine(w)));
  });
  return out;
}

std::vector<std::string> OutputSimilarity::names() {
  return {"expert_output_cosine", "expert_output_cka", "expert_mean_output_angle",
          "expert_ttm_distance"};
}

OutputSimilarity::OutputSimilarity(Decoder<float>& model, Index tokens)
    : model_(model), wanted_(tokens), together_(names().size() - 1) {
  for (auto* layer : model.moe_layers()) {
    const Index experts = layer->config().experts;
    if (tokens <= 0)
      continue;
    if (layer->attention()) {
      throw Error(Exit::usage,
                  "what experts of attention put out depends on other rows, so their outputs are "
                  "not compared row by row")
          .hint("compare their weights, or leave the comparison of outputs out");
    }
    sum_.emplace_back(experts, experts);
    for (auto& layers : together_)
      layers.emplace_back(experts, experts);
  }
}

void OutputSimilarity::see(int moe_layer, View<const float> x, const Matrix<int>& chosen) {
  const Index tokens = std::min(x.rows, wanted_ - seen_);
  if (tokens <= 0)
    return;
  pending_ = tokens;
  MoeLayer<float>& layer = *model_.moe_layers()[std::size_t(moe_layer)];
  const Index experts = layer.config().experts;
  // token by token; the layer gives them expert by expert
  Matrix<float> y(tokens * experts, x.cols);
  {
    const Matrix<float> by_expert = layer.outputs_of_all(x.slice(0, tokens));
    for (Index t = 0; t < tokens; ++t) {
      for (Index e = 0; e < experts; ++e)
        std::ranges::copy(by_expert.row(e * tokens + t), y.row(t * experts + e).begin());
    }
  }
  const View<const float> all = std::as_const(y).view();
  const Matrix<double> cosine = expert_output_cosine(all, experts);
  for (Index i = 0; i < cosine.size(); ++i)
    sum_[std::size_t(moe_layer)].data()[i] += cosine.data()[i] * double(tokens);
  if (seen_ > 0)
    return;
  const Index few = std::clamp<Index>(Index(std::sqrt(cka_bytes / 8 / double(experts))), 1, tokens);
  const Index l = moe_layer;
  together_[0][std::size_t(l)] = as_float(expert_output_cka(all.slice(0, few * experts), experts));
  together_[1][std::size_t(l)] = as_float(expert_mean_output_angle(all, experts));
  together_[2][std::size_t(l)] = as_float(
      expert_ttm_distance(all, experts, chosen.view().slice(0, std::min(tokens, chosen.rows()))));
}

std::vector<PairMatrix> OutputSimilarity::result() const {
  const auto all = names();
  std::vector<PairMatrix> out{{all[0], {}}};
  for (Matrix<double> m : sum_) {
    for (double& v : m.flat())
      v /= double(std::max<Index>(1, seen_));
    out[0].layer.push_back(as_float(m));
  }
  for (std::size_t i = 0; i < together_.size(); ++i)
    out.push_back({all[i + 1], together_[i]});
  return out;
}

}  // namespace moe
