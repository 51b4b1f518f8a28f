#include "analysis/metric/loss.h"

#include <algorithm>
#include <cmath>

#include "analysis/metric/router.h"
#include "analysis/statistics/paired.h"
#include "analysis/statistics/rank_correlation.h"

namespace moe {
namespace {

constexpr double rounding = 1e-3;  // nats that a log-probability may lie above 0

// Student's quantiles of 95 %, up to as many degrees of freedom as make no difference any more.
double student_95(double freedom) {
  static const std::vector<double> all = [] {
    std::vector<double> out{no_value};
    for (int n = 1; n <= 200; ++n)
      out.push_back(statistics::student_quantile(0.05, n));
    return out;
  }();
  return all[std::min(std::size_t(freedom), all.size() - 1)];
}

std::size_t distinct_values(std::vector<double> v) {
  std::ranges::sort(v);
  return std::size_t(std::unique(v.begin(), v.end()) - v.begin());
}

MetricValue means(const char* id, std::vector<Index> dims, const std::vector<SequenceMean>& all) {
  MetricValue out{id, std::move(dims), {}};
  for (const SequenceMean& m : all)
    out.values.push_back(m.mean());
  return out;
}

}  // namespace

void SequenceMean::close(std::int64_t next) {
  if (pending_under_ > 0) {
    over_ += pending_over_;
    under_ += pending_under_;
    over_over_ += pending_over_ * pending_over_;
    over_under_ += pending_over_ * pending_under_;
    under_under_ += pending_under_ * pending_under_;
    sequences_ += 1;
  }
  pending_over_ = pending_under_ = 0;
  sequence_ = next;
}

SequenceMean SequenceMean::closed() const {
  SequenceMean out = *this;
  out.close(-1);
  return out;
}

double SequenceMean::mean() const {
  const SequenceMean all = closed();
  return all.under_ > 0 ? all.over_ / all.under_ : no_value;
}

double SequenceMean::under() const {
  return under_ + pending_under_;
}

Interval SequenceMean::interval() const {
  const SequenceMean all = closed();
  const double n = all.sequences_;
  if (n < double(Bootstrap::least_sequences))
    return {no_value, no_value};
  const double ratio = all.over_ / all.under_;
  const double square =
      all.over_over_ - 2 * ratio * all.over_under_ + ratio * ratio * all.under_under_;
  const double error = std::sqrt(std::max(0.0, square) * n / (n - 1)) / all.under_;
  const double reach = student_95(n - 1) * error;
  return {ratio - reach, ratio + reach};
}

LossMetric::LossMetric(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o)
    : shape_(trace),
      has_(trace.fields()),
      domain_name_(trace.header().domains),
      top_(spec.get("top", 10, 1)),
      every_((trace.tokens() + most_ranked - 1) / most_ranked),
      most_paths_(std::size_t(std::max<std::int64_t>(
          1024, o.memory / 4 / std::int64_t(192 + 2 * shape_.experts.size())))),
      layer_(shape_.experts.size()),
      domain_(domain_name_.size() + 1) {
  if (trace.header().logit_kind == "probs")
    has_.logits = false;
  for (const TraceLayer& l : trace.header().layers)
    by_logits_.push_back(has_.logits && (!has_.entropy || l.score_fn == ScoreFn::softmax));
  for (std::size_t l = 0; l < layer_.size(); ++l)
    layer_[l].expert.resize(std::size_t(shape_.experts[l]));
}

TraceFields LossMetric::needs() const {
  TraceFields f = no_fields;
  f.prediction = has_.prediction;
  f.dropped = has_.prediction && has_.dropped;
  f.entropy = has_.prediction && has_.entropy;
  f.logits = has_.prediction && std::ranges::find(by_logits_, true) != by_logits_.end();
  return f;
}

double LossMetric::loss_of(const TraceRows& rows, Index t) {
  if (rows.logprob.empty())
    return no_value;
  const double v = rows.logprob[std::size_t(t)];
  const bool nothing_follows =
      v == 0 && !rows.target_id.empty() && rows.target_id[std::size_t(t)] == withheld_token;
  return std::isfinite(v) && v <= rounding && !nothing_follows ? -v : no_value;
}

// Stored entropies are 16-bit numbers: logits tell more where the router's belief is their softmax.
double LossMetric::entropy_of(const LayerRows& rows, Index layer, Index t) const {
  const auto l = std::size_t(layer);
  if (by_logits_[l] && !rows.logits.empty() && !std::isnan(rows.logits(t, 0)))
    return entropy_of_logits(rows.logits.row(t).first(std::size_t(shape_.experts[l])));
  return rows.entropy.empty() ? no_value : double(rows.entropy[std::size_t(t)]);
}

std::string LossMetric::coarse() const {
  double least = no_value;
  for (const Layer& s : layer_) {
    if (s.stretches > 0 && !(least <= s.distinct / s.stretches))
      least = s.distinct / s.stretches;
  }
  if (!(least < least_distinct))
    return "";
  return concat("in a layer the router's entropy takes about ", rounded(least),
                least < 1.5 ? " value" : " values",
                " a sequence: it is nearly the same for all tokens, or stored with too few digits "
                "to rank them (moe trace --logits keeps more)");
}

// A hash and not every so many-th: domains may take turns.
bool LossMetric::is_ranked(std::int64_t sequence, std::uint32_t stretch) const {
  if (every_ < 2)
    return true;
  std::uint64_t h = (std::uint64_t(sequence) << 20 ^ stretch) * 0x9E3779B97F4A7C15;
  h = (h ^ h >> 29) * 0xD6E8FEB86659FD93;
  return (h >> 32) % every_ == 0;
}

void LossMetric::begin(Layer& s, std::int64_t sequence, std::uint32_t stretch, int domain) const {
  if (sequence != s.sequence)
    end_sequence(s);
  else
    end_stretch(s);
  s.sequence = sequence;
  s.stretch = stretch;
  s.domain = domain;
  s.ranked = is_ranked(sequence, stretch);
}

void LossMetric::observe_layer(const Window& w, Index l) {
  if (!has_.prediction)
    return;
  Layer& s = layer_[std::size_t(l)];
  const LayerRows& rows = w.rows.layer[std::size_t(l)];
  for (const Index t : w.valid) {
    const double loss = loss_of(w.rows, t);
    if (std::isnan(loss))
      continue;
    const std::int64_t q = w.rows.sequence[std::size_t(t)];
    const std::uint32_t stretch = w.rows.position[std::size_t(t)] / most_in_stretch;
    if (q != s.sequence || stretch != s.stretch)
      begin(s, q, stretch, w.domain[std::size_t(t)]);
    for (const int e : w.layer[std::size_t(l)].of(t))
      s.expert[std::size_t(e)].add(q, loss);
    if (!rows.dropped.empty()) {
      const auto flags = rows.dropped.row(t);
      const bool any = std::ranges::any_of(flags, [](std::uint8_t d) { return d != 0; });
      (any ? s.dropped : s.kept).add(q, loss);
    }
    const double entropy = entropy_of(rows, l, t);
    if (!std::isfinite(entropy))
      continue;
    s.sequence_entropy += entropy;
    s.sequence_loss += loss;
    s.sequence_tokens += 1;
    if (!s.ranked)
      continue;
    s.entropy.push_back(entropy);
    s.loss.push_back(loss);
    s.position.push_back(double(w.rows.position[std::size_t(t)]));
  }
}

void LossMetric::end_stretch(Layer& s) {
  const std::size_t n = s.entropy.size();
  if (n >= least_in_stretch) {
    const std::vector<double> rank = statistics::ranks_of(s.entropy);
    s.distinct += double(distinct_values(rank));
    s.stretches += 1;
    for (std::size_t i = 0; i < n; ++i) {
      const auto fifth = std::size_t((rank[i] + 0.5) / double(n) * double(fifths));
      s.fifth[std::min(fifth, fifths - 1)].add(s.sequence, s.loss[i]);
    }
    const double rho = statistics::rank_correlation(s.entropy, s.loss);
    if (std::isfinite(rho)) {
      s.within.add(s.sequence, rho * double(n), double(n));
      s.spread += double(n) * double(n) / double(n - 1);
      s.weight += double(n);
    }
    const double beyond = statistics::partial_rank_correlation(s.entropy, s.loss, s.position);
    if (std::isfinite(beyond))
      s.beyond_position.add(s.sequence, beyond * double(n), double(n));
  }
  s.entropy.clear();
  s.loss.clear();
  s.position.clear();
}

void LossMetric::end_sequence(Layer& s) {
  end_stretch(s);
  if (s.sequence_tokens > 0 && s.between.loss.size() < most_sequences) {
    s.between.entropy.push_back(s.sequence_entropy / s.sequence_tokens);
    s.between.loss.push_back(s.sequence_loss / s.sequence_tokens);
    s.between.domain.push_back(s.domain);
  }
  s.sequence_entropy = s.sequence_loss = s.sequence_tokens = 0;
}

void LossMetric::observe(const Window& w) {
  if (!has_.prediction)
    return;
  for (const Index t : w.valid) {
    const double loss = loss_of(w.rows, t);
    if (std::isnan(loss))
      continue;
    const std::int64_t q = w.rows.sequence[std::size_t(t)];
    const int d = w.domain[std::size_t(t)];
    const bool labelled = d >= 0 && std::size_t(d) < domain_name_.size();
    domain_[labelled ? std::size_t(d) : domain_name_.size()].add(q, loss);
    all_.add(q, loss);
    squares_ += loss * loss;
    if (is_ranked(q, w.rows.position[std::size_t(t)] / most_in_stretch))
      add_path(w, t, q, loss);
  }
}

void LossMetric::add_path(const Window& w, Index t, std::int64_t sequence, double loss) {
  if (layer_.size() < 2)
    return;
  key_.clear();
  for (const LayerChoices& c : w.layer) {
    const int e = c.first(t);
    if (e < 0 || e >= 0xFFFF)
      return;
    key_.push_back(std::uint16_t(e));
  }
  const std::size_t at = path_.add(key_.data());
  if (at == path_loss_.size())
    path_loss_.emplace_back();
  path_loss_[at].add(sequence, loss);
  if (path_.size() > most_paths_)
    thin_paths();
}

void LossMetric::thin_paths() {
  const std::vector<std::size_t> kept = path_.thin();
  for (std::size_t i = 0; i < kept.size(); ++i)
    path_loss_[i] = path_loss_[kept[i]];
  path_loss_.resize(kept.size());
  thinned_ = true;
}

void LossMetric::finish() {
  for (Layer& s : layer_) {
    end_sequence(s);
    s.sequence = -1;
  }
}

std::vector<std::size_t> LossMetric::paths() const {
  std::vector<std::size_t> all(path_.size());
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i] = i;
  const auto order = [&](std::size_t a, std::size_t b) {
    return path_.count(a) != path_.count(b)
               ? path_.count(a) > path_.count(b)
               : std::ranges::lexicographical_compare(path_.path(a), path_.path(b));
  };
  const std::size_t n = std::min(all.size(), std::size_t(top_));
  std::partial_sort(all.begin(), all.begin() + std::ptrdiff_t(n), all.end(), order);
  all.resize(n);
  return all;
}

std::vector<double> LossMetric::between_correlations(const std::vector<Layer>& layers) {
  std::vector<double> out;
  for (const Layer& s : layers) {
    const Between& b = s.between;
    out.push_back(statistics::rank_correlation_within(b.entropy, b.loss, b.domain).value);
  }
  return out;
}

std::vector<MetricValue> LossMetric::values() const {
  if (!(all_.under() > 0))
    return {};
  std::vector<MetricValue> out{
      {"loss_mean", {}, {all_.mean()}},
      means("loss_by_domain", {Index(domain_name_.size())}, {domain_.begin(), domain_.end() - 1})};
  std::vector<std::vector<double>> expert, fifth, drop;
  std::vector<double> within, beyond;
  for (const Layer& s : layer_) {
    expert.push_back(means("", {}, s.expert).values);
    fifth.push_back(means("", {}, {s.fifth.begin(), s.fifth.end()}).values);
    drop.push_back({s.kept.mean(), s.dropped.mean()});
    within.push_back(s.within.mean());
    beyond.push_back(s.beyond_position.mean());
  }
  out.push_back(per_layer("loss_by_expert", expert));
  out.push_back(per_layer("loss_by_confidence", fifth));
  out.push_back(per_layer("loss_by_drop", drop));
  out.push_back(per_layer("loss_entropy_correlation", within));
  out.push_back(per_layer("loss_entropy_correlation_position", beyond));
  out.push_back(per_layer("loss_entropy_correlation_sequences", between_correlations(layer_)));
  MetricValue path{"loss_by_path", {0}, {}};
  for (const std::size_t i : paths())
    path.values.push_back(path_loss_[i].mean());
  path.dims[0] = Index(path.values.size());
  out.push_back(std::move(path));
  return out;
}

std::unique_ptr<Metric> make_loss_metric(Spec& spec, const TraceSource& trace,
                                         const AnalyzeOptions& o) {
  return std::make_unique<LossMetric>(spec, trace, o);
}

}  // namespace moe
