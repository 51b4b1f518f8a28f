// Edits that keep a model sparse: each new expert is the mean of some old ones, and everything that
// belongs to an expert (bodies, router rows, selection bias) goes with it.
#include "lib/edit/edit.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/copy_weights.h"
#include "lib/router/router.h"
#include "lib/run/recorder.h"

namespace moe {
namespace {

struct Source {
  std::vector<int> of;  // old experts whose mean a new one is
  bool noisy = false;
};
using Sources = std::vector<std::vector<Source>>;  // (MoE layers)(new E)

// New numbers for old ones of `old_experts` equal pieces; the matrices of copies are disturbed.
template <class T>
std::vector<T> regrouped(std::span<const T> old, const std::vector<Source>& sources,
                         int old_experts, double noise, Rng rng) {
  const std::size_t n = old.size() / std::size_t(old_experts);
  std::vector<T> out;
  out.reserve(n * sources.size());
  for (const Source& s : sources) {
    double squares = 0;
    const std::size_t first = out.size();
    for (std::size_t i = 0; i < n; ++i) {
      double sum = 0;
      for (const int e : s.of)
        sum += double(old[std::size_t(e) * n + i]);
      out.push_back(s.of.size() == 1 ? old[std::size_t(s.of[0]) * n + i]
                                     : T(sum / double(s.of.size())));
      squares += double(out.back()) * double(out.back());
    }
    if (!s.noisy || noise == 0)
      continue;
    const double size = noise * std::sqrt(squares / double(std::max<std::size_t>(1, n)));
    for (std::size_t i = first; i < out.size(); ++i)
      out[i] = T(double(out[i]) + size * rng.normal());
  }
  return out;
}

bool by_expert(const std::string& name) {
  return name.find(".moe.experts.") != name.npos ||
         (name.find(".moe.router.") != name.npos && !name.ends_with(".project"));
}

// Routers whose meaning hangs on expert ids cannot have another number of experts.
void refuse_fixed_ids(const LayerConfig& c) {
  const RouterFacts router = router_facts(c.router, c.experts);
  const std::string name = Spec(c.router).name();
  if (router.groups > 1) {
    throw Error(Exit::usage, concat("the groups of ", name,
                                    " are runs of expert ids, and another number of experts would "
                                    "move experts between them"))
        .hint("a model without groups");
  }
  if (router.needs_token_counts) {
    throw Error(
        Exit::usage,
        concat("the table of ", c.router,
               " names experts by their ids, and another number of experts would move them"))
        .hint("a model whose router is not hash:fn=balanced");
  }
  if (router.levels > 0) {
    throw Error(
        Exit::usage,
        concat("the levels of ", name,
               " are runs of expert ids, and another number of experts would not fill them"))
        .hint("a model without levels");
  }
}

struct Regrouping {
  const Sources& sources;
  int before, after;  // experts of a layer
  double noise;
  std::uint64_t seed;
};

// ExpertParameters and router rows by their sources; every other parameter as it is.
void regroup_parameters(Decoder<float>& old, Decoder<float>& made, const Regrouping& r) {
  const auto from = old.parameters();
  const auto to = made.parameters();
  for (std::size_t i = 0; i < to.size(); ++i) {
    const Index n = from[i]->size();
    if (!by_expert(to[i]->name()) || n % r.before || n / r.before * r.after != to[i]->size()) {
      copy_parameter(*from[i], *to[i]);
      continue;
    }
    const int layer = std::stoi(to[i]->name().substr(7));
    const auto& sources = r.sources[std::size_t(moe_layer_of(old, {layer, 0}))];
    const Matrix<float> host = from[i]->to_host();
    const bool matrix = to[i]->kind() == ParameterKind::matrix;
    const auto numbers =
        regrouped(host.flat(), sources, r.before, matrix ? r.noise : 0, Rng(r.seed).stream(i));
    to[i]->set(View<const float>{numbers.data(), to[i]->value().rows, to[i]->value().cols});
  }
}

// What routers and balancers hold besides parameters: a number an expert goes with its expert.
void regroup_state(MoeLayer<float>& old, MoeLayer<float>& made, const std::vector<Source>& sources,
                   const Regrouping& r) {
  const auto from = old.state();
  const auto to = made.state();
  for (std::size_t i = 0; i < to.size(); ++i) {
    const std::span<const double> values = from[i].second;
    const bool one_each =
        values.size() == std::size_t(r.before) && to[i].second.size() == std::size_t(r.after);
    const auto numbers = one_each ? regrouped(values, sources, r.before, 0, Rng(r.seed))
                                  : std::vector<double>(values.begin(), values.end());
    if (numbers.size() != to[i].second.size()) {
      throw Error(Exit::usage,
                  concat(to[i].first, " has ", values.size(), " numbers for ", r.before,
                         " experts and ", to[i].second.size(), " for ", r.after));
    }
    std::ranges::copy(numbers, to[i].second.begin());
  }
}

Edited regroup(Decoder<float>& old, const Sources& sources, double noise, std::uint64_t seed) {
  ModelConfig c = old.config();
  refuse_fixed_ids(c.moe);
  const Regrouping r{sources, c.moe.experts, int(sources[0].size()), noise, seed};
  c.dense_width = c.dense_baseline_width();
  c.moe.experts = r.after;
  Edited out{std::make_unique<Decoder<float>>(c, old.backend()), {}};
  regroup_parameters(old, *out.model, r);
  for (std::size_t l = 0; l < sources.size(); ++l)
    regroup_state(*old.moe_layers()[l], *out.model->moe_layers()[l], sources[l], r);
  return out;
}

void need_experts(const Decoder<float>& model, const char* what) {
  const LayerConfig& c = model.config().moe;
  if (model.config().moe_layers() == 0) {
    throw Error(Exit::usage, concat("a dense model has no experts to ", what))
        .hint("--upcycle copy:experts=8 makes it sparse");
  }
  if (!c.types.empty() || !c.widths.empty() || c.gate_residual) {
    throw Error(Exit::usage,
                concat("experts to ", what,
                       " must be alike and routers apart, and this model has expert_types=",
                       list_text(c.types), ", widths=", list_text(c.widths),
                       ", gate_residual=", c.gate_residual))
        .hint(
            "a model of plain experts of one width; --without-expert of moe eval and --train work "
            "on every model");
  }
}

Sources as_they_are(const Decoder<float>& model) {
  std::vector<Source> layer;
  for (int e = 0; e < model.config().moe.experts; ++e)
    layer.push_back({{e}});
  return Sources(std::size_t(model.config().moe_layers()), layer);
}

std::string numbers_text(const std::vector<int>& v) {
  std::vector<std::string> words;
  for (const int n : v)
    words.push_back(concat(n));
  return join(words);
}

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
std::vector<Source> merged(const Matrix<float>& cosine, double threshold, std::size_t floor) {
  std::vector<Source> groups;
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

}  // namespace

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
    std::ranges::stable_sort(order, {}, [&](int e) { return score[l][std::size_t(e)]; });
    for (int i = 0; i < std::min(count, int(order.size())); ++i)
      out.push_back({model.layer_of(int(l)), order[std::size_t(i)]});
  }
  return out;
}

namespace {

// Ids by score, the highest first, ties to the lower id; without scores in order.
std::vector<int> by_score(int experts, const std::vector<double>& score) {
  std::vector<int> order(std::size_t(experts), 0);
  std::iota(order.begin(), order.end(), 0);
  if (!score.empty()) {
    std::ranges::stable_sort(order, std::greater{}, [&](int e) { return score[std::size_t(e)]; });
  }
  return order;
}

// The experts of each MoE layer that are named, once each, ascending.
std::vector<std::vector<int>> by_layer(const Decoder<float>& model,
                                       const std::vector<ExpertName>& names) {
  std::vector<std::vector<int>> out(std::size_t(model.config().moe_layers()));
  for (const ExpertName& n : names) {
    auto& layer = out[std::size_t(moe_layer_of(model, n))];
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
  Sources sources = as_they_are(model);
  std::vector<std::string> said;
  for (std::size_t l = 0; l < sources.size(); ++l) {
    const auto order = by_score(experts, score.empty() ? std::vector<double>{} : score[l]);
    std::vector<int> copied;
    for (int i = 0; i < count; ++i) {
      copied.push_back(order[std::size_t(i % experts)]);
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
  Sources sources;
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

namespace {

// Experts that remain in the layer with the fewest similar ones, and so in every layer.
std::size_t remaining(const PairMatrix& cosine, double threshold, int choices) {
  std::size_t most = 1;
  for (const auto& m : cosine.layer) {
    const auto least = std::size_t(std::min<Index>(choices, m.rows()));
    most = std::max(most, merged(m, threshold, least).size());
  }
  return most;
}

}  // namespace

Edited merge_experts(Decoder<float>& model, double threshold) {
  need_experts(model, "merge");
  const int experts = model.config().moe.experts;
  if (experts > most_paired_experts) {
    throw Error(Exit::usage,
                concat("merging compares all pairs of experts, and ", experts,
                       " are more than the ", most_paired_experts, " it does that for"))
        .hint("--remove load:count=...");
  }
  const PairMatrix cosine = weight_cosine(model);
  const std::size_t left = remaining(cosine, threshold, model.moe_layers()[0]->router().choices());
  Sources sources;
  std::vector<std::string> said;
  for (std::size_t l = 0; l < cosine.layer.size(); ++l) {
    sources.push_back(merged(cosine.layer[l], threshold, left));
    for (const Source& s : sources.back()) {
      if (s.of.size() > 1) {
        said.push_back(concat("layer ", model.layer_of(int(l)), ": experts ", numbers_text(s.of),
                              " became one (least cosine ", linkage(cosine.layer[l], s.of, s.of),
                              ")"));
      }
    }
  }
  Edited out{regroup(model, sources, 0, 0).model, {}};
  out.changes.push_back(
      left == std::size_t(experts)
          ? concat("nothing was merged: some layer has no two experts with a cosine of ", threshold,
                   " or more, and all layers have the same number")
          : concat(experts, " experts became ", left,
                   ", as many as the least redundant layer keeps at a cosine of ", threshold));
  out.changes.insert(out.changes.end(), said.begin(), said.end());
  return out;
}

}  // namespace moe
