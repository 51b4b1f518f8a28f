// Which experts take which token ids, counted in all choices and in first choices; and what one
// expert takes alone.
#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "analysis/metric/chance.h"
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/pieces.h"

namespace moe {
namespace {

struct Id {  // one token id in one layer
  std::uint32_t id = 0;
  std::int64_t seen = 0;
  std::vector<std::uint32_t> chosen, first;  // (E)

  std::size_t favourite() const {
    return std::size_t(std::max_element(chosen.begin(), chosen.end()) - chosen.begin());
  }
  double specialisation() const {
    return double(chosen[favourite()]) / double(seen);
  }
};

class Vocabulary final : public Metric {
 public:
  Vocabulary(Spec& spec, const TraceSource& trace, const AnalyzeOptions& options)
      : shape_(trace),
        min_count_(spec.get("min_count", 10, 1)),
        top_(spec.get("top", 8, 1)),
        alone_(spec.get("alone", 0.9, 0.0)),
        pieces_(trace.header()),
        state_(shape_.experts.size()) {
    // Where ids x experts of every layer would not fit, fewer layers are counted, evenly spread.
    const double ids =
        std::min(double(trace.header().vocab_size ? trace.header().vocab_size : 0xFFFFFFFFu),
                 double(trace.tokens()));
    const double layer = ids * (8.0 * shape_.max_experts() + 96);
    const Index fit =
        std::max<Index>(1, Index(std::min(1e6, double(options.memory) / std::max(1.0, layer))));
    counted_ = shown_layers(shape_.layers(), fit);
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    if (!std::binary_search(counted_.begin(), counted_.end(), l))
      return;
    State& s = state_[std::size_t(l)];
    const std::size_t experts = std::size_t(shape_.experts[std::size_t(l)]);
    const LayerChoices& c = w.layer[std::size_t(l)];
    for (std::size_t i = 0; i < w.valid.size(); ++i) {
      const Index t = w.valid[i];
      if (i + 8 < w.valid.size())
        s.fetch(w.rows.token_id[std::size_t(w.valid[i + 8])]);
      const std::uint32_t id = w.rows.token_id[std::size_t(t)];
      if (id == withheld_token)
        continue;
      Id& v = s.ids[s.at(id, experts)];
      ++v.seen;
      ++s.tokens;
      for (const int e : c.of(t)) {
        ++v.chosen[std::size_t(e)];
        ++s.assignments;
      }
      if (c.first(t) >= 0)
        ++v.first[std::size_t(c.first(t))];
    }
  }

  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  struct State {
    // where ids below 65,536 are in `ids`, + 1; 0 = not seen yet
    std::vector<std::uint32_t> low;
    std::unordered_map<std::uint32_t, std::size_t> row;  // where the others are
    std::vector<Id> ids;                                 // in order of first sight
    std::size_t at(std::uint32_t id, std::size_t experts) {
      constexpr std::uint32_t few = 65536;
      if (id < few && id >= low.size())
        low.resize(std::min<std::size_t>(few, 2 * std::size_t(id) + 256), 0);
      if (id < few && low[id])
        return low[id] - 1;
      const auto next = ids.size();
      if (id >= few) {
        if (const auto [found, fresh] = row.try_emplace(id, next); !fresh)
          return found->second;
      } else {
        low[id] = std::uint32_t(next + 1);
      }
      ids.push_back(
          {id, 0, std::vector<std::uint32_t>(experts, 0), std::vector<std::uint32_t>(experts, 0)});
      return next;
    }
    // the counts of an id lie anywhere: those of a token to come are brought near
    void fetch(std::uint32_t id) const {
      if (id >= low.size() || !low[id])
        return;
      const Id& v = ids[low[id] - 1];
      for (std::size_t e = 0; e < std::min<std::size_t>(v.chosen.size(), 256); e += 16) {
        __builtin_prefetch(&v.chosen[e], 1);
        __builtin_prefetch(&v.first[e], 1);
      }
    }
    std::int64_t tokens = 0, assignments = 0;
  };
  struct Figures {
    double unweighted = no_value, weighted = no_value, frequent = 0, mi = no_value,
           uncertainty = no_value, context_std = 0;
    std::vector<double> expert;  // (E) vocab_spec_expert
    std::vector<double> alone;   // (E) load_exclusive_coverage
  };
  Figures figures(std::size_t l) const;
  // P(one expert is the first choice in at least `alone` of so many occurrences)
  double first_tail(std::int64_t count, double experts) const;
  struct Chances {
    chance::Value unweighted, weighted, frequent{0, 0}, mi, uncertainty, context_std{0, 0};
    double alone = 0;            // load_exclusive_coverage of one expert
    std::vector<double> expert;  // (E) vocab_spec_expert
  };
  struct Told {  // all there is to say of one layer, by its figures and what chance gives
    Index layer;
    Figures figures;
    Chances chances;
  };
  // by experts and choices: layers of one shape share them
  using LabelsOf = std::map<std::pair<int, int>, chance::Labels>;
  Chances chances(std::size_t l, LabelsOf&) const;
  bool any() const {
    return !counted_.empty() && !state_[std::size_t(counted_[0])].ids.empty();
  }
  void summary(Report&, const std::vector<Told>&) const;
  void top_tokens(Report&, const std::vector<Told>&) const;
  void coverage(Report&, const std::vector<Told>&) const;
  std::string listed(const std::vector<std::pair<double, std::uint32_t>>& best, bool shares) const;

  Shape shape_;
  int min_count_, top_;
  double alone_;
  Pieces pieces_;
  std::vector<Index> counted_;
  std::vector<State> state_;
};

Vocabulary::Figures Vocabulary::figures(std::size_t l) const {
  const State& s = state_[l];
  const std::size_t experts = std::size_t(shape_.experts[l]);
  Figures f;
  f.expert.assign(experts, 0);
  f.alone.assign(experts, 0);
  if (s.ids.empty()) {
    f.expert.assign(experts, -1);
    return f;
  }
  std::vector<std::int64_t> own(experts, 0);
  Counts joint(Index(s.ids.size()), Index(experts));
  double sum = 0;
  double most = 0;
  double frequent = 0;
  double spread = 0;
  std::int64_t often = 0;
  for (std::size_t i = 0; i < s.ids.size(); ++i) {
    const Id& v = s.ids[i];
    std::copy(v.chosen.begin(), v.chosen.end(), joint.row(Index(i)).begin());
    const double spec = v.specialisation();
    sum += spec;
    most += double(v.chosen[v.favourite()]);
    f.expert[v.favourite()] += spec;
    ++own[v.favourite()];
    if (v.seen < min_count_)
      continue;
    ++often;
    frequent += spec;
    const double all = double(std::accumulate(v.chosen.begin(), v.chosen.end(), std::uint64_t{0}));
    const double mean = 1 / double(experts);
    double square = 0;
    for (const std::uint32_t c : v.chosen)
      square += (double(c) / all - mean) * (double(c) / all - mean) / double(experts);
    spread += all > 0 ? std::sqrt(square) : 0;
    for (std::size_t e = 0; e < experts; ++e) {
      if (double(v.first[e]) >= alone_ * double(v.seen) && v.first[e])
        f.alone[e] += double(v.seen) / double(s.tokens);
    }
  }
  for (std::size_t e = 0; e < experts; ++e)
    f.expert[e] = own[e] ? f.expert[e] / double(own[e]) : -1;
  f.unweighted = sum / double(s.ids.size());
  f.weighted = most / double(s.tokens);
  if (often) {
    f.frequent = frequent / double(often);
    f.context_std = spread / double(often);
  }
  f.mi = mutual_information_bits(joint);
  const double h = entropy_bits(column_sums(joint));
  f.uncertainty = h > 0 ? f.mi / h : 0;
  return f;
}

// How often an id was seen decides what chance gives.
Vocabulary::Chances Vocabulary::chances(std::size_t l, LabelsOf& known) const {
  const State& s = state_[l];
  const int experts = shape_.experts[l];
  const double e = experts;
  const double ids = double(s.ids.size());
  const double tokens = double(s.tokens);
  const int k = whole_choices(double(s.assignments) / tokens, experts);
  chance::Labels& label = known.try_emplace({experts, k}, experts, k).first->second;
  std::map<std::int64_t, std::int64_t> often;  // occurrences -> ids with so many
  for (const Id& v : s.ids)
    ++often[v.seen];
  Chances c;
  const auto add = [](chance::Value& sum, const chance::Value& v, double weight, double n) {
    sum.mean += weight * n * v.mean;
    sum.spread += weight * weight * n * v.spread * v.spread;
  };
  for (auto* sum : {&c.unweighted, &c.weighted})
    *sum = {0, 0};
  std::vector<std::int64_t> seen;
  std::vector<double> prefer(std::size_t(experts), 0);
  std::vector<double> taken(std::size_t(experts), 0);
  double frequent = 0;
  for (const auto& [count, n] : often)
    frequent += count >= min_count_ ? double(n) : 0;
  for (const auto& [count, n] : often) {
    const chance::Value share = label.share(count);
    add(c.unweighted, share, 1 / ids, double(n));
    add(c.weighted, share, double(count) / tokens, double(n));
    if (count >= min_count_) {
      add(c.frequent, share, 1 / frequent, double(n));
      add(c.context_std, label.deviation(count), 1 / frequent, double(n));
      c.alone += first_tail(count, e) * double(count) / tokens * double(n);
    }
    const chance::Label& near = label.nearest(count);
    for (std::size_t i = 0; i < prefer.size(); ++i) {
      prefer[i] += double(n) * near.favourite[i];
      taken[i] += double(n) * near.favourite[i] * near.favourite_share[i];
    }
    seen.insert(seen.end(), std::size_t(n), count);
  }
  for (auto* sum : {&c.unweighted, &c.weighted, &c.frequent, &c.context_std})
    sum->spread = std::sqrt(sum->spread);
  for (std::size_t i = 0; i < prefer.size(); ++i)
    c.expert.push_back(prefer[i] > 0 ? taken[i] / prefer[i] : no_value);
  c.mi = label.mi_bits(seen);
  const double h = label.entropy(s.tokens).mean;
  c.uncertainty = h > 0 ? chance::Value{c.mi.mean / h, c.mi.spread / h} : chance::Value{0, 0};
  return c;
}

double Vocabulary::first_tail(std::int64_t count, double e) const {
  if (count > 4096 || e <= 1)
    return e <= 1;
  double tail = 0;
  const double n = double(count);
  for (double x = std::ceil(alone_ * n); x <= n; ++x) {
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(x + 1) - std::lgamma(n - x + 1) -
                     x * std::log(e) + (n - x) * std::log1p(-1 / e));
  }
  return tail;
}

std::vector<MetricValue> Vocabulary::values() const {
  if (!any())
    return {};
  std::map<std::string, std::vector<double>> v;
  std::vector<std::vector<double>> expert, alone;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Figures f = figures(l);
    v["vocab_spec_unweighted"].push_back(f.unweighted);
    v["vocab_spec_weighted"].push_back(f.weighted);
    v["vocab_spec_min_count"].push_back(f.frequent);
    v["token_expert_mi_bits"].push_back(f.mi);
    v["token_uncertainty"].push_back(f.uncertainty);
    v["token_context_std"].push_back(f.context_std);
    expert.push_back(f.expert);
    alone.push_back(f.alone);
  }
  std::vector<MetricValue> out{per_layer("vocab_spec_expert", expert),
                               per_layer("load_exclusive_coverage", alone)};
  for (const auto& [id, values] : v)
    out.push_back(per_layer(id.c_str(), values));
  return out;
}

void Vocabulary::summary(Report& r, const std::vector<Told>& told) const {
  std::vector<std::int64_t> number;
  std::vector<double> v[6];
  Nulls c[6];
  for (const auto& [l, f, null] : told) {
    number.push_back(shape_.number[std::size_t(l)]);
    const double mine[] = {f.weighted, f.frequent,   f.uncertainty,
                           f.mi,       f.unweighted, f.context_std};
    const chance::Value lot[] = {null.weighted, null.frequent,   null.uncertainty,
                                 null.mi,       null.unweighted, null.context_std};
    for (int i = 0; i < 6; ++i) {
      v[i].push_back(mine[i]);
      c[i].add(lot[i]);
    }
  }
  const std::string often = "ids seen at least " + std::to_string(min_count_) + " times";
  Table t{"vocabulary",
          "How much the token decides the expert",
          "Specialisation of an id is the share of its occurrences that its favourite expert "
          "takes. Rare ids score high by construction "
          "(seen once: 1), random routing too: compare with the chance values, which know how "
          "often each id was seen. An expert that is popular with every id is the favourite "
          "of every id, so an uneven load alone lifts the first two figures; what is known from "
          "the id is free of that.",
          Chart::lines,
          {column({"layer", "", "absolute layer number", ""}, number),
           column({"by occurrence", "share", "specialisation, every occurrence counting once",
                   "vocab_spec_weighted"},
                  v[0], c[0]),
           column({"frequent ids", "share",
                   "mean specialisation of frequent ids, every id counting once",
                   "vocab_spec_min_count"},
                  v[1], c[1]),
           column({"known from the id", "share",
                   "information of the token id about the expert, over the expert's entropy",
                   "token_uncertainty"},
                  v[2], c[2])},
          section::vocabulary,
          false,
          {}};
  t.columns[2].meaning = "mean specialisation of " + often + ", every id counting once";
  if (Index(counted_.size()) < shape_.layers()) {
    t.warnings.push_back("counted in " + std::to_string(counted_.size()) + " of " +
                         std::to_string(shape_.layers()) + " layers to stay within memory");
  }
  r.tables.push_back(t);
  r.tables.push_back(
      {"vocabulary_more",
       "The same by other definitions",
       "How far a token id decides its expert, each figure under the id of its definition "
       "(docs/metrics.md). Ids seen once have a specialisation of 1 by construction: the chance "
       "values know how often each id was seen.",
       Chart::none,
       {column({"layer", "", "absolute layer number", ""}, number),
        column({"all ids", "share", "mean specialisation, every id counting once",
                "vocab_spec_unweighted"},
               v[4], c[4]),
        column({"information", "bits", "mutual information of token id and expert",
                "token_expert_mi_bits", 4},
               v[3], c[3]),
        column({"deviation", "share", "of a frequent id's shares over experts, mean over ids",
                "token_context_std", 4},
               v[5], c[5])},
       section::vocabulary,
       true,
       {}});
  const auto above = [&](std::size_t l) {
    return v[2][l] - c[2].value[l];
  };
  std::size_t best = 0;
  for (std::size_t l = 0; l < v[2].size(); ++l) {
    if (above(l) > above(best))
      best = l;
  }
  r.findings.push_back(
      above(best) > 4 * c[2].spread[best] && v[2][best] > 1.25 * c[2].value[best]
          ? "The token id alone tells " + percent(v[2][best]) +
                " of what there is to know about the expert in layer " +
                std::to_string(number[best]) +
                ", the most above chance of all layers (random routing: " +
                percent(c[2].value[best]) + ")."
          : "The token id tells no more than random routing would about the expert." +
                std::string(v[0][best] > 1.25 * c[0].value[best]
                                ? " That an id's favourite expert takes " + percent(v[0][best]) +
                                      " of its occurrences in layer " +
                                      std::to_string(number[best]) +
                                      " (random routing: " + percent(c[0].value[best]) +
                                      ") is the uneven load, the same for every id."
                                : ""));
}

std::string Vocabulary::listed(const std::vector<std::pair<double, std::uint32_t>>& best,
                               bool shares) const {
  std::string out;
  for (std::size_t i = 0; i < std::min(best.size(), std::size_t(top_)); ++i) {
    out += (i ? "  " : "") + pieces_.readable(best[i].second) + " " +
           (shares ? std::to_string(rounded(100 * best[i].first)) + "%"
                   : std::to_string(rounded(best[i].first)));
  }
  return out;
}

void Vocabulary::top_tokens(Report& r, const std::vector<Told>& told) const {
  std::vector<std::int64_t> layer, expert;
  std::vector<std::string> occurrence, frequent;
  std::vector<double> spec, null;
  for (const auto& [l, f, lot] : told) {
    const State& s = state_[std::size_t(l)];
    null.insert(null.end(), lot.expert.begin(), lot.expert.end());
    for (std::size_t e = 0; e < std::size_t(shape_.experts[std::size_t(l)]); ++e) {
      std::vector<std::pair<double, std::uint32_t>> most, own;
      for (const Id& v : s.ids) {
        if (v.chosen[e])
          most.emplace_back(double(v.chosen[e]), v.id);
        if (v.chosen[e] && v.seen >= min_count_)
          own.emplace_back(double(v.chosen[e]) / double(v.seen), v.id);
      }
      const auto order = [](const auto& a, const auto& b) {
        return a.first != b.first ? a.first > b.first : a.second < b.second;
      };
      for (auto* list : {&most, &own}) {
        std::partial_sort(list->begin(),
                          list->begin() + std::min(std::ssize(*list), std::ptrdiff_t(top_)),
                          list->end(), order);
      }
      layer.push_back(shape_.number[std::size_t(l)]);
      expert.push_back(std::int64_t(e));
      occurrence.push_back(listed(most, false));
      frequent.push_back(listed(own, true));
      spec.push_back(f.expert[e] < 0 ? no_value : f.expert[e]);
    }
  }
  const std::string often = "of ids seen at least " + std::to_string(min_count_) +
                            " times, those whose occurrences it takes the largest share of";
  Table t{"top_tokens",
          "What every expert reads",
          "By occurrence: the ids an expert took most often, with counts; common ids top every "
          "list. Frequent ids: those it takes the largest share of; a share near K/E is what "
          "random routing gives.",
          Chart::none,
          {column({"layer", "", "absolute layer number", ""}, layer),
           column({"expert", "", "expert id", ""}, expert),
           column({"by occurrence", "tokens", "ids it took most often", ""}, occurrence),
           column({"frequent ids", "share", "", ""}, frequent),
           column({"specialisation", "share",
                   "mean specialisation of the ids that prefer this expert", "vocab_spec_expert"},
                  spec, null)},
          section::vocabulary,
          true,
          {}};
  t.columns[3].meaning = often;
  r.tables.push_back(std::move(t));
}

void Vocabulary::coverage(Report& r, const std::vector<Told>& told) const {
  std::vector<std::int64_t> layer, expert;
  std::vector<double> share, null;
  double best = -1;
  std::string who;
  for (const auto& [l, f, lot] : told) {
    const double chance = lot.alone;
    for (std::size_t e = 0; e < f.alone.size(); ++e) {
      layer.push_back(shape_.number[std::size_t(l)]);
      expert.push_back(std::int64_t(e));
      share.push_back(f.alone[e]);
      null.push_back(chance);
      if (f.alone[e] > best) {
        best = f.alone[e];
        who = "expert " + std::to_string(e) + " of layer " + std::to_string(layer.back());
      }
    }
  }
  r.tables.push_back({"exclusive",
                      "What one expert takes alone",
                      "Share of all tokens whose id (seen at least " + std::to_string(min_count_) +
                          " times) goes to this expert by first choice in at least " +
                          percent(alone_) +
                          " of its occurrences: the data that would be without its reader if the "
                          "expert were removed. Random routing gives practically 0.",
                      Chart::heatmap,
                      {column({"layer", "", "absolute layer number", ""}, layer),
                       column({"expert", "", "expert id", ""}, expert),
                       column({"alone", "share", "share of the tokens that only this expert takes",
                               "load_exclusive_coverage", 4},
                              share, null)},
                      section::redundancy,
                      true,
                      {}});
  r.findings.push_back(best > 0 ? "The largest share of the data that one expert takes alone is " +
                                      percent(best) + " (" + who + ")."
                                : "No expert has token ids to itself.");
}

void Vocabulary::report(Report& r) const {
  if (!any()) {
    return r.warnings.push_back(
        "the trace holds no token ids: vocabulary specialisation is left out");
  }
  std::vector<Told> told;
  LabelsOf labels;
  for (const Index l : counted_)
    told.push_back({l, figures(std::size_t(l)), chances(std::size_t(l), labels)});
  summary(r, told);
  top_tokens(r, told);
  coverage(r, told);
}

}  // namespace

std::unique_ptr<Metric> make_vocabulary_metric(Spec& spec, const TraceSource& trace,
                                               const AnalyzeOptions& o) {
  return std::make_unique<Vocabulary>(spec, trace, o);
}

}  // namespace moe
