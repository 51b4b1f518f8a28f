// A gate of several levels (equations.md 2.13; 1701.06538 appendix B; docs/routers.md): the best
// nodes of the first level, in each of them the best of the second, down to experts; an expert's
// weight is the product of the weights on its path.
#include <algorithm>
#include <charconv>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/one_score.h"

namespace moe {
namespace {

struct Tree {
  // (D) children of a node on each level, and how many of them are kept
  std::vector<int> size, keep;
  bool of_groups = false;  // two levels, as groups= describes them
  int depth() const {
    return int(size.size());
  }
  int product(const std::vector<int>& of, int first, int last) const {
    int n = 1;
    for (int d = first; d < last; ++d)
      n *= of[d];
    return n;
  }
  int nodes(int d) const {
    return product(size, 0, d + 1);
  }
  int kept(int d) const {
    return product(keep, 0, d + 1);
  }
  // experts under a node of level d
  int below(int d) const {
    return product(size, d + 1, depth());
  }
  int kept_below(int d) const {
    return product(keep, d + 1, depth());
  }
};

class Hierarchical final : public Router {
 public:
  Hierarchical(int experts, Tree tree, WeightRule level, double scale)
      : Router(experts), tree_(std::move(tree)), level_(level), scale_(scale) {}

  RouterFacts facts() const override {
    RouterFacts f{.k = tree_.kept(tree_.depth() - 1),
                  .normalised = level_.norm,
                  .norm_is_option = true,
                  .scale = scale_};
    if (!tree_.of_groups) {
      f.levels = tree_.depth();
      return f;
    }
    f.groups = tree_.size[0];
    f.topk_groups = tree_.keep[0];
    return f;
  }
  std::vector<Projection> projections() const override {  // the experts' own level first
    std::vector<Projection> all{{.name = "weight", .rows = experts_}};
    for (int d = 0; d + 1 < tree_.depth(); ++d) {
      all.push_back(
          {.name = d ? concat("group_weight_", d + 1) : "group_weight", .rows = tree_.nodes(d)});
    }
    return all;
  }

  Routing route(const RouterInput& in) override {
    const Index tokens = in.tokens();
    Routing r;
    r.expert = Matrix<int>(tokens, choices(), -1);
    r.weight = Matrix<double>(tokens, choices());
    r.logits = r.score = Matrix<double>(tokens, experts_);
    for (Index t = 0; t < tokens; ++t) {
      if (!in.batch.is_valid(t))
        continue;
      std::ranges::copy(in.scores[0].row(t), r.logits.row(t).begin());
      const Paths paths = paths_of(in, t);
      const std::vector<std::pair<double, int>> slots = slots_of(paths);
      for (std::size_t j = 0; j < slots.size(); ++j) {
        r.weight(t, Index(j)) = slots[j].first;
        r.expert(t, Index(j)) = slots[j].second;
      }
      for (int e = 0; e < experts_; ++e)
        r.score(t, e) = others(paths, e, -1);
    }
    return r;
  }

  void backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight,
                const Matrix<double>& dprob, std::vector<Matrix<double>>& dscores) const override {
    for (Index t = 0; t < in.tokens(); ++t) {
      if (!in.batch.is_valid(t))
        continue;
      const Paths paths = paths_of(in, t);
      std::vector<std::vector<double>> dp;
      for (const Level& l : paths)
        dp.emplace_back(l.p.size(), 0.0);
      for (int e = 0; e < experts_ && !dprob.empty(); ++e) {
        for (int d = 0; d < tree_.depth(); ++d)
          dp[d][e / tree_.below(d)] += dprob(t, e) * others(paths, e, d);
      }
      if (!dweight.empty())
        weights_backward(paths, r, t, dweight, dp);
      for (int d = 0; d < tree_.depth(); ++d) {
        const std::size_t n = std::size_t(tree_.size[d]);
        const std::span<double> dz = dscores[score_of(d)].row(t);
        for (std::size_t first = 0; first < dz.size(); first += n) {
          softmax_row_backward(std::span(paths[d].p).subspan(first, n),
                               std::span(dp[d]).subspan(first, n), dz.subspan(first, n));
        }
      }
    }
  }

  std::vector<Detail> details(const RouterInput& in, const Routing&) const override {
    return tree_.depth() > 1 ? std::vector<Detail>{{"group_logits", in.scores[1]}}
                             : std::vector<Detail>{};
  }

 private:
  struct Level {                 // of one token
    std::vector<double> p;       // (nodes) softmax among the children of one node
    std::vector<int> id;         // (kept) nodes, the children of the first kept node above first
    std::vector<double> weight;  // (kept)
  };
  using Paths = std::vector<Level>;

  // where the logits of level d stand
  int score_of(int d) const {
    return d + 1 == tree_.depth() ? 0 : d + 1;
  }

  Paths paths_of(const RouterInput& in, Index t) const {
    Paths paths;
    for (int d = 0; d < tree_.depth(); ++d) {
      const std::span<const double> z = in.scores[score_of(d)].row(t);
      const std::size_t n = std::size_t(tree_.size[d]);
      const std::size_t keep = std::size_t(tree_.keep[d]);
      Level l{std::vector<double>(z.size()), std::vector<int>(std::size_t(tree_.kept(d))),
              std::vector<double>(std::size_t(tree_.kept(d)))};
      for (std::size_t first = 0; first < z.size(); first += n)
        softmax_row(z.subspan(first, n), std::span(l.p).subspan(first, n));
      for (std::size_t i = 0; i * keep < l.id.size(); ++i) {
        const std::size_t first = d ? std::size_t(paths.back().id[i]) * n : 0;
        const std::span<int> mine = std::span(l.id).subspan(i * keep, keep);
        best_of(z.subspan(first, n), mine);
        for (int& id : mine)
          id += int(first);
        weights_of(l.p, mine, level_, std::span(l.weight).subspan(i * keep, keep));
      }
      paths.push_back(std::move(l));
    }
    return paths;
  }
  // Weight and expert of every choice, the largest weight first, ties to the lower id.
  std::vector<std::pair<double, int>> slots_of(const Paths& paths) const {
    std::vector<std::pair<double, int>> slots;
    const int k = choices();
    for (int i = 0; i < k; ++i) {
      double w = scale_;
      for (int d = 0; d < tree_.depth(); ++d)
        w *= paths[d].weight[i / tree_.kept_below(d)];
      slots.emplace_back(w, paths.back().id[i]);
    }
    std::ranges::sort(slots, [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first > b.first : a.second < b.second;
    });
    return slots;
  }
  // The product of an expert's probabilities on all levels but one; -1 = on all.
  double others(const Paths& paths, int expert, int but) const {
    double p = 1;
    for (int d = 0; d < tree_.depth(); ++d)
      p *= d == but ? 1 : paths[d].p[expert / tree_.below(d)];
    return p;
  }
  // w = scale times the weights on the path, slot by slot, then section 1 on each level.
  void weights_backward(const Paths& paths, const Routing& r, Index t,
                        const Matrix<double>& dweight, std::vector<std::vector<double>>& dp) const {
    for (int d = 0; d < tree_.depth(); ++d) {
      const Level& l = paths[d];
      std::vector<double> dw(l.weight.size(), 0.0);
      for (Index j = 0; j < r.choices(); ++j) {
        const int i =
            int(std::ranges::find(paths.back().id, r.expert(t, j)) - paths.back().id.begin());
        double rest = scale_ * dweight(t, j);
        for (int o = 0; o < tree_.depth(); ++o)
          rest *= o == d ? 1 : paths[o].weight[i / tree_.kept_below(o)];
        dw[i / tree_.kept_below(d)] += rest;
      }
      const std::size_t keep = std::size_t(tree_.keep[d]);
      const auto slots = [&](auto& v, std::size_t first) {
        return std::span(v).subspan(first, keep);
      };
      for (std::size_t first = 0; first < dw.size(); first += keep) {
        weights_of_backward(l.p, slots(l.id, first), level_, slots(l.weight, first),
                            slots(dw, first), dp[d]);
      }
    }
  }
  Tree tree_;
  WeightRule level_;
  double scale_;
};

// "4x4x2" -> 4, 4, 2
std::vector<int> sizes_of(const std::string& key, const std::string& text) {
  std::vector<int> out;
  for (const std::string& word : split(text, 'x')) {
    int n = 0;
    const auto [end, failed] = std::from_chars(word.data(), word.data() + word.size(), n);
    if (failed != std::errc() || end != word.data() + word.size() || n < 1) {
      throw Error(Exit::usage, concat("hierarchical: ", key, "=", text, ": '", word,
                                      "' is not a number of 1 or more"))
          .hint("levels=4x4x2,keep=2x2x1");
    }
    out.push_back(n);
  }
  return out;
}

Tree tree_of(Spec& spec, int experts) {
  for (const char* two : {"groups", "topk_groups", "inner"}) {
    if (spec.has(two)) {
      throw Error(Exit::usage,
                  concat("hierarchical: levels= and ", two, "= both say how the tree looks"))
          .hint("levels=4x4x2,keep=2x2x1, or groups=4,topk_groups=2,inner=1");
    }
  }
  const std::string sizes = spec.get("levels", "");
  Tree tree{sizes_of("levels", sizes), {}};
  std::string least;
  for (int d = 0; d < tree.depth(); ++d)
    least += d ? "x1" : "1";
  const std::string kept = spec.get("keep", least);
  tree.keep = sizes_of("keep", kept);
  if (tree.keep.size() != tree.size.size()) {
    throw Error(Exit::usage, concat("hierarchical: levels=", sizes, " has ", tree.size.size(),
                                    " levels and keep=", kept, " ", tree.keep.size()));
  }
  double leaves = 1;
  for (const int n : tree.size)
    leaves *= n;
  if (leaves != experts) {
    throw Error(Exit::usage, concat("hierarchical: levels=", sizes, " makes ", leaves,
                                    " experts and the layer has ", experts))
        .hint("the product of the levels is the number of experts");
  }
  for (std::size_t d = 0; d < tree.size.size(); ++d) {
    if (tree.keep[d] > tree.size[d]) {
      throw Error(Exit::usage, concat("hierarchical: keep=", kept, " takes ", tree.keep[d],
                                      " of the ", tree.size[d], " of level ", d + 1));
    }
  }
  return tree;
}

Tree two_levels(Spec& spec, int experts) {
  const int groups = spec.get("groups", 2, 1);
  const int topk = spec.get("topk_groups", 1, 1);
  const int inner = spec.get("inner", 2, 1);
  if (experts % groups) {
    throw Error(Exit::usage, concat("hierarchical: ", experts, " experts do not split into ",
                                    groups, " equal groups"));
  }
  if (topk > groups) {
    throw Error(Exit::usage,
                concat("hierarchical: topk_groups=", topk, " is more than groups=", groups));
  }
  if (inner > experts / groups) {
    throw Error(Exit::usage, concat("hierarchical: inner=", inner, " is more than the ",
                                    experts / groups, " experts of a group"));
  }
  return {{groups, experts / groups}, {topk, inner}, true};
}

}  // namespace

std::unique_ptr<Router> make_hierarchical_router(Spec& spec, int experts) {
  const Tree tree = spec.has("levels") ? tree_of(spec, experts) : two_levels(spec, experts);
  const bool norm = spec.get("norm", true);
  auto made =
      std::make_unique<Hierarchical>(experts, tree, WeightRule{norm, 1}, spec.get("scale", 1.0));
  read_temperature_and_jitter(spec, *made);
  return made;
}

}  // namespace moe
