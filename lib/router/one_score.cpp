#include "lib/router/one_score.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/spec.h"

namespace moe {
namespace {
constexpr Index rows_at_once = 256;
}

Routing OneScoreRouter::route(const RouterInput& in) {
  const Index tokens = in.tokens();
  Routing r;
  r.expert = Matrix<int>(tokens, choices_, -1);
  r.weight = Matrix<double>(tokens, choices_);
  r.logits = Matrix<double>::unset(tokens, experts_);
  r.score = Matrix<double>::unset(tokens, experts_);
  parallel_for(tokens, rows_at_once, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      if (!in.batch.is_valid(t)) {
        r.clear_scores(t);
        continue;
      }
      std::ranges::copy(in.scores[0].row(t), r.logits.row(t).begin());
      if (kind_ == ScoreKind::softmax)
        softmax_row(r.logits.row(t), r.score.row(t));
      else
        sigmoid_row(r.logits.row(t), r.score.row(t));
    }
  });
  if (in.routes_given())
    r.expert = in.given->expert;
  else
    choose(in, r);
  parallel_for(tokens, rows_at_once, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t)
      weights_of(r.score.row(t), r.expert.row(t), rule_, r.weight.row(t));
  });
  return r;
}

Matrix<double> OneScoreRouter::probabilities(const RouterInput&, const Routing& r) const {
  return kind_ == ScoreKind::softmax ? converted<double>(r.score) : normalized_rows(r.score);
}

void OneScoreRouter::backward(const RouterInput& in, const Routing& r,
                              const Matrix<double>& dweight, const Matrix<double>& dprob,
                              std::vector<Matrix<double>>& dscores) const {
  parallel_for(in.tokens(), rows_at_once, [&](Index first, Index last) {
    std::vector<double> ds(static_cast<std::size_t>(experts_));
    for (Index t = first; t < last; ++t) {
      if (!in.batch.is_valid(t))
        continue;
      std::ranges::fill(ds, 0.0);
      if (!dweight.empty()) {
        weights_of_backward(r.score.row(t), r.expert.row(t), rule_, r.weight.row(t), dweight.row(t),
                            ds);
      }
      if (kind_ == ScoreKind::softmax) {
        for (std::size_t e = 0; e < ds.size() && !dprob.empty(); ++e)
          ds[e] += dprob(t, Index(e));
        softmax_row_backward(r.score.row(t), ds, dscores[0].row(t));
      } else {
        if (!dprob.empty())
          normalized_row_backward(r.score.row(t), dprob.row(t), ds);
        for (std::size_t e = 0; e < ds.size(); ++e)
          dscores[0](t, Index(e)) += ds[e] * r.score(t, Index(e)) * (1 - r.score(t, Index(e)));
      }
    }
  });
}

WeightRule weight_rule(Spec& spec, bool norm) {
  WeightRule rule;
  rule.norm = spec.get("norm", norm);
  rule.scale = spec.get("scale", 1.0);
  if (rule.scale == 0)
    throw Error(Exit::usage, concat(spec.name(), ": scale=0 would silence every expert"));
  return rule;
}
void read_temperature(Spec& spec, Router& router) {
  router.temperature_schedule = read_temperature_schedule(spec);
  router.temperature = router.temperature_schedule.to;
}
void read_temperature_and_jitter(Spec& spec, Router& router) {
  read_temperature(spec, router);
  router.jitter = spec.get("jitter", 0.0, 0.0);
  if (router.jitter >= 1)
    throw Error(Exit::usage, concat(spec.name(), ": jitter=", router.jitter, " must be below 1"));
}

}  // namespace moe
