#include "analysis/metric/modality.h"

#include <algorithm>
#include <cmath>

#include "analysis/metric/router.h"
#include "lib/core/load.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::size_t most_sequences = 1024, places_of_a_picture = 1024;

// Sequences whose modalities are compared, within a part of the memory.
std::size_t compared(const TraceSource& trace, std::size_t labels, const AnalyzeOptions& o) {
  std::size_t row = 0;  // bytes of one sequence in all layers
  for (const TraceLayer& l : trace.header().layers)
    row += labels * std::size_t(l.experts) * sizeof(std::uint32_t);
  const auto fit = std::size_t(o.memory / 8) / std::max<std::size_t>(1, row);
  return std::min({most_sequences, fit, trace.sequences().size()});
}

std::size_t places_within(const TraceSource& trace, std::size_t labels, const AnalyzeOptions& o) {
  std::size_t row = 0;
  for (const TraceLayer& l : trace.header().layers)
    row += labels * std::size_t(l.experts) * sizeof(std::int64_t);
  return std::min(places_of_a_picture, std::size_t(o.memory / 4) / std::max<std::size_t>(1, row));
}

std::vector<double> doubles(std::span<const std::int64_t> v) {
  return {v.begin(), v.end()};
}

// Of the router in one row, nats: as recorded, or of the softmax of its logits. NaN: not known.
double entropy_of(const LayerRows& rows, Index t, int experts) {
  if (!rows.entropy.empty())
    return rows.entropy[std::size_t(t)];
  if (rows.logits.empty())
    return no_value;
  return entropy_of_logits(rows.logits.row(t).first(std::size_t(experts)));
}

// Rows and columns of those labels that have tokens, in the places of all of them.
Counts of_seen(const Counts& all, const std::vector<std::size_t>& seen) {
  Counts out(Index(seen.size()), all.cols());
  for (std::size_t i = 0; i < seen.size(); ++i)
    std::ranges::copy(all.row(Index(seen[i])), out.row(Index(i)).begin());
  return out;
}

}  // namespace

ModalityMetric::ModalityMetric(const TraceSource& trace, const AnalyzeOptions& o)
    : LabelledChoices(Shape(trace)),
      trace_(trace),
      names_(trace.header().modalities),
      tokens_(names_.size()),
      places_(names_.size()),
      most_places_(places_within(trace, names_.size(), o)),
      most_paths_(std::max<std::size_t>(
          1024, std::size_t(o.memory) / 8 / (96 + 2 * shape_.experts.size()))),
      travellers_(names_.size()),
      every_figure_(o.values != nullptr) {
  const std::size_t labels = names_.size();
  begin(labels);
  const std::size_t sequences = compared(trace, labels, o);
  for (const int e : shape_.experts) {
    shared_.emplace_back(sequences, labels, e);
    firsts_.emplace_back(sequences, labels, e);
    sums_.push_back({std::vector<double>(labels), std::vector<double>(labels),
                     std::vector<std::int64_t>(labels), std::vector<std::int64_t>(labels)});
  }
  rows_before_.resize(std::max<std::size_t>(1, trace.sequences().size()) * labels);
  for (std::size_t m = 0; m < labels; ++m)
    paths_.emplace_back(shape_.experts.size());
}

TraceFields ModalityMetric::needs() const {
  TraceFields f = no_fields;
  f.modality = f.entropy = f.dropped = true;
  f.logits = !trace_.fields().entropy && trace_.fields().logits;
  return f;
}

int ModalityMetric::label(const Window& w, Index t) const {
  const auto& m = w.rows.modality;
  if (std::size_t(t) >= m.size() || m[std::size_t(t)] >= names_.size())
    return -1;
  return m[std::size_t(t)];
}

void ModalityMetric::observe_layer(const Window& w, Index l) {
  const auto of = [&](Index t) {
    return label(w, t);
  };
  count(w, l, of);
  const LayerRows& rows = w.rows.layer[std::size_t(l)];
  const LayerChoices& chosen = w.layer[std::size_t(l)];
  Sums& s = sums_[std::size_t(l)];
  for (const Index t : w.valid) {
    const int m = of(t);
    if (m < 0)
      continue;
    const auto i = std::size_t(m);
    const std::size_t q = w.rows.sequence[std::size_t(t)];
    const int first = chosen.first(t);
    shared_[std::size_t(l)].add(q, i, chosen.of(t));
    if (first >= 0)
      firsts_[std::size_t(l)].add(q, i, {&first, 1});
    s.choices[i] += std::int64_t(chosen.of(t).size());
    if (const double h = entropy_of(rows, t, shape_.experts[std::size_t(l)]); !std::isnan(h)) {
      s.entropy[i] += h;
      ++s.entropies[i];
    }
    for (Index k = 0; k < rows.dropped.cols(); ++k)
      s.dropped[i] += rows.expert(t, k) >= 0 && rows.dropped(t, k);
  }
}

void ModalityMetric::observe(const Window& w) {
  for (const Index t : w.valid) {
    if (const int m = label(w, t); m >= 0)
      ++tokens_[std::size_t(m)];
  }
  count_places(w);
  count_paths(w);
}

// The place of a row in its picture: how many rows of its modality came before it in the sequence,
// from 0 again with every picture where the grid is known.
void ModalityMetric::count_places(const Window& w) {
  const auto& sequences = trace_.sequences();
  for (const Index t : w.valid) {
    const int label_of = label(w, t);
    if (label_of < 0 || names_[std::size_t(label_of)] == text_modality)
      continue;
    const auto m = std::size_t(label_of);
    const std::size_t q = sequences.empty() ? 0 : w.rows.sequence[std::size_t(t)];
    const std::uint32_t before = rows_before_[q * names_.size() + m]++;
    const std::uint32_t grid = sequences.empty() ? 0 : sequences[q].grid.places();
    const std::size_t place = grid > 0 ? before % grid : before;
    if (place >= most_places_)
      continue;
    Places& p = places_[m];
    if (p.chosen.empty()) {
      p.tokens.resize(most_places_);
      for (const int e : shape_.experts)
        p.chosen.emplace_back(Index(most_places_), e);
    }
    ++p.tokens[place];
    for (std::size_t l = 0; l < w.layer.size(); ++l) {
      for (const int e : w.layer[l].of(t))
        ++p.chosen[l](Index(place), e);
    }
  }
}

void ModalityMetric::count_paths(const Window& w) {
  std::vector<std::uint16_t> path(w.layer.size());
  for (const Index t : w.valid) {
    const int m = label(w, t);
    bool whole = m >= 0 && !path.empty();
    for (std::size_t l = 0; whole && l < path.size(); ++l) {
      const int e = w.layer[l].first(t);
      whole = e >= 0 && e < 0xFFFF;
      path[l] = std::uint16_t(e);
    }
    if (!whole)
      continue;
    PathTable& table = paths_[std::size_t(m)];
    ++travellers_[std::size_t(m)];
    table.add(path.data());
    if (table.size() > most_paths_)
      table.thin();
  }
}

std::vector<std::size_t> ModalityMetric::seen_modalities() const {
  std::vector<std::size_t> out;
  for (std::size_t m = 0; m < names_.size(); ++m) {
    if (seen(m))
      out.push_back(m);
  }
  return out;
}

std::size_t ModalityMetric::kinds_seen() const {
  return seen_modalities().size();
}

std::vector<std::int64_t> ModalityMetric::layer_tokens(std::size_t l) const {
  std::vector<std::int64_t> out;
  for (const std::size_t m : seen_modalities())
    out.push_back(state_[l].tokens[m]);
  return out;
}

ModalityMetric::Spread ModalityMetric::spread_of(const Counts& c) {
  Spread out{balanced_information_bits(c), jensen_shannon_bits(c), total_variation(c), {}};
  const Matrix<double> share = balanced_shares(c);
  for (Index m = 0; m < c.rows(); ++m) {
    double figure[of_counts];
    std::fill(std::begin(figure), std::end(figure), no_value);
    if (const LoadFigures f = load_figures(c.row(m)); f.assignments > 0) {
      figure[dedicated] = double(
          std::ranges::count_if(share.row(m), [](double s) { return s >= dedicated_share; }));
      figure[load_entropy] = f.entropy_norm;
      figure[load_cv] = f.cv;
      figure[busiest] = f.max_over_mean;
      figure[resting] = f.dead_fraction;
    }
    out.figure.insert(out.figure.end(), std::begin(figure), std::end(figure));
  }
  return out;
}

std::vector<double> ModalityMetric::in_a_row(const Spread& s) {
  std::vector<double> out{s.balanced};
  out.insert(out.end(), s.js.flat().begin(), s.js.flat().end());
  out.insert(out.end(), s.tv.flat().begin(), s.tv.flat().end());
  out.insert(out.end(), s.figure.begin(), s.figure.end());
  return out;
}

ModalityMetric::Spread ModalityMetric::from_row(const std::vector<double>& row, Index labels) {
  Spread out{row[0], Matrix<double>(labels, labels), Matrix<double>(labels, labels), {}};
  auto at = row.begin() + 1;
  for (Matrix<double>* m : {&out.js, &out.tv}) {
    std::copy_n(at, m->size(), m->data());
    at += m->size();
  }
  out.figure.assign(at, row.end());
  return out;
}

// Of the modalities that are there, in their order.
ModalityMetric::ByChance ModalityMetric::spread_by_chance(std::size_t l) const {
  const std::vector<std::int64_t> tokens = layer_tokens(l);
  const auto labels = Index(tokens.size());
  const int experts = shape_.experts[l];
  const std::size_t results = std::size_t(1 + 2 * labels * labels + of_counts * labels);
  const auto& all = store().memo.get(key_of(experts, choices(l), tokens), [&] {
    return chance::simulate_joint(tokens, experts, choices(l), results,
                                  [](const Counts& c) { return in_a_row(spread_of(c)); });
  });
  std::vector<double> mean, deviation;
  for (const chance::Value& v : all) {
    mean.push_back(v.mean);
    deviation.push_back(v.spread);
  }
  return {from_row(mean, labels), from_row(deviation, labels)};
}

namespace {

// How often the most frequent row of a column is right: best_guess_share with experts as rows.
double right_guesses(const Counts& first) {
  Counts turned(first.cols(), first.rows());
  for (Index m = 0; m < first.rows(); ++m) {
    for (Index e = 0; e < first.cols(); ++e)
      turned(e, m) = first(m, e);
  }
  return best_guess_share(turned);
}

}  // namespace

double ModalityMetric::predictability(std::size_t l) const {
  return state_[l].ranked ? right_guesses(state_[l].first) : no_value;
}

chance::Value ModalityMetric::predictability_by_chance(std::size_t l) const {
  const auto tokens = row_sums(of_seen(state_[l].first, seen_modalities()));
  std::vector<double> key = key_of(shape_.experts[l], 1, tokens);
  key.push_back(1);  // of first choices
  const auto make = [&] {
    return chance::simulate_joint(tokens, shape_.experts[l], 1, 1, [](const Counts& c) {
      return std::vector<double>{right_guesses(c)};
    });
  };
  return store().memo.get(key, make).front();
}

double ModalityMetric::place_bits(std::size_t l, std::size_t m) const {
  return places_[m].chosen.empty() ? no_value : mutual_information_bits(places_[m].chosen[l]);
}

chance::Value ModalityMetric::place_bits_by_chance(std::size_t l, std::size_t m) const {
  if (places_[m].chosen.empty())
    return {};
  constexpr std::size_t most_cells = 300'000;
  std::vector<std::int64_t> tokens = places_[m].tokens;
  std::erase(tokens, 0);
  const int experts = shape_.experts[l];
  if (tokens.size() * std::size_t(experts) > most_cells)
    return store().labels(experts, choices(l)).mi_bits(tokens);
  // all places are seen alike often: an error of what is simulated for each of them would not
  // average out
  std::vector<double> key = key_of(experts, choices(l), tokens);
  key.push_back(2);  // of places
  const auto make = [&] {
    return chance::simulate_joint(tokens, experts, choices(l), 1, [](const Counts& c) {
      return std::vector<double>{mutual_information_bits(c)};
    });
  };
  return store().memo.get(key, make).front();
}

std::array<double, 2> ModalityMetric::path_coverage(std::size_t m) const {
  std::vector<std::int64_t> count;
  for (std::size_t i = 0; i < paths_[m].size(); ++i)
    count.push_back(paths_[m].count(i));
  std::ranges::sort(count, std::greater{});
  std::array<double, 2> out{};
  for (std::size_t n = 0; n < path_counts.size(); ++n) {
    const auto end = count.begin() + std::ptrdiff_t(std::min(path_counts[n], count.size()));
    out[n] = travellers_[m] > 0 ? std::accumulate(count.begin(), end, 0.0) / double(travellers_[m])
                                : no_value;
  }
  return out;
}

std::array<double, 2> ModalityMetric::path_coverage_by_chance(std::size_t m) const {
  double cells = 1;
  for (const int e : shape_.experts)
    cells *= e;
  const double n = double(travellers_[m]);
  const std::vector<double> full = chance::fullest_cells(cells, n, path_counts[1]);
  std::array<double, 2> out{};
  for (std::size_t i = 0; i < path_counts.size(); ++i) {
    const auto end = full.begin() + std::ptrdiff_t(std::min(path_counts[i], full.size()));
    out[i] = n > 0 ? std::accumulate(full.begin(), end, 0.0) / n : no_value;
  }
  return out;
}

double ModalityMetric::router_entropy(std::size_t l, std::size_t m) const {
  const Sums& s = sums_[l];
  return s.entropies[m] > 0 ? s.entropy[m] / s.entropies[m] : no_value;
}

double ModalityMetric::drop_rate(std::size_t l, std::size_t m) const {
  const Sums& s = sums_[l];
  return trace_.fields().dropped && s.choices[m] > 0 ? double(s.dropped[m]) / double(s.choices[m])
                                                     : no_value;
}

// What of the rows of each modality is not in the counts of their choices.
std::vector<MetricValue> ModalityMetric::values_of_rows() const {
  std::vector<std::vector<double>> entropy, drops, place;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    for (auto* all : {&entropy, &drops, &place})
      all->emplace_back();
    for (std::size_t m = 0; m < names_.size(); ++m) {
      entropy[l].push_back(router_entropy(l, m));
      drops[l].push_back(drop_rate(l, m));
      place[l].push_back(place_bits(l, m));
    }
  }
  return {{"modality_tokens", {Index(names_.size())}, doubles(tokens_)},
          per_layer("modality_router_entropy", entropy),
          per_layer("modality_drop_rate", drops),
          per_layer("modality_place_mi_bits", place)};
}

std::vector<MetricValue> ModalityMetric::values_of_counts() const {
  std::vector<Matrix<double>> rate, top1, share, js, tv;
  std::vector<double> mi, balanced, guess;
  std::vector<std::vector<double>> of[of_counts];
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const LabelCounts& s = state_[l];
    const Spread spread = spread_of(s.chosen);
    rate.push_back(rates(s.chosen, s.tokens));
    top1.push_back(first_rates(s));
    share.push_back(balanced_shares(s.chosen));
    js.push_back(spread.js);
    tv.push_back(spread.tv);
    mi.push_back(mutual_information_bits(s.chosen));
    balanced.push_back(spread.balanced);
    guess.push_back(predictability(l));
    for (std::size_t f = 0; f < of_counts; ++f) {
      of[f].emplace_back();
      for (std::size_t m = 0; m < names_.size(); ++m)
        of[f].back().push_back(spread.figure[m * of_counts + f]);
    }
  }
  return {per_layer("modality_hit_rate", rate),
          per_layer("modality_hit_rate_top1", top1),
          per_layer("modality_share", share),
          per_layer("modality_expert_mi_bits", mi),
          per_layer("modality_balanced_mi_bits", balanced),
          per_layer("modality_js_bits", js),
          per_layer("modality_tv", tv),
          per_layer("modality_dedicated", of[dedicated]),
          per_layer("modality_load_entropy", of[load_entropy]),
          per_layer("modality_load_cv", of[load_cv]),
          per_layer("modality_max_over_mean", of[busiest]),
          per_layer("modality_resting_fraction", of[resting]),
          per_layer("modality_predictability", guess)};
}

MetricValue ModalityMetric::coactivation() const {
  const auto labels = Index(names_.size());
  const auto e = Index(shape_.max_experts());
  MetricValue out{"crossmodal_coactivation", {Index(state_.size()), labels, labels, e, e}, {}};
  out.values.assign(std::size_t(out.dims[0] * labels * labels * e * e), no_value);
  for (Index i = 0; i < out.dims[0] * labels * labels; ++i) {
    const Index b = i % labels;
    const Index a = i / labels % labels;
    const Matrix<double> m =
        shared_[std::size_t(i / labels / labels)].together(std::size_t(a), std::size_t(b));
    for (Index row = 0; row < m.rows(); ++row)
      std::ranges::copy(m.row(row), out.values.begin() + (i * e + row) * e);
  }
  return out;
}

std::vector<MetricValue> ModalityMetric::values_of_sequences() const {
  const auto labels = Index(names_.size());
  std::vector<Matrix<double>> own, other, excess;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    for (auto* all : {&own, &other, &excess})
      all->emplace_back(labels, labels);
    for (Index a = 0; a < labels; ++a) {
      for (Index b = 0; b < labels; ++b) {
        const auto o = shared_[l].overlap(std::size_t(a), std::size_t(b));
        own[l](a, b) = o.own;
        other[l](a, b) = o.other;
        excess[l](a, b) = o.own - o.other;
      }
    }
  }
  std::vector<MetricValue> out{per_layer("crossmodal_overlap", own),
                               per_layer("crossmodal_overlap_other", other),
                               per_layer("crossmodal_overlap_excess", excess)};
  if (every_figure_)
    out.push_back(coactivation());
  MetricValue coverage{"modality_path_coverage", {labels, Index(path_counts.size())}, {}};
  for (std::size_t m = 0; m < names_.size(); ++m) {
    const auto c = path_coverage(m);
    coverage.values.insert(coverage.values.end(), c.begin(), c.end());
  }
  out.push_back(std::move(coverage));
  return out;
}

// As MoE-LLaVA counts: samples, in which text weighs as much as the picture, weigh the same.
std::vector<MetricValue> ModalityMetric::values_by_sample() const {
  const auto of = [&](std::string_view name) {
    return std::size_t(std::ranges::find(names_, name) - names_.begin());
  };
  const std::size_t text = of(text_modality);
  const std::size_t image = of(modality_names()[modality::image]);
  if (text == names_.size() || image == names_.size() || !state_[0].ranked)
    return {};
  std::vector<std::vector<double>> load;
  std::vector<Matrix<double>> share;
  for (std::size_t l = 0; l < firsts_.size(); ++l) {
    const std::vector<double> a = firsts_[l].alone(image, text);
    const std::vector<double> b = firsts_[l].alone(text, image);
    load.emplace_back();
    share.emplace_back(Index(names_.size()), Index(a.size()), no_value);
    for (std::size_t e = 0; e < a.size(); ++e) {
      load.back().push_back((a[e] + b[e]) / 2);
      if (a[e] + b[e] > 0) {
        share.back()(Index(image), Index(e)) = a[e] / (a[e] + b[e]);
        share.back()(Index(text), Index(e)) = b[e] / (a[e] + b[e]);
      }
    }
  }
  return {per_layer("modality_load_by_sample", load), per_layer("modality_share_by_sample", share)};
}

std::vector<MetricValue> ModalityMetric::values() const {
  if (kinds_seen() < 2)
    return {};
  std::vector<MetricValue> out = values_of_rows();
  for (auto more : {values_of_counts(), values_of_sequences(), values_by_sample()})
    std::ranges::move(more, std::back_inserter(out));
  return out;
}

std::unique_ptr<Metric> make_modality_metric(Spec&, const TraceSource& trace,
                                             const AnalyzeOptions& o) {
  if (!trace.fields().modality)
    return left_out("the trace does not say the modality of its rows: modalities are left out");
  return std::make_unique<ModalityMetric>(trace, o);
}

}  // namespace moe
