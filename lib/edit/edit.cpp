// Edits that keep a model sparse and take experts as they are: some once more, some no more.
#include "lib/edit/edit.h"

#include <algorithm>
#include <numeric>

#include "lib/core/error.h"
#include "lib/edit/regroup.h"
#include "lib/model/config.h"

namespace moe {

std::vector<ExpertName> expert_names(const std::string& text) {
  std::vector<ExpertName> out;
  for (const std::string& word : split(text, ',')) {
    const auto colon = word.find(':');
    const auto digits = [](std::string_view s) {
      return !s.empty() && s.size() < 9 && s.find_first_not_of("0123456789") == s.npos;
    };
    if (colon == word.npos || !digits(std::string_view(word).substr(0, colon)) ||
        !digits(std::string_view(word).substr(colon + 1))) {
      throw Error(Exit::usage, concat("'", word, "' names no expert"))
          .hint("LAYER:EXPERT, such as 3:1, several with commas between");
    }
    out.push_back({std::stoi(word.substr(0, colon)), std::stoi(word.substr(colon + 1))});
  }
  if (out.empty()) {
    throw Error(Exit::usage, "no expert is named")
        .hint("LAYER:EXPERT, such as 3:1, several with commas between");
  }
  return out;
}

int moe_layer_of(const Decoder<float>& model, const ExpertName& name) {
  const ModelConfig& c = model.config();
  std::vector<std::string> there;
  int place = 0;
  for (int l = 0; l < c.layers; ++l) {
    if (!c.is_moe(l))
      continue;
    if (l == name.layer && name.expert >= 0 && name.expert < c.moe.experts)
      return place;
    there.push_back(concat(l));
    ++place;
  }
  throw Error(Exit::usage,
              concat("there is no expert ", name.layer, ":", name.expert, " in this model"))
      .hint(there.empty()
                ? "it is dense"
                : concat("MoE layers are ", join(there), ", experts 0 to ", c.moe.experts - 1));
}

std::vector<ExpertName> lowest(const Decoder<float>& model, const ExpertScores& score, int count) {
  std::vector<ExpertName> out;
  for (std::size_t l = 0; l < score.size(); ++l) {
    std::vector<int> order(score[l].size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, {}, [&](int e) { return score[l][e]; });
    for (int i = 0; i < std::min(count, int(order.size())); ++i)
      out.push_back({model.layer_of(int(l)), order[i]});
  }
  return out;
}

namespace {

NewExperts as_they_are(const Decoder<float>& model) {
  std::vector<NewExpert> layer;
  for (int e = 0; e < model.config().moe.experts; ++e)
    layer.push_back({{e}});
  return NewExperts(std::size_t(model.config().moe_layers()), layer);
}

// Ids by score, the highest first, ties to the lower id; without scores in order.
std::vector<int> by_score(int experts, const std::vector<double>& score) {
  std::vector<int> order(std::size_t(experts), 0);
  std::iota(order.begin(), order.end(), 0);
  if (!score.empty()) {
    std::ranges::stable_sort(order, std::greater{}, [&](int e) { return score[e]; });
  }
  return order;
}

// The experts of each MoE layer that are named, once each, ascending.
std::vector<std::vector<int>> by_layer(const Decoder<float>& model,
                                       const std::vector<ExpertName>& names) {
  std::vector<std::vector<int>> out(std::size_t(model.config().moe_layers()));
  for (const ExpertName& n : names) {
    auto& layer = out[moe_layer_of(model, n)];
    if (std::ranges::find(layer, n.expert) == layer.end())
      layer.push_back(n.expert);
  }
  for (auto& layer : out)
    std::ranges::sort(layer);
  return out;
}

}  // namespace

Edited add_experts(Decoder<float>& model, int count, double noise, const ExpertScores& score,
                   std::uint64_t seed) {
  need_experts(model, "copy");
  const int experts = model.config().moe.experts;
  if (count < 1)
    throw Error(Exit::usage, concat("there are ", count, " experts to add")).hint("1 or more");
  NewExperts sources = as_they_are(model);
  std::vector<std::string> said;
  for (std::size_t l = 0; l < sources.size(); ++l) {
    const auto order = by_score(experts, score.empty() ? std::vector<double>{} : score[l]);
    std::vector<int> copied;
    for (int i = 0; i < count; ++i) {
      copied.push_back(order[i % experts]);
      sources[l].push_back({{copied.back()}, true});
    }
    said.push_back(concat("layer ", model.layer_of(int(l)), ": experts ", experts, " to ",
                          experts + count - 1, " are copies of ", numbers_text(copied)));
  }
  Edited out = regroup(model, sources, noise, seed);
  out.changes = {concat(experts, " experts became ", experts + count,
                        ", the new ones with noise of ", noise,
                        " times the root mean square of each matrix")};
  out.changes.insert(out.changes.end(), said.begin(), said.end());
  return out;
}

Edited remove_experts(Decoder<float>& model, const std::vector<ExpertName>& names) {
  need_experts(model, "remove");
  const auto gone = by_layer(model, names);
  const int experts = model.config().moe.experts;
  NewExperts sources;
  Edited out;
  for (std::size_t l = 0; l < gone.size(); ++l) {
    if (gone[l].size() != gone[0].size()) {
      throw Error(Exit::usage, concat("layer ", model.layer_of(int(l)), " would lose ",
                                      gone[l].size(), " experts and layer ", model.layer_of(0), " ",
                                      gone[0].size(), ", and all layers have the same number"))
          .hint("name as many in every MoE layer");
    }
    sources.emplace_back();
    for (int e = 0; e < experts; ++e) {
      if (!std::ranges::binary_search(gone[l], e))
        sources.back().push_back({{e}});
    }
    out.changes.push_back(concat("layer ", model.layer_of(int(l)), ": experts ",
                                 numbers_text(gone[l]), " are gone; those behind them moved up"));
  }
  const int left = experts - int(gone[0].size());
  if (left < 1) {
    throw Error(Exit::usage, concat("of ", experts, " experts none would remain"))
        .hint("remove fewer");
  }
  out.model = regroup(model, sources, 0, 0).model;
  out.changes.insert(out.changes.begin(), concat(experts, " experts became ", left));
  return out;
}

}  // namespace moe
