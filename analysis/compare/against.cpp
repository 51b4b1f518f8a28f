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
  std::vector<std::int64_t> number;
  for (const LayerAgreement& l : a.layer) {
    widest = std::max(widest, l.overlap_k.size());
    number.push_back(l.number);
  }
  TableBuilder t("agreement_by_k", "Same experts among the first k choices", comparison);
  t.reading(
       "The first k choices of both, over the tokens that have k in the reference. Random "
       "routing: k/E. The first choice settles last where the best two are nearly tied.")
      .chart(widest <= 8 ? Chart::lines : Chart::none);
  t.layers(number);
  for (std::size_t k = 1; k <= widest; ++k) {
    Values::Rows rows;
    for (const LayerAgreement& l : a.layer) {
      const bool has = k <= l.overlap_k.size();
      rows.add(has ? l.overlap_k[k - 1] / double(l.tokens_k[k - 1]) : no_value,
               has ? double(k) / l.experts : no_value);
    }
    t.column(concat("k=", k))
        .unit("share")
        .meaning("of the reference's first k choices, among the trace's first k")
        .of("router_saturation_by_k")
        .rows(rows);
  }
  return t.take();
}

Table by_margin(const Agreement& a) {
  std::vector<std::int64_t> number, choices;
  std::vector<std::string> bin;
  Values values{"flip_rate_by_margin"};
  for (const LayerAgreement& l : a.layer) {
    for (std::size_t i = 0; i < l.bin_choices.size(); ++i) {
      number.push_back(l.number);
      choices.push_back(l.bin_choices[i]);
      bin.push_back(margin_bin(a.margins, i));
      values["flip_rate_by_margin"].add(double(l.bin_lost[i]) / double(l.bin_choices[i]),
                                        1 - double(l.choices) / double(l.tokens) / l.experts);
    }
  }
  TableBuilder t("flips_by_margin_and_layer", "The same, layer by layer", comparison);
  t.detail().layers(number);
  t.column("margin")
      .unit("probability")
      .meaning("of the reference where it is recorded")
      .values(bin);
  t.key("choices", "of the reference at this margin", choices);
  t.column("lost")
      .unit("share")
      .meaning("of them, not made by the other")
      .of("flip_rate_by_margin", values)
      .digits(4);
  return t.take();
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
             {"tokens", concat(a.trace->tokens())},
             {"MoE layers", concat(a.trace->header().layers.size())}};
  if (a.corpus.empty() || b.corpus.empty()) {
    r.warnings.push_back(
        "a trace has no hash of its token ids: that the text is the same was checked token by "
        "token, where ids are recorded");
  }
  agreement.report(r);
  if (!r.tables.empty()) {
    r.tables.insert(r.tables.begin() + 2, by_k(agreement));  // behind the agreement by layer
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
