#include "lib/run/evaluation.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/router/replays_routes.h"
#include "lib/router/router.h"

namespace moe {

namespace {

// Ids of rows first..last that are to be predicted.
std::vector<int> targets_of(const Batch& batch, Index q) {
  std::vector<int> out;
  for (Index t = batch.start[std::size_t(q)]; t < batch.start[std::size_t(q) + 1]; ++t) {
    if (batch.target[std::size_t(t)] >= 0)
      out.push_back(batch.target[std::size_t(t)]);
  }
  return out;
}

bool is_exact(const Batch& batch, Index q, const Matrix<int>& predicted) {
  for (Index t = batch.start[std::size_t(q)]; t < batch.start[std::size_t(q) + 1]; ++t) {
    const int wanted = batch.target[std::size_t(t)];
    if (wanted >= 0 && predicted(0, t) != wanted)
      return false;
  }
  return true;
}

// What a rank tells of a batch: losses (T), and where it has questions whether each answer was
// exact (Q).
std::vector<float> scores_of(const Batch& batch, const Decoder<float>::Tape& tape) {
  std::vector<float> out(tape.token_loss.flat().begin(), tape.token_loss.flat().end());
  for (Index q = 0; q < Index(batch.question.size()); ++q)
    out.push_back(tape.targets > 0 && is_exact(batch, q, tape.predicted) ? 1 : 0);
  return out;
}

void add_answer(const Batch& batch, Index q, bool exact, std::vector<AnswerCount>& answers) {
  const int question = batch.question[std::size_t(q)];
  if (question < 0)
    return;
  AnswerCount& a = answers.at(std::size_t(question));
  ++a.asked;
  a.exact += exact;
  ++a.right[targets_of(batch, q)];
}

// Adds the scores of one batch to those of its domains.
void add_losses(const Batch& batch, std::span<const float> scores,
                std::vector<DomainLoss>& losses) {
  const auto token_loss = scores.first(std::size_t(batch.tokens()));
  const auto exact = scores.subspan(token_loss.size());
  for (Index q = 0; q < batch.sequences(); ++q) {
    DomainLoss& d = losses[std::size_t(batch.domain[std::size_t(q)])];
    double nats = 0;
    Index tokens = 0;
    for (Index t = batch.start[std::size_t(q)]; t < batch.start[std::size_t(q) + 1]; ++t) {
      if (batch.target[std::size_t(t)] < 0)
        continue;
      d.nats += double(token_loss[std::size_t(t)]);
      nats += double(token_loss[std::size_t(t)]);
      ++tokens;
    }
    d.tokens += tokens;
    if (!batch.question.empty())
      add_answer(batch, q, exact[std::size_t(q)] > 0, d.answers);
    if (tokens == 0)
      continue;
    d.sequence_nats.push_back(nats);
    d.sequence_tokens.push_back(tokens);
  }
}

std::vector<DomainLoss> no_losses(const Corpus& corpus) {
  std::vector<DomainLoss> out;
  std::vector<AnswerCount> none;
  for (const std::string& question : corpus.info().questions)
    none.push_back({.question = question, .right = {}});
  for (const std::string& name : corpus.info().domains)
    out.push_back({.name = name, .answers = none});
  return out;
}

void leave_out_unasked(std::vector<DomainLoss>& all) {
  for (DomainLoss& d : all)
    std::erase_if(d.answers, [](const AnswerCount& a) { return a.asked == 0; });
}

void rewind_replays(Decoder<float>& model) {
  for (auto* layer : model.moe_layers()) {
    if (auto* replay = capability<ReplaysRoutes>(layer->router()))
      replay->rewind();
  }
}

void refuse_nonfinite(const std::vector<DomainLoss>& losses) {
  for (const DomainLoss& d : losses) {
    if (!std::isfinite(d.nats)) {
      throw Error(Exit::numeric, concat("the loss on '", d.name, "' is not finite"))
          .hint("the checkpoint is broken or diverged: moe verify CHECKPOINT");
    }
  }
}

}  // namespace

double AnswerCount::guess() const {
  Index most = 0;
  for (const auto& [answer, n] : right)
    most = std::max(most, n);
  return asked ? double(most) / double(asked) : 0;
}

std::vector<DomainLoss> evaluate(
    Decoder<float>& model, const Corpus& corpus, const EvalBatches& batches,
    const std::function<bool(Index)>& visited,
    const std::function<void(int, const Batch&, const MoeTape<float>&)>& routed) {
  std::vector<DomainLoss> out = no_losses(corpus);
  rewind_replays(model);
  Index seen = 0;
  for_each_batch(corpus, batches, [&](const Batch& batch, Rng& rng) {
    Decoder<float>::Tape tape;
    if (routed) {
      model.infer(
          {.batch = batch, .rng = &rng}, tape,
          [&](int layer, const MoeTape<float>& t, View<const float>) { routed(layer, batch, t); });
    } else {
      model.infer({.batch = batch, .rng = &rng}, tape);
    }
    add_losses(batch, scores_of(batch, tape), out);
    seen += batch.tokens();
    return !visited || visited(seen);
  });
  refuse_nonfinite(out);
  leave_out_unasked(out);
  return out;
}

namespace {

// A round of batches, one a rank, and what has come of it.
class Rounds {
 public:
  Rounds(Comm& comm, std::vector<DomainLoss>& out) : comm_(comm), out_(out) {}
  // Whether the next batch is this rank's.
  bool is_mine() const {
    return int(batches_.size()) == comm_.rank();
  }
  void add(const Batch& batch, const std::vector<float>& scores) {
    batches_.push_back(batch);
    if (!scores.empty())
      mine_ = scores;
  }
  bool is_empty() const {
    return batches_.empty();
  }
  bool took_part() const {
    return int(batches_.size()) > comm_.rank();
  }
  bool is_full() const {
    return int(batches_.size()) == comm_.size();
  }
  // Everybody's losses are added, in order of batches.
  void end() {
    if (batches_.empty())
      return;
    const auto all = comm_.gather<float>({"losses of batches"}, mine_);
    for (std::size_t r = 0; r < batches_.size(); ++r)
      add_losses(batches_[r], all[r], out_);
    batches_.clear();
    mine_ = {};
  }

 private:
  Comm& comm_;
  std::vector<DomainLoss>& out_;
  std::vector<Batch> batches_;
  std::vector<float> mine_;  // scores_of() its batch
};

}  // namespace

std::vector<DomainLoss> evaluate(Decoder<float>& model, const Corpus& corpus,
                                 const EvalBatches& batches, Comm& comm,
                                 const std::function<bool(Index)>& visited) {
  if (comm.alone())
    return evaluate(model, corpus, batches, visited);
  std::vector<DomainLoss> out = no_losses(corpus);
  rewind_replays(model);
  Rounds rounds(comm, out);
  Index seen = 0;
  const auto serve_others = [&] {
    if (!rounds.is_empty() && !rounds.took_part())
      model.serve(false);
  };
  for_each_batch(corpus, batches, [&](const Batch& batch, Rng& rng) {
    Decoder<float>::Tape tape;
    if (rounds.is_mine())
      model.infer({.batch = batch, .rng = &rng}, tape);
    rounds.add(batch, rounds.is_mine() ? scores_of(batch, tape) : std::vector<float>());
    seen += batch.tokens();
    if (!rounds.is_full())
      return true;
    rounds.end();
    return !comm.any({"stop"}, visited && !visited(seen));
  });
  serve_others();
  rounds.end();
  refuse_nonfinite(out);
  leave_out_unasked(out);
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
