#include "lib/edit/merge.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/similarity.h"
#include "lib/edit/regroup.h"
#include "lib/model/config.h"
#include "lib/router/router.h"
#include "lib/run/recorder.h"

namespace moe {
namespace {

// Least cosine between members of two groups.
double linkage(const Matrix<float>& cosine, const std::vector<int>& a, const std::vector<int>& b) {
  double least = 1;
  for (const int i : a) {
    for (const int j : b)
      least = std::min(least, double(cosine(i, j)));
  }
  return least;
}

// Groups the most similar first until no two groups are similar enough or only `floor` are left.
std::vector<NewExpert> merged(const Matrix<float>& cosine, double threshold, std::size_t floor) {
  std::vector<NewExpert> groups;
  for (int e = 0; e < int(cosine.rows()); ++e)
    groups.push_back({{e}});
  while (groups.size() > floor) {
    std::size_t a = 0;
    std::size_t b = 0;
    double best = -2;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      for (std::size_t j = i + 1; j < groups.size(); ++j) {
        if (const double c = linkage(cosine, groups[i].of, groups[j].of); c > best) {
          best = c;
          a = i;
          b = j;
        }
      }
    }
    if (!(best >= threshold))
      break;
    groups[a].of.insert(groups[a].of.end(), groups[b].of.begin(), groups[b].of.end());
    groups.erase(groups.begin() + std::ptrdiff_t(b));
  }
  return groups;
}

// Experts that remain in the layer with the fewest similar ones, and so in every layer.
std::size_t remaining(const std::vector<Matrix<float>>& alike, double threshold, int choices) {
  std::size_t most = 1;
  for (const auto& m : alike) {
    const auto least = std::size_t(std::min<Index>(choices, m.rows()));
    most = std::max(most, merged(m, threshold, least).size());
  }
  return most;
}

void refuse_count(int count, int experts, int choices) {
  if (count < 1 || count >= experts) {
    throw Error(Exit::usage, concat("of ", experts, " experts ", count, " cannot be what is left"))
        .hint(concat("count=1 to count=", experts - 1));
  }
  if (count < choices) {
    throw Error(Exit::usage, concat(count, " experts would stay and a token chooses ", choices))
        .hint(concat("count=", choices, " or more"));
  }
}

std::vector<Matrix<float>> similarity(Decoder<float>& model, const Merging& m) {
  if (!m.alike.empty())
    return m.alike;
  if (m.aligned)
    return weight_similarity(model, true).back().layer;
  return weight_cosine(model).layer;
}

// Shares of the members in their mean; none where all are alike.
std::vector<double> shares(const std::vector<int>& members, const std::vector<double>& use) {
  std::vector<double> out;
  double sum = 0;
  for (const int e : members)
    sum += use[e];
  if (!(sum > 0))
    return {};
  for (const int e : members)
    out.push_back(use[e] / sum);
  return out;
}

// The weights of one layer on the host.
struct HostWeights {
  explicit HostWeights(MoeLayer<float>& layer)
      : experts(layer.config().experts),
        gate(host(layer.expert_parameters().gate)),
        up(host(layer.expert_parameters().up)),
        down(host(layer.expert_parameters().down)) {}
  ExpertMatrices<float> view() const {
    return {experts, gate.view(), up.view(), down.view()};
  }
  static Matrix<float> host(const Parameter<float>& p) {
    return p.empty() ? Matrix<float>() : p.to_host();
  }
  Index experts;
  const Matrix<float> gate, up, down;
};

// Units of the others in the order of the member that is used most; returns whether any moved.
bool align(NewExpert& s, const HostWeights& weights) {
  const auto most = s.share.empty() ? 0 : std::ranges::max_element(s.share) - s.share.begin();
  const int reference = s.of[most];
  bool moved = false;
  for (const int e : s.of) {
    s.unit.emplace_back();
    if (e == reference)
      continue;
    s.unit.back() = expert_unit_order(weights.view(), reference, e);
    moved = moved || !std::ranges::is_sorted(s.unit.back());
  }
  return moved;
}

std::string said_of(const NewExpert& s, const Matrix<float>& alike, int layer, bool moved) {
  std::string out = concat("layer ", layer, ": experts ", numbers_text(s.of),
                           " became one (least cosine ", linkage(alike, s.of, s.of));
  if (!s.share.empty()) {
    std::vector<std::string> words;
    for (const double v : s.share)
      words.push_back(concat(std::round(1000 * v) / 1000));
    out += concat(", shares ", join(words));
  }
  return out + (moved ? ", hidden units put in one order)" : ")");
}

std::string summary(const Merging& m, int experts, std::size_t left) {
  if (m.count > 0)
    return concat(experts, " experts became ", left);
  return concat(experts, " experts became ", left,
                ", as many as the least redundant layer keeps at a cosine of ", m.threshold);
}

std::size_t experts_left(const Merging& m, const std::vector<Matrix<float>>& alike, int experts,
                         int choices) {
  if (m.count > 0)
    return std::size_t(m.count);
  const std::size_t left = remaining(alike, m.threshold, choices);
  if (left == std::size_t(experts)) {
    throw Error(Exit::failed,
                concat("nothing was merged: some layer has no two experts with a cosine of ",
                       m.threshold, " or more, and all layers have the same number"))
        .hint("a lower threshold, or count=N for the N that should stay")
        .safe("nothing was written");
  }
  return left;
}

}  // namespace

Edited merge_experts(Decoder<float>& model, const Merging& m) {
  need_experts(model, "merge");
  const int experts = model.config().moe.experts;
  const int choices = model.moe_layers()[0]->router().choices();
  if (experts > most_paired_experts) {
    throw Error(Exit::usage,
                concat("merging compares all pairs of experts, and ", experts,
                       " are more than the ", most_paired_experts, " it does that for"))
        .hint("--remove load:count=...");
  }
  if (m.count != 0)
    refuse_count(m.count, experts, choices);
  const std::vector<Matrix<float>> alike = similarity(model, m);
  const std::size_t left = experts_left(m, alike, experts, choices);
  const double threshold = m.count > 0 ? -2 : m.threshold;
  NewExperts sources;
  std::vector<std::string> said;
  for (std::size_t l = 0; l < alike.size(); ++l) {
    sources.push_back(merged(alike[l], threshold, left));
    const HostWeights weights(*model.moe_layers()[l]);
    for (NewExpert& s : sources.back()) {
      if (s.of.size() < 2)
        continue;
      if (!m.use.empty())
        s.share = shares(s.of, m.use[l]);
      const bool moved = m.aligned && align(s, weights);
      said.push_back(said_of(s, alike[l], model.layer_of(int(l)), moved));
    }
  }
  Edited out{regroup(model, sources, 0, 0).model, {summary(m, experts, left)}};
  out.changes.insert(out.changes.end(), said.begin(), said.end());
  return out;
}

}  // namespace moe
