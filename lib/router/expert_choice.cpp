// Expert choice (equations.md 2.7; paper 2202.09368): every expert takes the C tokens that want it
// most. Load is even by construction; a token may get no expert or all of them. What a token gets
// depends on later tokens: no use in decoding. With experts= each expert belongs to one modality
// and takes the best of its rows (MoMa 2407.21770), all of them weighed by their own sigmoid.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/modality.h"
#include "lib/core/spec.h"
#include "lib/router/modality_mask.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

// Which rows an expert picks from, and how many it takes.
struct Pool {
  std::vector<Index> rows;
  Index room = 0;
};

class ExpertChoice final : public OneScoreRouter {
 public:
  ExpertChoice(int experts, double factor, ScoreKind kind, WeightRule rule, ModalityMask mask)
      : OneScoreRouter(experts, experts, kind, rule),
        factor_(factor),
        by_logit_(kind == ScoreKind::sigmoid),
        mask_(std::move(mask)) {}
  RouterFacts facts() const override {
    RouterFacts f = OneScoreRouter::facts();
    f.norm_is_option = true;
    f.causal = f.causal_in_training = false;
    f.limits_load = true;
    return f;
  }
  std::vector<int> choice_sets() const override {
    return mask_.sets();
  }
  std::vector<Detail> details(const RouterInput& in, const Routing& r) const override {
    const std::vector<Pool> pools = pools_of(in);
    Index most = 0;
    for (const Pool& p : pools)
      most = std::max(most, p.room);
    Matrix<double> tokens(experts_, most, -1);
    // one number where it is the same for all
    Matrix<double> room(1, mask_.empty() ? 1 : experts_);
    for (int e = 0; e < experts_; ++e) {
      const Pool& pool = pool_of(pools, e);
      const auto taken = best_tokens(r, e, pool);
      std::ranges::transform(taken, tokens.row(e).begin(), [](Index t) { return double(t); });
      room(0, mask_.empty() ? 0 : e) = double(pool.room);
    }
    return {{"expert_capacity", room}, {"expert_tokens", tokens}};
  }

 protected:
  void choose(const RouterInput& in, Routing& r) const override {
    const std::vector<Pool> pools = pools_of(in);
    r.barred = mask_.barred(in.batch, 1);
    std::vector<std::vector<int>> chosen(std::size_t(r.tokens()));
    for (int e = 0; e < experts_; ++e) {
      for (const Index t : best_tokens(r, e, pool_of(pools, e)))
        chosen[t].push_back(e);
    }
    for (Index t = 0; t < r.tokens(); ++t) {
      auto& mine = chosen[t];
      std::ranges::stable_sort(mine, [&](int a, int b) { return r.logits(t, a) > r.logits(t, b); });
      std::ranges::copy(mine, r.expert.row(t).begin());
    }
  }

 private:
  // One of all valid rows, or one of each modality.
  std::vector<Pool> pools_of(const RouterInput& in) const {
    std::vector<Pool> pools(mask_.empty() ? 1 : modality_kinds);
    for (Index t = 0; t < in.tokens(); ++t) {
      if (in.batch.is_valid(t))
        pools[mask_.empty() ? 0 : in.batch.modality_of(t)].rows.push_back(t);
    }
    for (std::size_t m = 0; m < pools.size(); ++m) {
      const int takers = mask_.empty() ? experts_ : mask_.count(std::uint8_t(m));
      const double rows = double(pools[m].rows.size());
      const Index share =
          takers > 0 ? std::max<Index>(1, Index(std::ceil(rows * factor_ / takers - 1e-9))) : 0;
      pools[m].room = std::min(Index(pools[m].rows.size()), share);
    }
    return pools;
  }
  const Pool& pool_of(const std::vector<Pool>& pools, int expert) const {
    std::size_t m = 0;
    while (!mask_.empty() && !mask_.allows(std::uint8_t(m), expert))
      ++m;
    return pools[m];
  }
  // The rows of largest score with expert e, as many as it takes, best first; equal scores: the
  // earlier row.
  std::vector<Index> best_tokens(const Routing& r, int e, const Pool& pool) const {
    const Matrix<double>& score = by_logit_ ? r.logits : r.score;
    std::vector<Index> tokens(pool.rows);
    const auto better = [&](Index a, Index b) {
      return score(a, e) != score(b, e) ? score(a, e) > score(b, e) : a < b;
    };
    std::ranges::partial_sort(tokens, tokens.begin() + std::ptrdiff_t(pool.room), better);
    tokens.resize(std::size_t(pool.room));
    return tokens;
  }
  double factor_;
  bool by_logit_;  // a sigmoid orders as its logit does, without ties where it is 1
  ModalityMask mask_;
};

// Experts that several modalities share have no row count of their own.
void check_one_modality_each(const ModalityMask& mask, int experts) {
  for (int e = 0; e < experts && !mask.empty(); ++e) {
    int users = 0;
    for (int m = 0; m < modality_kinds; ++m)
      users += mask.allows(std::uint8_t(m), e);
    if (users != 1) {
      throw Error(Exit::usage, concat("expert_choice: expert ", e, " is of ", users,
                                      " modalities, and it takes its share of the rows of one"))
          .hint("experts=text:0-3/image:4-7");
    }
  }
}

}  // namespace

std::unique_ptr<Router> make_expert_choice_router(Spec& spec, int experts) {
  const double factor = spec.get("factor", 2.0, 0.0);
  if (factor == 0) {
    throw Error(Exit::usage, "expert_choice: factor=0 gives every expert nothing")
        .hint("factor= is the mean number of experts a token has");
  }
  ScoreKind kind = ScoreKind::softmax;
  // stored specs without it stay as they are
  if (spec.has("score") && spec.choice("score", {"softmax", "sigmoid"}) == "sigmoid")
    kind = ScoreKind::sigmoid;
  ModalityMask mask = modality_mask(spec, experts);
  check_one_modality_each(mask, experts);
  if (!mask.empty() && kind == ScoreKind::softmax) {
    throw Error(Exit::usage,
                "expert_choice: with experts= the scores of one expert are compared among the rows "
                "of its modality, and a softmax over all experts would mix in the others")
        .hint("score=sigmoid");
  }
  auto made = std::make_unique<ExpertChoice>(experts, factor, kind, weight_rule(spec, false),
                                             std::move(mask));
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
