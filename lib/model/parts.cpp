#include "lib/model/parts.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/mixer_type.h"

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

// "router,experts=1,3;shared" -> router, experts=1,3, shared: a comma in front of a digit parts the
// numbers of experts, any other one parts groups.
std::vector<std::string> words_of(const std::string& trained) {
  std::vector<std::string> out;
  for (const std::string& list : split_list(trained, ";+")) {
    bool first = true;
    for (const std::string& word : split_list(list, ",")) {
      const bool number = !first && (word.empty() || (word[0] >= '0' && word[0] <= '9'));
      if (number)
        out.back() += "," + word;
      else
        out.push_back(word);
      first = false;
    }
  }
  return out;
}

}  // namespace

bool trains_group(const std::string& trained, const std::string& group) {
  const std::vector<std::string> words = words_of(trained);
  return std::ranges::any_of(words, [&](const std::string& word) {
    return word == "all" || word.substr(0, word.find('=')) == group;
  });
}

const std::vector<std::string>& parameter_groups() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> out{"router", "experts", "shared", "latent"};
    for (const std::string& mixer : mixers().names())
      out.push_back(mixer);
    out.emplace_back("cross_attention");
    out.insert(out.end(), {"dense", "norms", "streams", "embedding", "projector"});
    return out;
  }();
  return all;
}

Parts::Parts(const std::string& trained, const std::string& factors, Decoder<float>& model) {
  for (const ModelParameter<float>& p : model.inventory()) {
    group_[p.parameter->name()] = p.group;
    has_.insert(p.group);
  }
  choose(trained, model.config().moe.experts);
  if (!factors.empty())
    weigh(factors, model.config().moe.experts);
}

void Parts::choose(const std::string& trained, int experts) {
  for (const std::string& word : words_of(trained)) {
    if (word == "all")
      all_ = true;
    else
      choose_group(word, experts);
  }
  if (all_ && !trained_.empty()) {
    throw Error(Exit::usage, concat("--train '", trained, "' says all and then less"))
        .hint("all, or the groups that train");
  }
  if (!all_ && trained_.empty())
    throw Error(Exit::usage, "no part of the model would train").hint("--train all");
}

void Parts::choose_group(const std::string& word, int experts) {
  const std::string group = word.substr(0, word.find('='));
  check_group(group);
  trained_.insert(group);
  if (group == word)
    return;
  if (group != "experts") {
    throw Error(Exit::usage,
                concat("only experts have numbers, and '", word, "' gives some to the ", group))
        .hint("--train experts=1,3");
  }
  experts_ = ids_of(word.substr(word.find('=') + 1), experts);
  if (experts_.empty())
    throw Error(Exit::usage, concat("'", word, "' names no expert")).hint("--train experts=1,3");
}

void Parts::weigh(const std::string& factors, int experts) {
  Spec spec("lr-factor:" + factors);
  for (const std::string& group : parameter_groups()) {
    if (!spec.has(group))
      continue;
    check_group(group);
    by_load_ |= group == "experts" && spec.get(group, "") == "load";
    if (group != "experts" || !by_load_)
      factor_[group] = spec.get(group, 1.0, 0.0);
  }
  for (int e = 0; e < experts; ++e) {
    const std::string one = concat("experts.", e);
    if (spec.has(one)) {
      check_group("experts");
      expert_factor_[e] = spec.get(one, 1.0, 0.0);
    }
  }
  spec.done();
}

void Parts::check_group(const std::string& group) const {
  if (std::ranges::find(parameter_groups(), group) == parameter_groups().end())
    no_such("group of parameters", group, parameter_groups());
  if (!has_.contains(group)) {
    throw Error(Exit::usage, concat("this model has no parameters of the group '", group, "'"))
        .hint(concat("it has ", join({has_.begin(), has_.end()})));
  }
}

bool Parts::trains_expert(int e) const {
  return trains("experts") && (experts_.empty() || std::ranges::binary_search(experts_, e));
}

const std::string& Parts::group(const Parameter<float>& p) const {
  return group_.at(p.name());
}

double Parts::expert_factor(int e, const std::vector<std::int64_t>& kept) const {
  if (const auto own = expert_factor_.find(e); own != expert_factor_.end())
    return own->second;
  if (!by_load_) {
    const auto all = factor_.find("experts");
    return all == factor_.end() ? 1 : all->second;
  }
  double sum = 0;
  for (const std::int64_t n : kept)
    sum += double(n);
  const double share = sum > 0 ? double(kept.at(std::size_t(e))) / sum : 0;
  return std::sqrt(share * double(kept.size()));
}

double Parts::factor(const Parameter<float>& p) const {
  const auto at = factor_.find(group(p));
  return at == factor_.end() ? 1 : at->second;
}

}  // namespace moe
