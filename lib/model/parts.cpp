#include "lib/model/parts.h"

#include <algorithm>
#include <set>

#include "lib/core/error.h"

namespace moe {
namespace {

// "experts=1,3" -> 1, 3, sorted
std::vector<int> ids_of(const std::string& text, int experts) {
  std::vector<int> out;
  for (const std::string& word : split(text, ',')) {
    if (word.empty() || word.size() > 8 || word.find_first_not_of("0123456789") != word.npos ||
        std::stoi(word) >= experts) {
      throw Error(Exit::usage, concat("there is no expert '", word, "' among 0 to ", experts - 1))
          .hint("--train experts=0,1");
    }
    out.push_back(std::stoi(word));
  }
  std::ranges::sort(out);
  out.erase(std::ranges::unique(out).begin(), out.end());
  return out;
}

}  // namespace

const std::vector<std::string>& parameter_groups() {
  static const std::vector<std::string> all{"router", "experts", "shared",   "attention",
                                            "dense",  "norms",   "embedding"};
  return all;
}

std::string group_of(const std::string& name) {
  const auto has = [&](std::string_view part) {
    return name.find(part) != name.npos;
  };
  if (has(".moe.router."))
    return "router";
  if (has(".moe.experts."))
    return "experts";
  if (has(".moe.shared"))
    return "shared";
  // the latter never train
  if (has(".attention.") || name.starts_with("fourier_"))
    return "attention";
  if (has(".dense."))
    return "dense";
  if (name.ends_with("norm") || name.ends_with("norm_bias"))
    return "norms";
  if (name == "embedding" || name == "output" || name == "output_bias")
    return "embedding";
  throw Error(Exit::bug, concat("the parameter '", name, "' belongs to no group"));
}

Parts::Parts(const std::string& trained, const std::string& factors, Decoder<float>& model) {
  std::set<std::string> there;
  for (auto* p : model.parameters())
    there.insert(group_of(p->name()));
  const auto known = [&](const std::string& group) {
    if (std::ranges::find(parameter_groups(), group) == parameter_groups().end())
      no_such("group of parameters", group, parameter_groups());
    if (!there.contains(group)) {
      throw Error(Exit::usage, concat("this model has no parameters of the group '", group, "'"))
          .hint(concat("it has ", join({there.begin(), there.end()})));
    }
  };
  for (const std::string& word : split(trained, ';')) {
    if (word == "all") {
      all_ = true;
      continue;
    }
    const std::string group = word.substr(0, word.find('='));
    known(group);
    trained_[group] = true;
    if (group == word)
      continue;
    if (group != "experts") {
      throw Error(Exit::usage,
                  concat("only experts have numbers, and '", word, "' gives some to the ", group))
          .hint("--train experts=1,3");
    }
    experts_ = ids_of(word.substr(word.find('=') + 1), model.config().moe.experts);
    if (experts_.empty())
      throw Error(Exit::usage, concat("'", word, "' names no expert")).hint("--train experts=1,3");
  }
  if (all_ && !trained_.empty()) {
    throw Error(Exit::usage, concat("--train '", trained, "' says all and then less"))
        .hint("all, or the groups that train");
  }
  if (!all_ && trained_.empty())
    throw Error(Exit::usage, "no part of the model would train").hint("--train all");
  if (factors.empty())
    return;
  Spec spec("lr-factor:" + factors);
  for (const std::string& group : parameter_groups()) {
    if (spec.has(group)) {
      known(group);
      factor_[group] = spec.get(group, 1.0, 0.0);
    }
  }
  spec.done();
}

bool Parts::trains_expert(int e) const {
  return trains("experts") && (experts_.empty() || std::ranges::binary_search(experts_, e));
}

double Parts::factor(const std::string& group) const {
  const auto at = factor_.find(group);
  return at == factor_.end() ? 1 : at->second;
}

}  // namespace moe
