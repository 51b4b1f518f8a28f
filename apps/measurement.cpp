#include "apps/measurement.h"

namespace moe {

Measurement::Measurement(Decoder<float>& model, const Corpus& corpus, const EvalBatches& batches,
                         int times)
    : model_(model),
      corpus_(corpus),
      batches_(batches),
      each_(token_count(corpus, batches)),
      progress_("tokens", double(each_) * times, "tok") {}

void Measurement::known(int times) {
  before_ += each_ * times;
  progress_.start_at(double(before_ + now_));
}

std::vector<DomainLoss> Measurement::losses(const Routed& routed) {
  before_ += now_;
  now_ = 0;
  const auto visited = [&](Index seen) {
    now_ = seen;
    progress_.update(double(before_ + now_));
    return stop_signal() == 0;
  };
  Comm& ranks = open_ranks({});
  if (!routed) {
    auto out = evaluate(model_, corpus_, batches_, ranks, visited);
    stop_together(ranks);
    return out;
  }
  refuse_ranks("moe eval with --top-k or --without-expert each");
  return evaluate(model_, corpus_, batches_, visited, routed);
}

}  // namespace moe
