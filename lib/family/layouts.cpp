#include "lib/family/layouts.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

bool of_experts(const Joined& j) {
  return j.parts[0].starts_with("moe.experts.");
}

void pack_experts(Names& n, const Packed& p) {
  if (p.change)
    p.change(n);
  std::erase_if(n.joined, of_experts);
  std::vector<std::string> first{"moe.experts.up"};
  if (p.gated)
    first.insert(first.begin(), "moe.experts.gate");
  n.joined.push_back({.name = p.gate_up, .parts = first});
  n.joined.push_back({.name = p.down, .parts = {"moe.experts.down"}});
}

// What stands before "layers.0." in a tensor's name, or nothing.
std::optional<std::string> before_layers(const std::string& tensor,
                                         const std::string& first_layer) {
  for (auto at = tensor.find(first_layer); at != tensor.npos;
       at = tensor.find(first_layer, at + 1)) {
    if (at == 0 || tensor[at - 1] == '.')
      return tensor.substr(0, at);
  }
  return std::nullopt;
}

class Found {
 public:
  Found(const std::vector<std::string>& tensors, Names names)
      : tensors_(tensors), n_(std::move(names)) {}

  // What the file calls a list of layers.
  void find_layers() {
    const auto somewhere = [&](const std::string& layers) {
      return std::ranges::any_of(tensors_, [&](const std::string& tensor) {
        const auto place = before_layers(tensor, layers + "0.");
        return place && has(*place + n_.embedding);
      });
    };
    if (!n_.layers_too.empty() && !somewhere(n_.layers) && somewhere(n_.layers_too))
      n_.layers = n_.layers_too;
  }
  // Where the layers are, told by the embedding where there are several such places.
  void find_prefix() {
    std::set<std::string> places;
    for (const std::string& tensor : tensors_) {
      if (const auto place = before_layers(tensor, n_.layers + "0."))
        places.insert(*place);
    }
    if (places.empty() || places.contains(n_.prefix))
      return;
    std::vector<std::string> embedded;
    for (const std::string& place : places) {
      if (has(place + n_.embedding))
        embedded.push_back(place);
    }
    if (embedded.size() == 1 || places.size() == 1)
      move_to(embedded.size() == 1 ? embedded[0] : *places.begin());
  }
  // false where there is no output matrix
  bool find_head() {
    for (const std::string& name : {n_.output, std::string("lm_head")}) {
      if (has(name + ".weight")) {
        n_.output = name;
        return true;
      }
    }
    return false;
  }
  void find_experts(const Packed& packed) {
    const std::set<std::string_view> below = names_below_layers();
    const auto moved = [&](const std::string& usual, const std::string& other) {
      return !below.contains(usual) && below.contains(other);
    };
    for (const auto& [ours, name] : packed.below) {
      const auto usual = n_.below.find(ours);
      if (moved(usual == n_.below.end() ? std::string() : usual->second, name))
        n_.below[ours] = name;
    }
    if (!packed.correction_bias.empty() && moved(n_.correction_bias, packed.correction_bias))
      n_.correction_bias = packed.correction_bias;
    if (!n_.dense_too.empty() &&
        moved(n_.dense + "down_proj.weight", n_.dense_too + "down_proj.weight"))
      n_.dense = n_.dense_too;
    if (n_.idle == Idle::gates && gates(below) == downs(below))
      n_.idle = Idle::none;
    if (n_.correction_may_lack && !below.contains(n_.correction_bias))
      n_.correction_bias.clear();
    if (!packed.shared.empty() &&
        moved(n_.shared + "down_proj.weight", packed.shared + "down_proj.weight"))
      n_.shared = packed.shared;
    if (below.contains(packed.gate_up) || below.contains(packed.down))
      pack_experts(n_, packed);
  }
  void find_other_names() {
    const std::set<std::string_view> below = names_below_layers();
    for (const auto& [ours, name] : n_.otherwise) {
      const bool here = has(n_.prefix + name) || below.contains(name);
      if (here && ours == "embedding")
        n_.embedding = name;
      else if (here)
        n_.below[ours] = name;
    }
  }
  bool has(const std::string& tensor) const {
    return std::ranges::binary_search(tensors_, tensor);
  }
  Names& names() {
    return n_;
  }

 private:
  // experts with these tensors, of all layers
  static std::ptrdiff_t experts_with(const std::set<std::string_view>& below,
                                     std::string_view end) {
    return std::ranges::count_if(below, [&](std::string_view name) { return name.ends_with(end); });
  }
  std::ptrdiff_t gates(const std::set<std::string_view>& below) const {
    return experts_with(below, n_.gate + ".weight");
  }
  std::ptrdiff_t downs(const std::set<std::string_view>& below) const {
    return experts_with(below, n_.down + ".weight");
  }

  // What wrapped the model wrapped its output as well.
  void move_to(const std::string& prefix) {
    if (prefix.ends_with(n_.prefix)) {
      const std::string wrapped = prefix.substr(0, prefix.size() - n_.prefix.size()) + n_.output;
      if (has(wrapped + ".weight"))
        n_.output = wrapped;
    }
    n_.prefix = prefix;
  }
  std::set<std::string_view> names_below_layers() const {
    std::set<std::string_view> out;
    const std::string start = n_.prefix + n_.layers;
    for (const std::string& tensor : tensors_) {
      const auto end = tensor.find('.', start.size());
      if (tensor.starts_with(start) && end != tensor.npos)
        out.insert(std::string_view(tensor).substr(end + 1));
    }
    return out;
  }

  const std::vector<std::string>& tensors_;
  Names n_;
};

}  // namespace

bool has_packed_layout(const std::string& family) {
  return !rules_of(family).packed.gate_up.empty();
}

Names packed_names(const std::string& family) {
  const FamilyRules& rules = rules_of(family);
  if (family == "moe") {
    throw Error(Exit::usage,
                "no published class holds this model, and the packed layout is that of a class")
        .hint("moe show says which class comes nearest");
  }
  if (!has_packed_layout(family)) {
    throw Error(Exit::usage, concat("transformers holds no packed experts of ", family,
                                    " other than the published ones"))
        .hint("the published layout");
  }
  Names n = rules.names;
  pack_experts(n, rules.packed);
  if (!rules.packed.prefix.empty())
    n.prefix = rules.packed.prefix;
  for (const auto& [ours, name] : rules.packed.below)
    n.below[ours] = name;
  if (!rules.packed.correction_bias.empty())
    n.correction_bias = rules.packed.correction_bias;
  if (!rules.packed.shared.empty())
    n.shared = rules.packed.shared;
  return n;
}

FoundNames names_as_found(const std::string& family, bool tied,
                          const std::vector<std::string>& tensors) {
  const FamilyRules& rules = rules_of(family);
  Found found(tensors, rules.names);
  found.find_layers();
  found.find_prefix();
  found.find_other_names();
  found.find_experts(rules.packed);
  const bool head = found.find_head();
  Names& n = found.names();
  // one embedding, whoever could have two
  if (!n.split_embedding.empty() && !found.has(n.prefix + n.split_embedding)) {
    n.split_embedding = n.embedding;
    n.encoder_embedding = n.embedding;
  }
  // of two tensors that are one, some writers keep the second
  n.embedding_is_output = tied && head && !found.has(n.prefix + n.embedding);
  return {n, !head && !tied};
}

}  // namespace moe
