#include "lib/layer/layer_config.h"

#include <algorithm>
#include <charconv>

#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::pair<ExpertKind, const char*> kinds[] = {{ExpertKind::ffn, "ffn"},
                                                        {ExpertKind::zero, "zero"},
                                                        {ExpertKind::copy, "copy"},
                                                        {ExpertKind::constant, "constant"}};

Index number(const std::string& text, const std::string& list) {
  Index n = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (failed != std::errc() || end != text.data() + text.size() || n < 1) {
    throw Error(Exit::usage,
                concat("'", text, "' in the list '", list, "' is not a number of 1 or more"))
        .hint("entries are separated by + and repeated by x: 128x4+64x4");
  }
  return n;
}

// "a*3;b" -> {"a", 3}, {"b", 1}
std::vector<std::pair<std::string, Index>> repeated(const std::string& list) {
  std::vector<std::pair<std::string, Index>> out;
  for (const std::string& entry : split_list(list)) {
    const auto [name, count] = repeated_entry(entry);
    const Index times = number(count, list);
    if (times > 1'000'000) {
      throw Error(Exit::usage, concat("'", entry, "' in the list '", list,
                                      "' repeats more than a million times"));
    }
    out.emplace_back(name, times);
  }
  return out;
}

template <class V, class Name>
std::string shortened(const std::vector<V>& list, const Name& name) {
  std::vector<std::string> out;
  for (std::size_t i = 0, n = 0; i < list.size(); i += n) {
    for (n = 1; i + n < list.size() && list[i + n] == list[i];)
      ++n;
    out.push_back(n > 1 ? concat(name(list[i]), "*", n) : concat(name(list[i])));
  }
  return join(out, ";");
}

}  // namespace

bool LayerConfig::all_ffn() const {
  return std::ranges::all_of(types, [](ExpertKind k) { return k == ExpertKind::ffn; });
}

std::vector<ExpertKind> expert_types_of(const std::string& text) {
  std::vector<ExpertKind> out;
  if (text == "ffn")
    return out;
  for (const auto& [word, times] : repeated(text)) {
    const auto* found =
        std::ranges::find_if(kinds, [&name = word](const auto& k) { return name == k.second; });
    if (found == std::end(kinds)) {
      throw Error(Exit::usage, concat("no type of expert named '", word, "'"))
          .hint("the types are ffn, zero, copy, constant: expert_types=ffnx5+constant+copy+zero");
    }
    out.insert(out.end(), std::size_t(times), found->first);
  }
  return out;
}
std::string list_text(const std::vector<ExpertKind>& types) {
  if (types.empty())
    return "ffn";
  return shortened(types, [](ExpertKind k) { return std::string(kinds[std::size_t(k)].second); });
}
std::vector<Index> widths_of(const std::string& text) {
  std::vector<Index> out;
  if (text == "even")
    return out;
  for (const auto& [word, times] : repeated(text))
    out.insert(out.end(), std::size_t(times), number(word, text));
  return out;
}
std::string list_text(const std::vector<Index>& widths) {
  return widths.empty() ? "even" : shortened(widths, [](Index w) { return concat(w); });
}

namespace {

void refuse(bool when, const std::string& sentence, const std::string& hint) {
  if (when)
    throw Error(Exit::usage, sentence).hint(hint);
}

}  // namespace

void check_experts(const LayerConfig& c) {
  const bool typed = !c.all_ffn();
  refuse(!c.types.empty() && c.types.size() != std::size_t(c.experts),
         concat("expert_types names ", c.types.size(), " experts and the layer has ", c.experts),
         concat("expert_types=ffnx", c.experts));
  refuse(!c.widths.empty() && c.widths.size() != std::size_t(c.experts),
         concat("widths names ", c.widths.size(), " experts and the layer has ", c.experts),
         concat("widths=", c.width, "x", c.experts));
  refuse(typed && std::ranges::find(c.types, ExpertKind::ffn) == c.types.end(),
         "none of the expert_types is ffn, so the layer computes nothing",
         concat("expert_types=ffnx", c.experts - 1, "+zero"));
  refuse(typed && c.weight_on_input,
         "weight_on_input=1 multiplies what an expert gets, and zero, copy and constant experts "
         "are defined on x itself",
         "weight_on_input=0");
  refuse(typed && c.latent_width > 0,
         "latent_width gives experts another width than x has, and zero, copy and constant experts "
         "are defined on x itself",
         "latent_width=0");
  refuse(!typed && (c.zc_tau != 1 || c.zc_capacity || c.zc_exclude_zero),
         "zc_tau, zc_capacity and zc_exclude_zero speak of experts that compute nothing, and every "
         "expert is ffn",
         concat("expert_types=ffnx", c.experts - 1, "+zero"));
  refuse(!(c.zc_tau > 0), concat("zc_tau=", c.zc_tau, " must be above 0"), "zc_tau=0.75");
  refuse(c.zc_exclude_zero && std::ranges::find(c.types, ExpertKind::zero) == c.types.end(),
         "zc_exclude_zero=1 and no expert is of the type zero", "zc_exclude_zero=0");
  refuse(c.zc_capacity && c.capacity == "none",
         "zc_capacity=1 shares out a capacity by type, and capacity is none",
         "capacity={position:factor=1.25}");
}

}  // namespace moe
