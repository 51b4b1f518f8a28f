#include <algorithm>
#include <numeric>
#include <optional>

#include "analysis/compare/compare.h"
#include "analysis/compare/matching.h"
#include "analysis/compare/origin.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/verdict.h"
#include "analysis/statistics/paired.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr const char* comparison = "two traces";
constexpr const char* flips_by_expert_id = "flips_by_expert";

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
               has ? l.by_chance().overlap_k.at(k - 1) : no_value);
    }
    t.column(concat("k=", k))
        .unit("share")
        .meaning("of the reference's first k choices, among the trace's first k")
        .of(a.id("router_saturation_by_k"))
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
                                        l.tokens ? 1 - l.by_chance().common : no_value);
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
      .of(a.id("flip_rate_by_margin"))
      .rows(values.at("flip_rate_by_margin"))
      .digits(4);
  return t.take();
}

std::string shortened(const std::string& hash) {
  return hash.substr(0, 12) + (hash.size() > 12 ? "…" : "");
}

// What is known of the experts of both before any figure.
struct Pair {
  Kinship kin;
  bool match;  // the trace's experts are renamed
  std::vector<LayerMatch> layer;
  SimulatedAgreement by_chance;
};

Pair pair_up(const TraceSource& a, const TraceSource& b, const AnalyzeOptions& o, Experts experts) {
  Pair out;
  out.kin = kinship(a.header(), b.header());
  const bool foreign = out.kin == Kinship::strangers || out.kin == Kinship::unknown;
  out.match = foreign && experts == Experts::matched_where_foreign;
  MatchOptions how;
  how.window = o.window;
  how.memory = o.memory;
  out.layer = match_experts(a, b, how);
  out.by_chance = simulate_agreement(a, b, how);
  return out;
}

Agreement agreement_of(const TraceSource& a, const TraceSource& b, const Pair& pair,
                       const AgreeOptions& how) {
  if (!pair.match)
    return agree(a, b, how);
  Agreement out = agree(MatchedTrace(a, pair.layer), b, how);
  out.matched = true;
  for (std::size_t l = 0; l < out.layer.size(); ++l)
    out.layer[l].simulated = pair.by_chance.matched[l];
  return out;
}

std::int64_t experts_in_use(const LayerMatch& m) {
  return std::ranges::count_if(m.chosen, [](std::int64_t n) { return n > 0; });
}

std::int64_t keep_their_id(const LayerMatch& m) {
  std::int64_t out = 0;
  for (std::size_t e = 0; e < m.to.size(); ++e)
    out += m.chosen[e] > 0 && m.to[e] == int(e);
  return out;
}

Table partition(const TraceSource& a, const Pair& pair, bool first_choices_known) {
  std::vector<std::int64_t> number, used, kept;
  Values values;
  for (std::size_t l = 0; l < pair.layer.size(); ++l) {
    const LayerMatch& m = pair.layer[l];
    number.push_back(a.header().layers[l].index);
    used.push_back(experts_in_use(m));
    kept.push_back(keep_their_id(m));
    values["expert_partition_ami"].add(m.tokens ? m.ami : no_value,
                                       pair.by_chance.partition[l].ami);
    values["expert_partition_ari"].add(m.tokens ? m.ari : no_value,
                                       pair.by_chance.partition[l].ari);
  }
  TableBuilder t("expert_partition", "Do the two cut the tokens alike?", comparison);
  t.reading(
      "First choices of both as two ways to sort the same tokens, whatever the experts are called: "
      "1 = the same groups of tokens, 0 = nothing in common. Chance: the reference's tokens in "
      "another order. How many experts keep their id in the best one-to-one matching says whether "
      "ids mean the same in both.");
  t.layers(number);
  if (first_choices_known) {
    t.column("mutual information")
        .meaning("adjusted for what groups of these sizes share at random (AMI)")
        .of("expert_partition_ami", values);
    t.column("pairs of tokens")
        .meaning("adjusted Rand index: pairs that are together in both (ARI)")
        .of("expert_partition_ari", values);
  }
  t.key("experts", "of the trace, with at least one token", used);
  t.key("keep their id", "of them, in the best matching", kept);
  return t.take();
}

Table matches(const TraceSource& a, const Pair& pair) {
  std::vector<std::int64_t> layer, expert, to, together;
  std::vector<double> share;
  for (std::size_t l = 0; l < pair.layer.size(); ++l) {
    const LayerMatch& m = pair.layer[l];
    for (std::size_t e = 0; e < m.to.size(); ++e) {
      layer.push_back(a.header().layers[l].index);
      expert.push_back(std::int64_t(e));
      to.push_back(m.to[e]);
      together.push_back(m.together[e]);
      share.push_back(m.chosen[e] ? double(m.together[e]) / double(m.chosen[e]) : no_value);
    }
  }
  TableBuilder t("expert_matches", "Which expert is which", comparison);
  t.reading(
       "One to one in every layer, so that as many choices as possible are common. Noise is "
       "matched "
       "as well: what the experts of a layer share beyond chance is in the tables above.")
      .detail();
  t.layers(layer).key("expert", "of the trace", expert).key("is", "of the reference", to);
  t.column("together").unit("tokens").meaning("tokens that chose both").values(together);
  t.column("share").unit("share").meaning("of the expert's tokens").values(share);
  return t.take();
}

double share_of(const std::vector<std::int64_t>& counts, int expert) {
  const double all = double(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  return all > 0 ? double(counts[std::size_t(expert)]) / all : no_value;
}

// Who takes how much in both, once it is known which expert is which.
Table loads(const TraceSource& a, const Pair& pair) {
  std::vector<std::int64_t> layer, expert;
  std::vector<double> mine, theirs, ratio;
  for (std::size_t l = 0; l < pair.layer.size(); ++l) {
    const LayerMatch& m = pair.layer[l];
    for (int e = 0; e < int(m.to.size()); ++e) {
      const auto from = std::ranges::find(m.to, e) - m.to.begin();
      layer.push_back(a.header().layers[l].index);
      expert.push_back(e);
      mine.push_back(share_of(m.chosen, pair.match ? int(from) : e));
      theirs.push_back(share_of(m.reference, e));
      ratio.push_back(mine.back() / theirs.back());
    }
  }
  TableBuilder t("load_ratio", "Load of every expert, over that of the reference", comparison);
  t.reading(concat("Shares of the layer's choices, by the experts of the reference",
                   pair.match ? ", each beside the expert of the trace that is matched to it" : "",
                   ". 1: as much as in the reference; random routing gives 1, for then both are "
                   "even."))
      .chart(Chart::heatmap);
  t.layers(layer).key("expert", "of the reference", expert);
  t.column("load")
      .unit("x the reference's")
      .meaning("share of the trace's expert over that of the reference's")
      .of(pair.match ? "load_ratio_matched" : "load_ratio")
      .values(ratio)
      .chance(1)
      .around_chance();
  t.column("in the trace").unit("share").meaning("of the layer's choices").values(mine).digits(4);
  t.column("in the reference")
      .unit("share")
      .meaning("of the layer's choices")
      .values(theirs)
      .digits(4);
  return t.take();
}

// Whose choices changed: every expert of the reference.
Table flips_by_expert(const Agreement& a) {
  std::vector<std::int64_t> layer, expert, choices, lost, gained;
  Values::Rows share;
  for (const LayerAgreement& l : a.layer) {
    for (std::size_t e = 0; e < l.expert_choices.size(); ++e) {
      layer.push_back(l.number);
      expert.push_back(std::int64_t(e));
      choices.push_back(l.expert_choices[e]);
      lost.push_back(l.expert_lost[e]);
      gained.push_back(l.expert_gained[e]);
      share.add(double(lost.back()) / double(choices.back()),
                l.tokens ? 1 - l.by_chance().common : no_value);
    }
  }
  TableBuilder t(flips_by_expert_id, "Where the two differ: whose choices", comparison);
  t.reading(
       "Of the reference's choices of an expert, the share that the other did not make. The fewer "
       "choices, the less a share says: the counts stand beside it.")
      .chart(Chart::heatmap)
      .detail();
  t.layers(layer).key("expert", "of the reference", expert);
  t.column("lost")
      .unit("share")
      .meaning("of the reference's choices of the expert, not made by the other")
      .of(a.id("flip_rate_by_expert"))
      .rows(share)
      .digits(4);
  t.column("choices").meaning("of the expert in the reference").values(choices);
  t.column("lost choices").meaning("of them, not made by the other").values(lost);
  t.column("new choices")
      .meaning("of the expert in the other, not in the reference")
      .values(gained);
  return t.take();
}

// The expert whose choices changed beyond the others of its layer most surely; of as many experts
// as there are one is extreme by chance, so the bounds are Bonferroni's.
void about_experts(Report& r, const Agreement& a) {
  const QuotedTable t(r, flips_by_expert_id);
  constexpr double error = 0.05;
  constexpr int many = 999;  // degrees of freedom: next to the normal distribution
  const double z =
      statistics::student_quantile(error / double(std::max<std::size_t>(1, t.rows())), many);
  std::size_t row = 0;
  std::optional<std::size_t> most;
  double beyond = 0;
  for (const LayerAgreement& l : a.layer) {
    const double whole = double(l.choices - l.common) / double(l.choices);
    for (std::size_t e = 0; e < l.expert_choices.size(); ++e, ++row) {
      const double n = double(l.expert_choices[e]);
      const double above =
          n > 0 ? statistics::wilson(double(l.expert_lost[e]), n, z).first - whole : 0;
      if (above > beyond) {
        beyond = above;
        most = row;
      }
    }
  }
  if (!most)
    return tell(r, "No expert's choices changed beyond those of its layer.");
  tell(r, "The choices of expert ", t.cell("expert", *most), " of layer ", t.cell("layer", *most),
       " changed most: ", t.cell("lost", *most).percent(), " of its ", t.cell("choices", *most),
       " choices in the reference are not made by the other (two random routings: ",
       t.chance("lost", *most).percent(), ").");
}

// What was done about the ids, before any other sentence.
Finding about_ids(const Report& r, const TraceSource& a, const TraceSource& b, const Pair& pair) {
  const QuotedTable t(r, "expert_partition");
  std::int64_t used = 0;
  std::int64_t kept = 0;
  for (const LayerMatch& m : pair.layer) {
    used += experts_in_use(m);
    kept += keep_their_id(m);
  }
  const Finding counted = derived(concat(kept, " of ", used, " keep their id"),
                                  {t.basis("keep their id"), t.basis("experts")});
  if (pair.match) {
    return told(pair.kin == Kinship::strangers
                    ? concat("The two are ", kinship_text(a.header(), b.header()),
                             ": their expert ids mean nothing to each other. ")
                    : "Whether the two share an origin is not recorded, so their expert ids may "
                      "mean nothing to each other. ",
                "The experts of each layer were matched one to one before they were compared (",
                counted, ").");
  }
  if (pair.kin == Kinship::strangers || pair.kin == Kinship::unknown) {
    return told("Experts are compared by their ids, as asked, although the two ",
                pair.kin == Kinship::strangers ? "are different trainings" : "may share no origin",
                "; in the best matching ", counted, ".");
  }
  return told("Expert ids mean the same in both (", kinship_text(a.header(), b.header()),
              "); in the best matching ", counted, ".");
}

// Of the layer whose groups are most alike above chance.
void about_partition(Report& r, const Pair& pair) {
  const QuotedTable t(r, "expert_partition");
  const Column& ami = t.column("mutual information");
  const std::size_t best = largest(t.numbers(ami.name));
  const double seen = double(pair.layer[best].tokens);
  const Standing s =
      standing(t.numbers(ami.name)[best], {ami.chance.at(best), ami.chance_spread.at(best)},
               {.tokens = seen, .figures = double(t.rows())});
  const Finding most = told(t.cell(ami, best).figure(3), " in layer ", t.cell("layer", best),
                            " (tokens in another order: ", t.chance(ami.name, best).figure(3), ")");
  if (s.shown == Shown::too_few) {
    return tell(r, too_few(seen, "whether the two cut the tokens alike", s.needed),
                " The adjusted mutual information of first choices is at most ", most, ".");
  }
  tell(r,
       s.shown == Shown::more
           ? "Whatever the experts are called, the two sort tokens most alike with an adjusted "
             "mutual information of "
           : "The two sort tokens into unrelated groups: the adjusted mutual information of first "
             "choices is at most ",
       most, ".");
}

std::vector<std::pair<std::string, std::string>> facts_of(const NamedTrace& a, const NamedTrace& b,
                                                          const Pair& pair) {
  return {{"trace", a.name},
          {"reference", b.name},
          {"tokens", concat(a.trace->tokens())},
          {"MoE layers", concat(a.trace->header().layers.size())},
          {"origin", kinship_text(a.trace->header(), b.trace->header())},
          {"experts", pair.match ? "matched one to one" : "by their ids"}};
}

// To the tables and findings of the agreement.
void add_matching(Report& r, const NamedTrace& a, const NamedTrace& b, const Pair& pair,
                  const Agreement& agreement) {
  const bool known = agreement.first_choices_known();
  if (known)
    r.tables.insert(r.tables.begin() + 2, by_k(agreement));  // behind the agreement by layer
  r.tables.insert(r.tables.begin() + 2, partition(*a.trace, pair, known));
  if (!agreement.margins.empty())
    r.tables.push_back(by_margin(agreement));
  r.tables.push_back(flips_by_expert(agreement));
  about_experts(r, agreement);
  r.tables.push_back(loads(*a.trace, pair));
  r.tables.push_back(matches(*a.trace, pair));
  if (known)
    about_partition(r, pair);
  r.findings.insert(r.findings.begin(), about_ids(r, *a.trace, *b.trace, pair));
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

Report compare_against(const NamedTrace& a, const NamedTrace& b, const AnalyzeOptions& o,
                       Experts experts) {
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
  const Pair pair = pair_up(*a.trace, *b.trace, o, experts);
  const Agreement agreement = agreement_of(*a.trace, *b.trace, pair, how);
  Report r;
  r.title = concat(a.name, " against ", b.name);
  r.facts = facts_of(a, b, pair);
  if (a.corpus.empty() || b.corpus.empty()) {
    r.warnings.push_back(
        "a trace has no hash of its token ids: that the text is the same was checked token by "
        "token, where ids are recorded");
  }
  agreement.report(r);
  if (!r.tables.empty())
    add_matching(r, a, b, pair, agreement);
  for (Table& t : r.tables)
    t.section = comparison;
  for (const TraceLayer& l : a.trace->header().layers)
    r.layers.push_back(l.index);
  add_side_by_side(r, {b, a}, o);
  return r;
}

}  // namespace moe
