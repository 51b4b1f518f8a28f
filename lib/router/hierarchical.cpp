// A gate of two levels (equations.md 2.13; 1701.06538 appendix B): groups first, then experts inside each chosen group; the
// weight is the product of both levels' weights.
#include <algorithm>

#include "lib/core/error.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

class Hierarchical final : public Router {
  template <class V>
  auto part(V& row, int g) const { return std::span(row).subspan(std::size_t(g * size_), std::size_t(size_)); }  // of one group

 public:
  Hierarchical(int experts, int groups, int topk, int inner, WeightRule level, double scale)
      : Router(experts), groups_(groups), topk_(topk), inner_(inner), size_(experts / groups), level_(level), scale_(scale) {}

  int choices() const override { return topk_ * inner_; }
  std::vector<Projection> projections() const override {
    return {{.name = "weight", .rows = experts_}, {.name = "group_weight", .rows = groups_}};
  }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r;
    r.expert = Matrix<int>(tokens, choices(), -1);
    r.weight = Matrix<double>(tokens, choices());
    r.logits = r.score = Matrix<double>(tokens, experts_);
    for (Index t = 0; t < tokens; ++t) {
      if (!in.batch.is_valid(t)) continue;
      std::ranges::copy(in.scores[0].row(t), r.logits.row(t).begin());
      const Levels l = levels(in, r, t);
      std::vector<std::pair<double, int>> slots;  // weight, expert
      for (int i = 0; i < topk_; ++i)
        for (int j = 0; j < inner_; ++j) {
          const std::size_t at = std::size_t(i * inner_ + j);
          slots.emplace_back(scale_ * l.outer_weight[std::size_t(i)] * l.inner_weight[at], l.ids[at]);
        }
      std::ranges::sort(slots, [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
      for (Index j = 0; j < choices(); ++j) r.weight(t, j) = slots[std::size_t(j)].first, r.expert(t, j) = slots[std::size_t(j)].second;
      for (int e = 0; e < experts_; ++e) r.score(t, e) = l.outer[std::size_t(e / size_)] * l.inner[std::size_t(e)];
    }
    return r;
  }

  void backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight, const Matrix<double>& dprob,
                std::vector<Matrix<double>>& dscores) const override {
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch.is_valid(t)) continue;
      const Levels l = levels(in, r, t);
      std::vector<double> douter(std::size_t(groups_), 0.0), dinner(std::size_t(experts_), 0.0);
      for (int e = 0; e < experts_ && !dprob.empty(); ++e) {
        douter[std::size_t(e / size_)] += dprob(t, e) * l.inner[std::size_t(e)];
        dinner[std::size_t(e)] += dprob(t, e) * l.outer[std::size_t(e / size_)];
      }
      if (!dweight.empty()) weights_backward(l, r, t, dweight, douter, dinner);
      softmax_row_backward(l.outer, douter, dscores[1].row(t));
      for (int g = 0; g < groups_; ++g) softmax_row_backward(part(l.inner, g), part(dinner, g), dscores[0].row(t).subspan(std::size_t(g * size_), std::size_t(size_)));
    }
  }
  std::vector<Detail> details(const RouterInput& in, const Routing&) const override { return {{"group_logits", in.scores[1]}}; }

 private:
  struct Levels {  // of one token
    std::vector<double> outer, inner;                // probabilities: (G), (E) summing to 1 in each group
    std::vector<int> kept, ids;                      // (topk) groups, (topk*inner) experts by group
    std::vector<double> outer_weight, inner_weight;  // (topk), (topk*inner)
  };
  Levels levels(const RouterInput& in, const Routing& r, Index t) const {
    const std::size_t k = std::size_t(topk_), n = std::size_t(inner_);
    Levels l{std::vector<double>(std::size_t(groups_)), std::vector<double>(std::size_t(experts_)), std::vector<int>(k), std::vector<int>(k * n), std::vector<double>(k), std::vector<double>(k * n)};
    softmax_row(in.scores[1].row(t), l.outer);
    for (int g = 0; g < groups_; ++g) softmax_row(r.logits.row(t).subspan(std::size_t(g * size_), std::size_t(size_)), part(l.inner, g));
    best_of(in.scores[1].row(t), l.kept);
    weights_of(l.outer, l.kept, level_, l.outer_weight);
    for (std::size_t i = 0; i < k; ++i) {
      const std::span<int> mine = std::span(l.ids).subspan(i * n, n);
      const int first = l.kept[i] * size_;
      best_of(r.logits.row(t).subspan(std::size_t(first), std::size_t(size_)), mine);
      for (int& e : mine) e += first;
      weights_of(l.inner, mine, level_, std::span(l.inner_weight).subspan(i * n, n));
    }
    return l;
  }
  // w = scale outer inner, slot by slot, then section 1 on each level.
  void weights_backward(const Levels& l, const Routing& r, Index t, const Matrix<double>& dweight, std::span<double> douter, std::span<double> dinner) const {
    const std::size_t n = std::size_t(inner_);
    std::vector<double> dow(l.outer_weight.size(), 0.0), diw(l.inner_weight.size(), 0.0);
    for (Index j = 0; j < choices(); ++j) {
      const std::size_t at = std::size_t(std::ranges::find(l.ids, r.expert(t, j)) - l.ids.begin());
      dow[at / n] += scale_ * dweight(t, j) * l.inner_weight[at];
      diw[at] += scale_ * dweight(t, j) * l.outer_weight[at / n];
    }
    weights_of_backward(l.outer, l.kept, level_, l.outer_weight, dow, douter);
    for (std::size_t i = 0; i < l.kept.size(); ++i) {
      const auto slots = [&](auto& v) { return std::span(v).subspan(i * n, n); };
      weights_of_backward(l.inner, slots(l.ids), level_, slots(l.inner_weight), slots(diw), dinner);
    }
  }
  int groups_, topk_, inner_, size_;
  WeightRule level_;
  double scale_;
};

}  // namespace

std::unique_ptr<Router> make_hierarchical_router(Spec& spec, int experts) {
  const int groups = spec.get("groups", 2, 1), topk = spec.get("topk_groups", 1, 1), inner = spec.get("inner", 2, 1);
  if (experts % groups) throw Error(Exit::usage, concat("hierarchical: ", experts, " experts do not split into ", groups, " equal groups"));
  if (topk > groups) throw Error(Exit::usage, concat("hierarchical: topk_groups=", topk, " is more than groups=", groups));
  if (inner > experts / groups) throw Error(Exit::usage, concat("hierarchical: inner=", inner, " is more than the ", experts / groups, " experts of a group"));
  const bool norm = spec.get("norm", true);
  auto made = std::make_unique<Hierarchical>(experts, groups, topk, inner, WeightRule{norm, 1}, spec.get("scale", 1.0));
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
