#include "analysis/compare/compare.h"
#include "analysis/metric/layout.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr const char* comparison = "two traces";

// router_saturation_by_k: a row a layer, a column a k.
Table by_k(const Agreement& a) {
  std::size_t widest = 0;
  for (const LayerAgreement& l : a.layer)
    widest = std::max(widest, l.overlap_k.size());
  Table t{"agreement_by_k",
          "Same experts among the first k choices",
          "The first k choices of both, over the tokens that have k in the reference. Random "
          "routing: k/E. The first choice settles last where the best two are nearly tied.",
          widest <= 8 ? Chart::lines : Chart::none,
          {},
          comparison,
          false,
          {}};
  std::vector<std::int64_t> number;
  for (const LayerAgreement& l : a.layer)
    number.push_back(l.number);
  t.columns.push_back(column({"layer", "", "absolute layer number", ""}, number));
  for (std::size_t k = 1; k <= widest; ++k) {
    std::vector<double> share, null;
    for (const LayerAgreement& l : a.layer) {
      const bool has = k <= l.overlap_k.size();
      share.push_back(has ? l.overlap_k[k - 1] / double(l.tokens_k[k - 1]) : no_value);
      null.push_back(has ? double(k) / l.experts : no_value);
    }
    const std::string name = concat("k=", k);
    t.columns.push_back(column(
        {name.c_str(), "share", "of the reference's first k choices, among the trace's first k",
         "router_saturation_by_k"},
        share, null));
  }
  return t;
}

Table by_margin(const Agreement& a) {
  std::vector<std::int64_t> number, choices;
  std::vector<std::string> bin;
  std::vector<double> lost, null;
  const auto& m = a.margins;
  for (const LayerAgreement& l : a.layer) {
    for (std::size_t i = 0; i < l.bin_choices.size(); ++i) {
      number.push_back(l.number);
      choices.push_back(l.bin_choices[i]);
      bin.push_back(i == 0          ? concat("below ", m[0])
                    : i == m.size() ? concat("from ", m.back())
                                    : concat(m[i - 1], " to ", m[i]));
      lost.push_back(double(l.bin_lost[i]) / double(l.bin_choices[i]));
      null.push_back(1 - double(l.choices) / double(l.tokens) / l.experts);
    }
  }
  return {"flips_by_margin_and_layer",
          "The same, layer by layer",
          "",
          Chart::none,
          {column({"layer", "", "absolute layer number", ""}, number),
           column({"margin", "probability", "of the reference where it is recorded", ""}, bin),
           column({"choices", "", "of the reference at this margin", ""}, choices),
           column({"lost", "share", "of them, not made by the other", "flip_rate_by_margin", 4},
                  lost, null)},
          comparison,
          true,
          {}};
}

Table whole(const Agreement& a) {
  std::vector<std::string> what, id;
  std::vector<double> value;
  const std::pair<const char*, const char*> names[] = {
      {"flip_token_rate", "tokens with another set of experts in any layer"},
      {"flip_layers_mean", "layers with another set, a token"},
      {"flip_rate", "choices of the reference not made"}};
  for (const MetricValue& v : a.values()) {
    for (const auto& [name, about] : names) {
      if (v.id == name) {
        what.push_back(about);
        id.push_back(name);
        value.push_back(v.values[0]);
      }
    }
  }
  return {"flips",
          "How much differs in all",
          "",
          Chart::none,
          {column({"what", "", "", ""}, what),
           column({"value", "", "0 where the two route alike", "", 4}, value),
           column({"id", "", "definition", ""}, id)},
          comparison,
          false,
          {}};
}

std::string shortened(const std::string& hash) {
  return hash.substr(0, 12) + (hash.size() > 12 ? "…" : "");
}

}  // namespace

std::string not_the_same_text(const NamedTrace& a, const NamedTrace& b) {
  if (const std::string why = incomparable(*a.trace, *b.trace); !why.empty())
    return why;
  if (a.corpus.empty() || b.corpus.empty() || a.corpus == b.corpus)
    return "";
  return concat("the hash of the token ids is ", shortened(a.corpus), " in '", a.name, "' and ",
                shortened(b.corpus), " in '", b.name, "': they are of different text");
}

Report compare_against(const NamedTrace& a, const NamedTrace& b, const AnalyzeOptions& o) {
  if (const std::string why = not_the_same_text(a, b); !why.empty()) {
    throw Error(Exit::input, concat("'", a.name, "' cannot be held against '", b.name,
                                    "' token by token: ", why))
        .hint(concat("trace both on the same data with the same length; or without --against, side "
                     "by side: moe report ",
                     a.name, " ", b.name));
  }
  AgreeOptions how;
  how.window = o.window;
  how.progress = o.progress;
  how.bootstrap = o.bootstrap;
  const Agreement agreement = agree(*a.trace, *b.trace, how);
  Report r;
  r.title = concat(a.name, " against ", b.name);
  r.facts = {{"trace", a.name},
             {"reference", b.name},
             {"tokens", std::to_string(a.trace->tokens())},
             {"MoE layers", std::to_string(a.trace->header().layers.size())}};
  if (a.corpus.empty() || b.corpus.empty()) {
    r.warnings.push_back(
        "a trace has no hash of its token ids: that the text is the same was checked token by "
        "token, where ids are recorded");
  }
  agreement.report(r);
  if (!r.tables.empty()) {
    r.tables.insert(r.tables.begin() + 1, by_k(agreement));
    r.tables.insert(r.tables.begin(), whole(agreement));
    if (!agreement.margins.empty())
      r.tables.push_back(by_margin(agreement));
  }
  for (Table& t : r.tables)
    t.section = comparison;
  for (const TraceLayer& l : a.trace->header().layers)
    r.layers.push_back(l.index);
  add_side_by_side(r, {b, a}, o);
  return r;
}

}  // namespace moe
