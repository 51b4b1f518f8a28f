// What vocabulary.h counts, as tables and findings.
#include "analysis/metric/finding.h"
#include "analysis/metric/verdict.h"
#include "analysis/metric/vocabulary.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double clearly = 1.25;  // times what random routing gives: worth a sentence

}  // namespace

Values VocabularyMetric::layer_values(const std::vector<Judged>& all) {
  Values values;
  for (const auto& [layer, f, by_chance] : all) {
    values["vocab_spec_weighted"].add(f.weighted, by_chance.weighted);
    values["vocab_spec_min_count"].add(f.frequent, by_chance.frequent);
    values["token_uncertainty"].add(f.uncertainty, by_chance.uncertainty);
    values["token_expert_mi_bits"].add(f.mi, by_chance.mi);
    values["vocab_spec_unweighted"].add(f.unweighted, by_chance.unweighted);
    values["token_context_std"].add(f.context_std, by_chance.context_std);
  }
  return values;
}

void VocabularyMetric::summary(Report& r, const std::vector<std::int64_t>& number,
                               const Values& values) const {
  TableBuilder t("vocabulary", "How much the token decides the expert", section::vocabulary);
  t.reading(
       "Specialisation of an id is the share of its occurrences that its favourite expert "
       "takes. Rare ids score high by construction "
       "(seen once: 1), random routing too: compare with the chance values, which know how "
       "often each id was seen. An expert that is popular with every id is the favourite "
       "of every id, so an uneven load alone lifts the first two figures; what is known from "
       "the id is free of that.")
      .chart(Chart::lines);
  t.layers(number);
  t.column("by occurrence")
      .unit("share")
      .meaning("specialisation, every occurrence counting once")
      .of("vocab_spec_weighted", values);
  t.column("frequent ids")
      .unit("share")
      .meaning(concat("mean specialisation of ids seen at least ", min_count_,
                      " times, every id counting once"))
      .of("vocab_spec_min_count", values);
  t.column("known from the id")
      .unit("share")
      .meaning("information of the token id about the expert, over the expert's entropy")
      .of("token_uncertainty", values);
  if (Index(counted_.size()) < shape_.layers()) {
    t.warn(concat("counted in ", counted_.size(), " of ", shape_.layers(),
                  " layers to stay within memory"));
  }
  t.into(r);
}

void VocabularyMetric::more(Report& r, const std::vector<std::int64_t>& number,
                            const Values& values) const {
  TableBuilder t("vocabulary_more", "The same by other definitions", section::vocabulary);
  t.reading(
       "How far a token id decides its expert, each figure under the id of its definition "
       "(docs/metrics.md). Ids seen once have a specialisation of 1 by construction: the chance "
       "values know how often each id was seen.")
      .detail();
  t.layers(number);
  t.column("all ids")
      .unit("share")
      .meaning("mean specialisation, every id counting once")
      .of("vocab_spec_unweighted", values);
  t.column("information")
      .unit("bits")
      .meaning("mutual information of token id and expert")
      .of("token_expert_mi_bits", values)
      .digits(4);
  t.column("deviation")
      .unit("share")
      .meaning("of a frequent id's shares over experts, mean over ids")
      .of("token_context_std", values)
      .digits(4);
  t.into(r);
}

// Why ids seem to have favourites where the id tells nothing; empty where they have none.
static Finding uneven_load(const QuotedTable& t, std::size_t layer) {
  const QuotedCell takes = t.cell("by occurrence", layer);
  const QuotedCell by_chance = t.chance("by occurrence", layer);
  if (!(takes.number() > clearly * by_chance.number()))
    return {};
  return told(" That an id's favourite expert takes ", takes.percent(),
              " of its occurrences in layer ", t.cell("layer", layer),
              " (random routing: ", by_chance.percent(),
              ") is the uneven load, the same for every id.");
}

// Of the layer where the id tells most above chance.
void VocabularyMetric::finding(Report& r) const {
  const QuotedTable t(r, "vocabulary");
  const Column& known = t.column("known from the id");
  std::vector<double> above;
  for (std::size_t l = 0; l < t.rows(); ++l)
    above.push_back(t.numbers(known.name)[l] - known.chance[l]);
  const std::size_t best = largest(above);
  const QuotedCell tells = t.cell(known, best);
  const QuotedCell by_chance = t.chance(known.name, best);
  const QuotedCell layer = t.cell("layer", best);
  const double seen = double(state_[counted_[best]].tokens);
  const Standing s = standing(tells.number(), {by_chance.number(), known.chance_spread[best]},
                              {.tokens = seen, .figures = double(t.rows()), .falls = 1});
  // an id that is seen once tells all there is to know, at random too
  const bool once = t.chance("by occurrence", best).number() > 1 - worth_telling;
  if (once || s.shown == Shown::too_few) {
    return tell(r,
                too_few(seen, "whether the token id tells the expert", once ? no_value : s.needed),
                " Most is known in layer ", layer, ", ", tells.percent(),
                " of what there is to know (random routing: ", by_chance.percent(), ").");
  }
  if (s.shown == Shown::more && tells.number() > clearly * by_chance.number()) {
    return tell(r, "The token id alone tells ", tells.percent(),
                " of what there is to know about the expert in layer ", layer,
                ", the most above chance of all layers (random routing: ", by_chance.percent(),
                ").");
  }
  tell(r, Priority::chance,
       derived("The token id tells no more than random routing would about the expert.",
               {tells.basis()}),
       uneven_load(t, best));
}

bool VocabularyMetric::has_frequent_ids() const {
  for (const State& s : state_) {
    if (std::ranges::any_of(s.ids, [this](const Id& v) { return v.seen >= min_count_; }))
      return true;
  }
  return false;
}

// The largest share that one expert takes alone. Random routing gives a share that large rarely
// where its mean, over all experts, is that much smaller (Markov's inequality).
void VocabularyMetric::alone(Report& r) const {
  const QuotedTable t(r, "exclusive");
  const std::size_t most = largest(t.numbers("alone"));
  const QuotedCell share = t.cell("alone", most);
  if (!has_frequent_ids()) {
    return tell(r, Priority::too_few,
                derived("Too few tokens to judge whether an expert has token ids to itself",
                        {t.basis("alone")}),
                ": no id is seen ", min_count_, " times.");
  }
  const double by_chance = t.chances("alone")[most] * double(t.rows());
  if (share.number() > 0 && share.number() * chance::rarely >= by_chance) {
    return tell(r, "The largest share of the data that one expert takes alone is ", share.percent(),
                " (expert ", t.cell("expert", most), " of layer ", t.cell("layer", most), ").");
  }
  if (share.number() > 0) {
    return tell(r, Priority::chance,
                derived("No expert has more token ids to itself than under random routing.",
                        {t.basis("alone")}));
  }
  tell(r, Priority::chance, derived("No expert has token ids to itself.", {t.basis("alone")}));
}

void VocabularyMetric::keep_top(Ranked& ids) const {
  const auto order = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  const auto end = ids.begin() + std::min(std::ssize(ids), std::ptrdiff_t(top_));
  std::partial_sort(ids.begin(), end, ids.end(), order);
  ids.erase(end, ids.end());
}

// The ids that an expert took most often, and those it takes the largest share of.
void VocabularyMetric::rank(const State& s, std::size_t expert, Ranked& most, Ranked& own) const {
  for (const Id& v : s.ids) {
    const double n = v.chosen[expert];
    if (n > 0)
      most.emplace_back(n, v.id);
    if (n > 0 && v.seen >= min_count_)
      own.emplace_back(n / double(v.seen), v.id);
  }
  keep_top(most);
  keep_top(own);
}

std::string VocabularyMetric::listed(const Ranked& ids, bool shares) const {
  std::string out;
  for (const auto& [value, id] : ids) {
    out += concat(out.empty() ? "" : "  ", pieces_.readable(id), " ",
                  rounded(shares ? 100 * value : value), shares ? "%" : "");
  }
  return out;
}

void VocabularyMetric::top_tokens(Report& r, const std::vector<Judged>& all) const {
  std::vector<std::int64_t> layer, expert;
  std::vector<std::string> occurrence, frequent;
  Values values;
  for (const auto& [l, f, by_chance] : all) {
    for (std::size_t e = 0; e < f.expert.size(); ++e) {
      Ranked most, own;
      rank(state_[l], e, most, own);
      layer.push_back(shape_.number[l]);
      expert.push_back(std::int64_t(e));
      occurrence.push_back(listed(most, false));
      frequent.push_back(listed(own, true));
      values["vocab_spec_expert"].add(f.expert[e] < 0 ? no_value : f.expert[e],
                                      by_chance.expert[e]);
    }
  }
  TableBuilder t("top_tokens", "What every expert reads", section::vocabulary);
  t.reading(
       "By occurrence: the ids an expert took most often, with counts; common ids top every "
       "list. Frequent ids: those it takes the largest share of; a share near K/E is what "
       "random routing gives.")
      .detail();
  t.layers(layer).key("expert", "expert id", expert);
  t.column("by occurrence").unit("tokens").meaning("ids it took most often").values(occurrence);
  t.column("frequent ids")
      .unit("share")
      .meaning(concat("of ids seen at least ", min_count_,
                      " times, those whose occurrences it takes the largest share of"))
      .values(frequent);
  t.column("specialisation")
      .unit("share")
      .meaning("mean specialisation of the ids that prefer this expert")
      .of("vocab_spec_expert", values);
  t.into(r);
}

void VocabularyMetric::coverage(Report& r, const std::vector<Judged>& all) const {
  std::vector<std::int64_t> layer, expert;
  Values values;
  for (const auto& [l, f, by_chance] : all) {
    for (std::size_t e = 0; e < f.alone.size(); ++e) {
      layer.push_back(shape_.number[l]);
      expert.push_back(std::int64_t(e));
      values["load_exclusive_coverage"].add(f.alone[e], by_chance.alone);
    }
  }
  TableBuilder t("exclusive", "What one expert takes alone", section::redundancy);
  t.reading(concat("Share of all tokens whose id (seen at least ", min_count_,
                   " times) goes to this expert by first choice in at least ", percent(alone_),
                   " of its occurrences: the data that would be without its reader if the expert "
                   "were removed. Random routing gives practically 0."))
      .chart(Chart::heatmap)
      .detail();
  t.layers(layer).key("expert", "expert id", expert);
  t.column("alone")
      .unit("share")
      .meaning("share of the tokens that only this expert takes")
      .of("load_exclusive_coverage", values)
      .digits(4);
  t.into(r);
}

void VocabularyMetric::report(Report& r) const {
  if (!any()) {
    return r.warnings.push_back(
        "the trace holds no token ids: vocabulary specialisation is left out");
  }
  std::vector<Judged> all;
  std::vector<std::int64_t> number;
  for (const Index l : counted_) {
    all.push_back({l, figures(std::size_t(l)), chances(std::size_t(l))});
    number.push_back(shape_.number[l]);
  }
  const Values values = layer_values(all);
  summary(r, number, values);
  more(r, number, values);
  top_tokens(r, all);
  finding(r);
  if (!state_[counted_[0]].ranked)
    return;
  coverage(r, all);
  alone(r);
}

}  // namespace moe
