#include "lib/edit/expert_scores.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/model/config.h"

namespace moe {
namespace {

constexpr std::uint64_t window = 65'536;  // rows read at once

void check_shape(const Decoder<float>& model, const TraceHeader& h) {
  const ModelConfig& c = model.config();
  if (Index(h.layers.size()) != c.moe_layers()) {
    throw Error(Exit::usage, concat("the trace has ", h.layers.size(), " MoE layers and the model ",
                                    c.moe_layers()))
        .hint("a trace of this model");
  }
  for (std::size_t l = 0; l < h.layers.size(); ++l) {
    if (h.layers[l].experts != c.moe.experts || h.layers[l].index != model.layer_of(int(l))) {
      throw Error(Exit::usage, concat("the trace has ", h.layers[l].experts, " experts in layer ",
                                      h.layers[l].index, " and the model ", c.moe.experts,
                                      " in layer ", model.layer_of(int(l))))
          .hint("a trace of this model");
    }
  }
}

struct Sums {
  ExpertScores count, weighed;  // (layers)(E) choices; weight, times norm of the output for reap
};

// Adds the choices of one layer's rows.
void add_choices(const TraceRows& rows, std::size_t layer, ExpertScore kind, Sums& sums) {
  const LayerRows& r = rows.layer[layer];
  for (Index t = 0; t < r.expert.rows(); ++t) {
    if (!rows.valid(std::size_t(t)))
      continue;
    for (Index j = 0; j < r.expert.cols(); ++j) {
      const int e = r.expert(t, j);
      if (e < 0)
        continue;
      sums.count[layer][e] += 1;
      if (kind == ExpertScore::load)
        continue;
      const double norm = kind == ExpertScore::reap ? double(r.out_norm(t, j)) : 1;
      sums.weighed[layer][e] += double(r.weight(t, j)) * norm;
    }
  }
}

// Of the layer's sum.
std::vector<double> shares(const std::vector<double>& count) {
  double all = 0;
  for (const double n : count)
    all += n;
  std::vector<double> out;
  for (const double n : count)
    out.push_back(all > 0 ? n / all : 0);
  return out;
}

// Mean over the choices of each expert.
std::vector<double> means(const std::vector<double>& sum, const std::vector<double>& count) {
  std::vector<double> out;
  for (std::size_t e = 0; e < sum.size(); ++e)
    out.push_back(count[e] > 0 ? sum[e] / count[e] : 0);
  return out;
}

}  // namespace

ExpertScores expert_scores(const Decoder<float>& model, const TraceReader& trace,
                           ExpertScore kind) {
  check_shape(model, trace.header());
  const bool reap = kind == ExpertScore::reap;
  if (reap && !(trace.fields().out_norm && trace.fields().weights)) {
    throw Error(Exit::usage, "the trace has no norms of expert outputs, which the REAP score needs")
        .hint("moe trace --out-norm, or load:count=...");
  }
  if (kind == ExpertScore::weight && !trace.fields().weights) {
    throw Error(Exit::usage, "the trace has no combine weights")
        .hint("mean=load, or a trace by moe trace");
  }
  const TraceFields wanted{
      .dropped = false, .entropy = false, .margin = false, .logsumexp = false, .out_norm = reap};
  const std::size_t layers = trace.header().layers.size();
  const ExpertScores zero(layers, std::vector<double>(std::size_t(model.config().moe.experts)));
  Sums sums{zero, zero};
  for (std::uint64_t first = 0; first < trace.tokens(); first += window) {
    const TraceRows rows = trace.read(first, std::min(window, trace.tokens() - first), wanted);
    for (std::size_t l = 0; l < layers; ++l)
      add_choices(rows, l, kind, sums);
  }
  ExpertScores out;
  for (std::size_t l = 0; l < layers; ++l) {
    out.push_back(reap ? means(sums.weighed[l], sums.count[l])
                       : shares(kind == ExpertScore::load ? sums.count[l] : sums.weighed[l]));
  }
  return out;
}

std::vector<Matrix<float>> output_cosine(const Decoder<float>& model, const TraceReader& trace) {
  check_shape(model, trace.header());
  const std::string name = "expert_output_cosine";
  const auto& pairs = trace.header().pairs;
  const auto found = std::ranges::find(pairs, name, &PairMatrix::name);
  if (found == pairs.end() || found->layer.size() != trace.header().layers.size()) {
    throw Error(Exit::usage, "the trace does not say how alike the outputs of experts are")
        .hint("moe trace --redundancy-tokens 256, or by=weights");
  }
  return found->layer;
}

}  // namespace moe
