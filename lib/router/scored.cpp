// softmax (equations.md 2.1), sigmoid (2.2) and the root of softplus (DeepSeek-V4): scores, a
// correction bias for the selection, groups (2.3), weights by section 1; which experts a row may
// choose can depend on its modality. Papers: 1701.06538, 2101.03961 (Switch), 2401.04088 (Mixtral),
// 2405.04434 (V2 groups), 2412.19437 (DeepSeek-V3).
#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/spec.h"
#include "lib/router/device_rule.h"
#include "lib/router/excludes_experts.h"
#include "lib/router/modality_mask.h"
#include "lib/router/one_score.h"
#include "lib/router/reroutes.h"
#include "lib/router/weighs_chosen.h"

namespace moe {
namespace {

constexpr Index rows_at_once = 256;

struct ScoredOptions {
  int k = 2;
  WeightRule rule;
  Groups groups;
  bool biased = false, on_logits = false;  // beta, added to the score or the logit
  ModalityMask mask;
};

Groups groups_of(Spec& spec, bool sigmoid) {
  Groups g;
  g.groups = spec.get("groups", 1, 1);
  if (g.groups == 1)
    return g;
  const bool one = spec.choice("group_mode", {"limited", "one"}) == "one";
  g.mode = one ? Groups::Mode::one : Groups::Mode::limited;
  if (one)
    return g;
  g.topk = spec.get("topk_groups", 1, 1);
  const auto names = sigmoid ? std::vector<std::string>{"top2_sum", "max"}
                             : std::vector<std::string>{"max", "top2_sum"};
  g.score =
      spec.choice("group_score", names) == "max" ? Groups::Score::max : Groups::Score::top2_sum;
  return g;
}

void check_groups(const std::string& router, const Groups& g, int k, int experts) {
  const int n = g.groups;
  const int size = experts / n;
  if (experts % n) {
    throw Error(Exit::usage,
                concat(router, ": ", experts, " experts do not split into ", n, " equal groups"));
  }
  if (g.mode == Groups::Mode::one && k % n)
    throw Error(Exit::usage, concat(router, ": k=", k, " is not a multiple of groups=", n));
  if (g.mode == Groups::Mode::one && k / n > size) {
    throw Error(Exit::usage,
                concat(router, ": k=", k, " needs more than the ", size, " experts of each group"));
  }
  if (g.mode != Groups::Mode::limited)
    return;
  if (g.topk > n) {
    throw Error(Exit::usage, concat(router, ": topk_groups=", g.topk, " is more than groups=", n));
  }
  if (g.topk * size < k && k <= experts) {
    throw Error(Exit::usage, concat(router, ": ", g.topk, " groups of ", size,
                                    " hold fewer than k=", k, " experts"));
  }
  if (g.score == Groups::Score::top2_sum && size < 2) {
    throw Error(Exit::usage, concat(router, ": group_score=top2_sum needs groups of two or more"));
  }
}

ScoredOptions options(Spec& spec, int experts, bool sigmoid) {
  ScoredOptions o;
  o.k = spec.get("k", 2, 1);
  o.rule = weight_rule(spec, true);
  if (spec.has("eps"))  // stored specs without it stay as they are
    o.rule.eps = spec.get("eps", norm_eps, 0.0);
  if (spec.has("norm_min"))
    o.rule.least = spec.get("norm_min", 0.0, 0.0);
  o.biased = spec.get("bias", false);
  if (o.biased)
    o.on_logits = spec.choice("bias_on", {"score", "logit"}) == "logit";
  o.groups = groups_of(spec, sigmoid);
  check_groups(spec.name(), o.groups, o.k, experts);
  o.mask = modality_mask(spec, experts);
  o.mask.check_k(o.k, spec.name());
  if (!o.mask.empty() && o.groups.groups > 1) {
    throw Error(Exit::usage,
                concat(spec.name(), ": experts= by modality and groups= both limit the choice"))
        .hint("one of them");
  }
  return o;
}

// What they have in common; they differ in the score and its backward.
class Scored : public Router, public Reroutes, public ExcludesExperts, public WeighsChosen {
 public:
  Scored(int experts, const ScoredOptions& o)
      : Router(experts), o_(o), beta_(std::size_t(o.biased ? experts : 0), 0.0) {}

  RouterFacts facts() const override {
    const bool every = o_.groups.mode == Groups::Mode::one;
    return {.k = o_.k,
            .k_is_option = true,
            .normalised = o_.rule.norm,
            .norm_is_option = true,
            .scale = o_.rule.scale,
            .eps = o_.rule.eps,
            .least = o_.rule.least,
            .bias = o_.biased,
            .bias_on_logit = o_.on_logits,
            .groups = o_.groups.groups,
            .topk_groups = every ? o_.groups.groups : o_.groups.topk,
            .every_group = every,
            .top2_sum = o_.groups.score == Groups::Score::top2_sum,
            .takes_routes = true};
  }
  std::vector<Projection> projections() const override {
    return {{.name = "weight", .rows = experts_}};
  }
  std::span<double> correction_bias() override {
    return beta_;
  }
  std::vector<int> choice_sets() const override {
    return o_.mask.sets();
  }
  void exclude(const std::vector<std::uint8_t>& out) override {
    excluded_ = out;
  }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r;
    r.expert = Matrix<int>(tokens, o_.k, -1);
    r.weight = Matrix<double>(tokens, o_.k);
    r.logits = Matrix<double>::unset(tokens, experts_);
    r.score = Matrix<double>::unset(tokens, experts_);
    r.barred = o_.mask.barred(in.batch, o_.k);
    parallel_for(tokens, rows_at_once, [&](Index first, Index last) {
      std::vector<double> key(static_cast<std::size_t>(experts_)), group_key(key), z(key);
      for (Index t = first; t < last; ++t) {
        if (!in.batch.is_valid(t)) {
          r.clear_scores(t);
          continue;
        }
        std::ranges::copy(in.scores[0].row(t), r.logits.row(t).begin());
        score(barred(r, t, z), r.score.row(t));  // of -inf: 0
        if (in.routes_given()) {
          std::ranges::copy(in.given->expert.row(t), r.expert.row(t).begin());
        } else if (logits_rank() && ranks_all()) {
          best_of(r.logits.row(t), r.expert.row(t));
        } else {
          keys(r, t, key, group_key);
          choose(key, group_key, o_.groups, r.expert.row(t));
        }
        weights_of(r.score.row(t), weighed(r, t), o_.rule, r.weight.row(t));
      }
    });
    return r;
  }

  void backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight,
                const Matrix<double>& dprob, std::vector<Matrix<double>>& dscores) const override {
    parallel_for(in.tokens(), rows_at_once, [&](Index first, Index last) {
      std::vector<double> ds(static_cast<std::size_t>(experts_));
      for (Index t = first; t < last; ++t) {
        if (!in.batch.is_valid(t))
          continue;
        std::ranges::fill(ds, 0.0);
        if (!dweight.empty()) {
          weights_of_backward(r.score.row(t), weighed(r, t), o_.rule, r.weight.row(t),
                              dweight.row(t), ds);
        }
        if (dweight.cols() > o_.k)
          moved_backward(r, t, dweight, ds);
        if (!dprob.empty())
          probability_backward(r.score.row(t), dprob.row(t), ds);
        score_backward(r.score.row(t), ds, dscores[0].row(t));
      }
    });
  }

  void chosen_backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight,
                       Matrix<double>& dz) const override {
    parallel_for(in.tokens(), rows_at_once, [&](Index first, Index last) {
      std::vector<double> s(static_cast<std::size_t>(o_.k)), ds(s);
      for (Index t = first; t < last; ++t) {
        std::vector<int> ids = weighed(r, t);
        for (std::size_t j = 0; j < ids.size(); ++j) {
          s[j] = ids[j] < 0 ? 0 : r.score(t, ids[j]);
          ids[j] = ids[j] < 0 ? -1 : int(j);
        }
        std::ranges::fill(ds, 0.0);
        std::ranges::fill(dz.row(t), 0.0);
        weights_of_backward(s, ids, o_.rule, r.weight.row(t), dweight.row(t), ds);
        score_backward(s, ds, dz.row(t));
      }
    });
  }

  bool ranks_all() const override {
    return o_.groups.mode == Groups::Mode::none && o_.mask.empty();
  }
  void rank(const Routing& r, Index t, std::span<double> key) const override {
    std::vector<double> group_key(key.size());
    std::vector<int> chosen(static_cast<std::size_t>(o_.k));
    keys(r, t, key, group_key);
    // for what it leaves in key: -inf outside the chosen groups
    choose(key, group_key, o_.groups, chosen);
  }
  double weight_of(const Routing& r, Index t, int expert) const override {
    if (!excluded_.empty() && excluded_[expert])
      return 0;
    return o_.rule.scale * r.score(t, expert) / divisor_of(r.score.row(t), weighed(r, t), o_.rule);
  }

 protected:
  // Whether experts are ranked by their logits alone.
  virtual bool logits_rank() const {
    return false;
  }
  // The logits of a row, -inf where an expert is barred, for which `space` is.
  static std::span<const double> barred(const Routing& r, Index t, std::span<double> space) {
    const auto z = r.logits.row(t);
    const auto bars = r.bars_of(t);
    if (bars.empty())
      return z;
    with_bars(z, bars, space);
    return space;
  }
  // For a DeviceRule; empty where experts are excluded or barred, there are more groups than it
  // knows, another eps or a least divisor.
  std::optional<TopK> rule_for_device(bool sigmoid) const {
    if (!excluded_.empty() || !o_.mask.empty() || o_.groups.groups > 64 ||
        o_.rule.eps != norm_eps || o_.rule.least != 0)
      return {};
    const bool limited = o_.groups.mode == Groups::Mode::limited;
    return TopK{.sigmoid = sigmoid,
                .k = o_.k,
                .norm = o_.rule.norm,
                .scale = o_.rule.scale,
                .temperature = temperature,
                .bias_on_logit = o_.on_logits,
                .groups = o_.groups.groups,
                .topk_groups = limited ? o_.groups.topk : 0,
                .top2_sum = limited && o_.groups.score == Groups::Score::top2_sum};
  }
  virtual void score(std::span<const double> z, std::span<double> s) const = 0;
  virtual void score_backward(std::span<const double> s, std::span<const double> ds,
                              std::span<double> dz) const = 0;
  virtual void probability_backward(std::span<const double> s, std::span<const double> dprob,
                                    std::span<double> ds) const = 0;
  // What ranks experts, and what ranks groups.
  virtual void score_keys(std::span<const double> z, std::span<const double> s,
                          std::span<double> key, std::span<double> group_key) const = 0;
  void keys(const Routing& r, Index t, std::span<double> key, std::span<double> group_key) const {
    const auto z = r.logits.row(t);
    if (!o_.on_logits)
      score_keys(z, r.score.row(t), key, group_key);
    for (std::size_t e = 0; o_.on_logits && e < key.size(); ++e)
      key[e] = group_key[e] = z[e] + beta(e);
    const auto barred = r.bars_of(t);
    for (std::size_t e = 0; e < barred.size(); ++e) {
      if (barred[e])
        key[e] = -std::numeric_limits<double>::infinity();
    }
  }

  // A moved slot weighs a s_new / D: its gradient reaches s_new, and by D the scores of the
  // original choice.
  void moved_backward(const Routing& r, Index t, const Matrix<double>& dweight,
                      std::span<double> ds) const {
    const std::vector<int> chosen = weighed(r, t);
    const double d = divisor_of(r.score.row(t), chosen, o_.rule);
    for (Index j = 0; j < o_.k; ++j) {
      const int now = r.kept(t, j);
      if (now < 0 || now == r.expert(t, j) || (!excluded_.empty() && excluded_[now]))
        continue;
      const double g = dweight(t, o_.k + j);
      ds[now] += g * o_.rule.scale / d;
      for (Index i = 0; i < o_.k && divides_by_sum(o_.rule, d); ++i) {
        if (chosen[i] >= 0)
          ds[chosen[i]] -= g * r.moved(t, j) / d;
      }
    }
  }
  // The chosen experts of token t that have a weight; -1 in place of the others.
  std::vector<int> weighed(const Routing& r, Index t) const {
    std::vector<int> ids(r.expert.row(t).begin(), r.expert.row(t).end());
    for (int& e : ids) {
      if (e >= 0 && !excluded_.empty() && excluded_[e])
        e = -1;
    }
    return ids;
  }
  double beta(std::size_t e) const {
    return beta_.empty() ? 0 : beta_[e];
  }
  ScoredOptions o_;
  std::vector<double> beta_;            // (E) or empty
  std::vector<std::uint8_t> excluded_;  // (E) or empty
};

class OfSoftmax : public Scored {
 public:
  using Scored::Scored;

  // as shares of the chosen: what the scores of all experts are divided by cancels
  bool by_chosen_alone() const override {
    return o_.rule.norm && o_.rule.eps == norm_eps && o_.rule.least == 0;
  }

 protected:
  void score(std::span<const double> z, std::span<double> s) const override {
    softmax_row(z, s);
  }
  void score_backward(std::span<const double> s, std::span<const double> ds,
                      std::span<double> dz) const override {
    softmax_row_backward(s, ds, dz);
  }
  void probability_backward(std::span<const double>, std::span<const double> dprob,
                            std::span<double> ds) const override {
    for (std::size_t e = 0; e < ds.size(); ++e)
      ds[e] += dprob[e];
  }
  bool logits_rank() const override {
    return beta_.empty();
  }
  void score_keys(std::span<const double> z, std::span<const double> s, std::span<double> key,
                  std::span<double> group_key) const override {
    // z orders as p does, without ties where p underflows
    for (std::size_t e = 0; e < key.size(); ++e) {
      key[e] = beta_.empty() ? z[e] : s[e] + beta(e);
      group_key[e] = s[e] + beta(e);
    }
  }
};

class Softmax final : public OfSoftmax, public DeviceRule {
 public:
  using OfSoftmax::OfSoftmax;
  RouterFacts facts() const override {
    RouterFacts f = Scored::facts();
    f.score = o_.mask.empty() ? ScoreFunction::softmax : ScoreFunction::other;
    return f;
  }
  std::optional<TopK> top_k() const override {
    return rule_for_device(false);
  }
};

// Scores that are no probabilities: what one expert gets, others do not lose.
class OfEach : public Scored {
 public:
  using Scored::Scored;
  Matrix<double> probabilities(const RouterInput&, const Routing& r) const override {
    return normalized_rows(r.score);
  }

  bool by_chosen_alone() const override {
    return true;
  }

 protected:
  void probability_backward(std::span<const double> s, std::span<const double> dprob,
                            std::span<double> ds) const override {
    normalized_row_backward(s, dprob, ds);
  }
  void score_keys(std::span<const double>, std::span<const double> s, std::span<double> key,
                  std::span<double> group_key) const override {
    for (std::size_t e = 0; e < key.size(); ++e)
      key[e] = group_key[e] = s[e] + beta(e);
  }
};

class Sigmoid final : public OfEach, public DeviceRule {
 public:
  using OfEach::OfEach;
  RouterFacts facts() const override {
    RouterFacts f = Scored::facts();
    f.score = o_.mask.empty() ? ScoreFunction::sigmoid : ScoreFunction::other;
    return f;
  }
  std::optional<TopK> top_k() const override {
    return rule_for_device(true);
  }

 protected:
  void score(std::span<const double> z, std::span<double> s) const override {
    sigmoid_row(z, s);
  }
  void score_backward(std::span<const double> s, std::span<const double> ds,
                      std::span<double> dz) const override {
    for (std::size_t e = 0; e < s.size(); ++e)
      dz[e] += ds[e] * s[e] * (1 - s[e]);
  }
};

class SqrtSoftplus final : public OfEach {
 public:
  using OfEach::OfEach;
  RouterFacts facts() const override {
    RouterFacts f = Scored::facts();
    f.score = o_.mask.empty() ? ScoreFunction::sqrt_softplus : ScoreFunction::other;
    return f;
  }

 protected:
  void score(std::span<const double> z, std::span<double> s) const override {
    sqrt_softplus_row(z, s);
  }
  void score_backward(std::span<const double> s, std::span<const double> ds,
                      std::span<double> dz) const override {
    for (std::size_t e = 0; e < s.size(); ++e)
      dz[e] += ds[e] * sqrt_softplus_slope(s[e]);
  }
};

// Cosines instead of products (X-MoE, 2204.09179; docs/routers.md): no expert wins by the length of
// its row.
class Cosine final : public OfSoftmax {
 public:
  Cosine(int experts, const ScoredOptions& o, int dim, double start)
      : OfSoftmax(experts, o), dim_(dim), start_(start) {}
  std::vector<Projection> projections() const override {
    return {{.name = "weight",
             .rows = experts_,
             .cosine = true,
             .scale_start = start_,
             .through = dim_}};
  }

 private:
  int dim_;
  double start_;
};

template <class Kind>
std::unique_ptr<Router> make(Spec& spec, int experts, bool sigmoid) {
  auto made = std::make_unique<Kind>(experts, options(spec, experts, sigmoid));
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace

std::unique_ptr<Router> make_softmax_router(Spec& spec, int experts) {
  return make<Softmax>(spec, experts, false);
}
std::unique_ptr<Router> make_cosine_router(Spec& spec, int experts) {
  const ScoredOptions o = options(spec, experts, false);
  const int dim = spec.get("dim", std::max(2, experts / 2), 0);
  auto made = std::make_unique<Cosine>(experts, o, dim, spec.get("start", 2.0));
  read_temperature_and_jitter(spec, *made);
  return made;
}

std::unique_ptr<Router> make_sigmoid_router(Spec& spec, int experts) {
  return make<Sigmoid>(spec, experts, true);
}
std::unique_ptr<Router> make_sqrtsoftplus_router(Spec& spec, int experts) {
  return make<SqrtSoftplus>(spec, experts, true);
}

}  // namespace moe
