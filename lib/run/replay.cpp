#include "lib/run/replay.h"

#include "lib/core/error.h"
#include "lib/model/decoder.h"
#include "lib/router/replays_routes.h"
#include "lib/router/router.h"
#include "lib/trace/reader.h"

namespace moe {
namespace {

void check(const TraceReader& trace, Decoder<float>& model, const std::string& file) {
  const auto& recorded = trace.header().layers;
  const auto layers = model.moe_layers();
  const auto refuse = [&](const std::string& what) {
    throw Error(Exit::input, concat("the trace '", file, "' cannot be replayed: ", what))
        .hint("a trace that moe trace made of a model with the same layers, experts and k");
  };
  if (recorded.size() != layers.size())
    refuse(concat("it has ", recorded.size(), " MoE layers and the model ", layers.size()));
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Router& router = layers[l]->router();
    if (recorded[l].experts != router.experts()) {
      refuse(concat("layer ", recorded[l].index, " has ", recorded[l].experts,
                    " experts and the model ", router.experts()));
    }
    if (recorded[l].top_k != router.choices()) {
      refuse(concat("layer ", recorded[l].index, " has ", recorded[l].top_k,
                    " choices a token and the model ", router.choices()));
    }
  }
  if (trace.tokens() == 0)
    refuse("it holds no tokens");
  if (!trace.fields().weights)
    refuse("it holds no weights");
}

}  // namespace

void attach_replay(Decoder<float>& model) {
  const auto layers = model.moe_layers();
  if (layers.empty() || !layers[0]->router().facts().needs_recorded_routes)
    return;
  const std::string file = capability<ReplaysRoutes>(layers[0]->router())->recording();
  const TraceReader trace(file);
  check(trace, model, file);
  const TraceFields wanted{
      .weights = true, .dropped = false, .entropy = false, .margin = false, .logsumexp = false};
  TraceRows rows = trace.read(0, trace.tokens(), wanted);
  const auto token = std::make_shared<const std::vector<std::uint32_t>>(std::move(rows.token_id));
  const auto position =
      rows.position.empty()
          ? nullptr
          : std::make_shared<const std::vector<std::uint32_t>>(std::move(rows.position));
  for (std::size_t l = 0; l < layers.size(); ++l) {
    LayerRows& r = rows.layer[l];
    const Index k = layers[l]->router().choices();
    Recorded mine{file, token, Matrix<int>(r.expert.rows(), k), Matrix<float>(r.expert.rows(), k),
                  position};
    for (Index t = 0; t < r.expert.rows(); ++t) {
      for (Index j = 0; j < k; ++j) {
        mine.expert(t, j) = r.expert(t, j);
        mine.weight(t, j) = r.weight(t, j);
      }
    }
    r = {};
    capability<ReplaysRoutes>(layers[l]->router())->replay(std::move(mine));
  }
}

}  // namespace moe
