#include "lib/edit/expert_scores.h"

#include "lib/core/error.h"

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

}  // namespace

ExpertScores expert_scores(const Decoder<float>& model, const TraceReader& trace,
                           ExpertScore kind) {
  check_shape(model, trace.header());
  if (kind == ExpertScore::reap && !(trace.fields().out_norm && trace.fields().weights)) {
    throw Error(Exit::usage, "the trace has no norms of expert outputs, which the REAP score needs")
        .hint("moe trace --out-norm, or load:count=...");
  }
  const TraceFields wanted{.dropped = false,
                           .entropy = false,
                           .margin = false,
                           .logsumexp = false,
                           .out_norm = kind == ExpertScore::reap};
  const std::size_t layers = trace.header().layers.size();
  const std::size_t experts = std::size_t(model.config().moe.experts);
  ExpertScores sum(layers, std::vector<double>(experts));
  ExpertScores count = sum;
  for (std::uint64_t first = 0; first < trace.tokens(); first += window) {
    const TraceRows rows = trace.read(first, std::min(window, trace.tokens() - first), wanted);
    for (std::size_t l = 0; l < layers; ++l) {
      const LayerRows& r = rows.layer[l];
      for (Index t = 0; t < r.expert.rows(); ++t) {
        for (Index j = 0; j < r.expert.cols() && rows.valid(std::size_t(t)); ++j) {
          const int e = r.expert(t, j);
          if (e < 0)
            continue;
          count[l][std::size_t(e)] += 1;
          if (kind == ExpertScore::reap)
            sum[l][std::size_t(e)] += double(r.weight(t, j)) * double(r.out_norm(t, j));
        }
      }
    }
  }
  for (std::size_t l = 0; l < layers; ++l) {
    double all = 0;
    for (const double n : count[l])
      all += n;
    for (std::size_t e = 0; e < experts; ++e) {
      sum[l][e] = kind == ExpertScore::load ? (all > 0 ? count[l][e] / all : 0)
                  : count[l][e] > 0         ? sum[l][e] / count[l][e]
                                            : 0;
    }
  }
  return sum;
}

}  // namespace moe
