#include "lib/run/evaluation.h"

#include <cmath>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/router/replays_routes.h"
#include "lib/router/router.h"

namespace moe {

namespace {

// Adds the losses of one batch to those of its domains.
void add_losses(const Batch& batch, const Decoder<float>::Tape& tape,
                std::vector<DomainLoss>& losses) {
  for (Index q = 0; q < batch.sequences(); ++q) {
    DomainLoss& d = losses[std::size_t(batch.domain[std::size_t(q)])];
    double nats = 0;
    Index tokens = 0;
    for (Index t = batch.start[std::size_t(q)]; t < batch.start[std::size_t(q) + 1]; ++t) {
      if (batch.target[std::size_t(t)] < 0)
        continue;
      d.nats += double(tape.token_loss(0, t));
      nats += double(tape.token_loss(0, t));
      ++tokens;
    }
    d.tokens += tokens;
    if (tokens == 0)
      continue;
    d.sequence_nats.push_back(nats);
    d.sequence_tokens.push_back(tokens);
  }
}

}  // namespace

std::vector<DomainLoss> evaluate(
    Decoder<float>& model, const Corpus& corpus, const EvalBatches& batches,
    const std::function<bool(Index)>& visited,
    const std::function<void(int, const Batch&, const Routing&)>& routed) {
  std::vector<DomainLoss> out;
  for (const std::string& name : corpus.info().domains)
    out.push_back({name});
  for (auto* layer : model.moe_layers()) {
    if (auto* replay = capability<ReplaysRoutes>(layer->router()))
      replay->rewind();
  }
  Index seen = 0;
  for_each_batch(corpus, batches, [&](const Batch& batch, Rng& rng) {
    Decoder<float>::Tape tape;
    if (routed) {
      model.infer({.batch = batch, .rng = &rng}, tape,
                  [&](int layer, const MoeTape<float>& t, View<const float>) {
                    routed(layer, batch, t.routing);
                  });
    } else {
      model.infer({.batch = batch, .rng = &rng}, tape);
    }
    add_losses(batch, tape, out);
    seen += batch.tokens();
    return !visited || visited(seen);
  });
  for (const DomainLoss& d : out) {
    if (!std::isfinite(d.nats)) {
      throw Error(Exit::numeric, concat("the loss on '", d.name, "' is not finite"))
          .hint("the checkpoint is broken or diverged: moe verify CHECKPOINT");
    }
  }
  return out;
}

int length_for(int asked, const ModelConfig& config) {
  if (asked > config.context) {
    throw Error(Exit::usage,
                concat("--length ", asked, " is more than the model's context of ", config.context))
        .hint(concat("--length ", config.context));
  }
  return asked > 0 ? asked : config.context;
}

double mean_loss(const std::vector<DomainLoss>& all) {
  double sum = 0;
  double n = 0;
  for (const DomainLoss& d : all) {
    if (d.tokens) {
      sum += d.loss();
      ++n;
    }
  }
  return n ? sum / n : 0;
}

std::vector<std::string> validation_specs(const std::vector<std::string>& specs) {
  std::vector<std::string> out;
  for (const std::string& text : specs) {
    Spec spec(text);
    spec.set("split", "valid");
    out.push_back(spec.given_text());
  }
  return out;
}

}  // namespace moe
