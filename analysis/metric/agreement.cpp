#include "analysis/metric/agreement.h"

#include "analysis/metric/bootstrap.h"
#include "analysis/metric/chance.h"
#include "analysis/metric/impossible.h"
#include "analysis/metric/layout.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// Experts chosen, in key order, -1 left out. Filled into a buffer that is used again.
void chosen(const Matrix<int>& ids, Index t, std::vector<int>& out) {
  out.clear();
  for (const int e : ids.row(t)) {
    if (e >= 0)
      out.push_back(e);
  }
}

std::int64_t common(std::span<const int> a, std::span<const int> b) {
  return std::count_if(b.begin(), b.end(),
                       [&](int e) { return std::find(a.begin(), a.end(), e) != a.end(); });
}

// Gap between the last expert chosen and the first one not, from what the rows hold; NaN where they
// do not say.
double margin_of(const LayerRows& rows, Index t, std::size_t k, int experts) {
  if (!rows.margin.empty())
    return rows.margin[t];
  if (rows.logits.empty() || k == 0)
    return no_value;
  const auto z = rows.logits.row(t).first(std::size_t(experts));
  // NaN has no place in an order
  if (std::any_of(z.begin(), z.end(), [](float v) { return std::isnan(v); }))
    return no_value;
  std::vector<double> p(z.begin(), z.end());
  std::sort(p.rbegin(), p.rend());
  double sum = 0;
  for (const double v : p)
    sum += std::exp(v - p[0]);
  return (std::exp(p[k - 1] - p[0]) - (k < p.size() ? std::exp(p[k] - p[0]) : 0)) / sum;
}

bool has_margin(const TraceFields& f) {
  return f.margin || f.logits;
}

class Comparer {
 public:
  Comparer(const TraceSource& a, const TraceSource& b, const AgreeOptions& o)
      : margin_from_b_(has_margin(b.fields())) {
    if (has_margin(a.fields()) || margin_from_b_)
      result_.margins = o.margins;
    if (!std::is_sorted(o.margins.begin(), o.margins.end()))
      throw Error(Exit::usage, "the margins that tokens are sorted by do not rise");
    const std::size_t bins = result_.margins.empty() ? 0 : result_.margins.size() + 1;
    for (const TraceLayer& l : b.header().layers) {
      result_.layer.push_back({.number = l.index, .experts = l.experts});
      result_.layer.back().bin_choices.assign(bins, 0);
      result_.layer.back().bin_lost.assign(bins, 0);
      LayerAgreement& last = result_.layer.back();
      for (auto* counts : {&last.expert_choices, &last.expert_lost, &last.expert_gained})
        counts->assign(std::size_t(std::max(0, l.experts)), 0);
    }
    pending_.resize(result_.layer.size());
    if (o.bootstrap < 1 || b.sequences().size() < Bootstrap::least_sequences)
      return;
    for (LayerAgreement& l : result_.layer) {
      for (auto* r : {&l.replica_overlap, &l.replica_first, &l.replica_tokens})
        r->assign(std::size_t(o.bootstrap) + 1, 0);
    }
  }

  void window(const TraceRows& a, const TraceRows& b) {
    check(a, b);
    const std::size_t tokens = a.tokens();
    const std::size_t layers = result_.layer.size();
    differs_.assign(tokens * layers, 0);
    find_rows(a, b);
    parallel_for(Index(layers), 1, [&](Index first, Index last) {
      for (Index l = first; l < last; ++l)
        layer(a, b, std::size_t(l));
    });
    for (std::size_t t = 0; t < tokens; ++t) {
      if (!counts_[t])
        continue;
      std::int64_t flips = 0;
      for (std::size_t l = 0; l < layers; ++l)
        flips += differs_[l * tokens + t];
      ++result_.tokens;
      result_.flipped_layers += flips;
      result_.flipped_tokens += flips > 0;
    }
  }
  Agreement result() {
    for (std::size_t l = 0; l < pending_.size(); ++l)
      close(l);
    return std::move(result_);
  }

 private:
  static void check(const TraceRows& a, const TraceRows& b) {
    for (std::size_t t = 0; t < a.tokens(); ++t) {
      if (a.token_id[t] != b.token_id[t] && a.token_id[t] != withheld_token &&
          b.token_id[t] != withheld_token) {
        throw Error(Exit::input, concat("the traces are not over the same tokens: row ",
                                        a.first + t, " is token ", a.token_id[t], " in one and ",
                                        b.token_id[t], " in the other"))
            .hint("trace both on the same data with the same length");
      }
    }
  }
  // Rows that are no padding, and routing in both.
  void find_rows(const TraceRows& a, const TraceRows& b) {
    const std::vector<std::uint8_t> odd_a = repeated_choices(a);
    const std::vector<std::uint8_t> odd_b = repeated_choices(b);
    counts_.assign(a.tokens(), 0);
    for (std::size_t t = 0; t < a.tokens(); ++t) {
      if (!a.valid(t) || !b.valid(t))
        continue;
      const bool odd = (!odd_a.empty() && odd_a[t]) || (!odd_b.empty() && odd_b[t]);
      result_.impossible += odd;
      counts_[t] = !odd;
    }
  }
  void layer(const TraceRows& a, const TraceRows& b, std::size_t l) {
    LayerAgreement& s = result_.layer[l];
    const LayerRows& ra = a.layer[l];
    const LayerRows& rb = b.layer[l];
    std::vector<int> ca, cb;
    for (std::size_t t = 0; t < a.tokens(); ++t) {
      if (!counts_[t])
        continue;
      chosen(ra.expert, Index(t), ca);
      chosen(rb.expert, Index(t), cb);
      const std::int64_t both = common(ca, cb);
      differs_[l * a.tokens() + t] = both != std::ssize(cb) || ca.size() != cb.size();
      if (cb.empty())
        continue;
      count(l, b.sequence[t], ca, cb, both);
      if (result_.margins.empty())
        continue;
      by_margin(s, both, std::ssize(cb),
                margin_from_b_ ? margin_of(rb, Index(t), cb.size(), s.experts)
                               : margin_of(ra, Index(t), ca.size(), s.experts));
    }
  }
  void count(std::size_t l, std::uint32_t sequence, std::span<const int> a, std::span<const int> b,
             std::int64_t both) {
    LayerAgreement& s = result_.layer[l];
    Pending& p = pending_[l];
    if (p.sequence != std::int64_t(sequence)) {
      close(l);
      p.sequence = sequence;
    }
    const double share = double(both) / double(b.size());
    const bool same_first = !a.empty() && a[0] == b[0];
    p.tokens += 1;
    p.overlap += share;
    p.first += same_first;
    ++s.tokens;
    s.choices += std::ssize(b);
    s.common += both;
    s.overlap += share;
    s.first += same_first;
    s.same_sets += both == std::ssize(b) && a.size() == b.size();
    by_k(s, a, b);
    by_expert(s, a, b);
  }
  static void by_expert(LayerAgreement& s, std::span<const int> a, std::span<const int> b) {
    for (const int e : b) {
      ++s.expert_choices[std::size_t(e)];
      s.expert_lost[std::size_t(e)] += std::ranges::find(a, e) == a.end();
    }
    for (const int e : a)
      s.expert_gained[std::size_t(e)] += std::ranges::find(b, e) == b.end();
  }
  void by_margin(LayerAgreement& s, std::int64_t both, std::int64_t n, double margin) const {
    if (std::isnan(margin))
      return;
    const auto& edges = result_.margins;
    const auto bin =
        std::size_t(std::upper_bound(edges.begin(), edges.end(), margin) - edges.begin());
    s.bin_choices[bin] += n;
    s.bin_lost[bin] += n - both;
  }
  static void by_k(LayerAgreement& s, std::span<const int> a, std::span<const int> b) {
    if (b.size() > s.overlap_k.size()) {
      s.overlap_k.resize(b.size(), 0);
      s.tokens_k.resize(b.size(), 0);
    }
    for (std::size_t k = 1; k <= b.size(); ++k) {
      s.overlap_k[k - 1] += double(common(a.first(std::min(k, a.size())), b.first(k))) / double(k);
      ++s.tokens_k[k - 1];
    }
  }

  struct Pending {  // of the sequence being read
    std::int64_t sequence = -1;
    double overlap = 0, first = 0, tokens = 0;
  };
  void close(std::size_t l) {
    LayerAgreement& s = result_.layer[l];
    const Pending p = std::exchange(pending_[l], {});
    if (p.sequence < 0 || s.replica_tokens.empty())
      return;
    std::vector<std::uint32_t> weight(s.replica_tokens.size());
    poisson_weights(0, std::uint64_t(p.sequence), weight);
    for (std::size_t r = 0; r < weight.size(); ++r) {
      s.replica_overlap[r] += weight[r] * p.overlap;
      s.replica_first[r] += weight[r] * p.first;
      s.replica_tokens[r] += weight[r] * p.tokens;
    }
  }

  bool margin_from_b_;
  std::vector<Pending> pending_;       // (L)
  std::vector<std::uint8_t> differs_;  // (L,T) of the window
  std::vector<std::uint8_t> counts_;   // (T) of the window: 1 where a row is compared
  Agreement result_;
};

}  // namespace

std::string incomparable(const TraceSource& a, const TraceSource& b) {
  if (counts_only(a) || counts_only(b)) {
    return concat(!counts_only(b)   ? "the trace holds"
                  : !counts_only(a) ? "the reference holds"
                                    : "both hold",
                  " only how many tokens each expert took, and no tokens");
  }
  if (a.tokens() != b.tokens())
    return concat("one trace has ", a.tokens(), " tokens, the other ", b.tokens());
  const auto& x = a.header().layers;
  const auto& y = b.header().layers;
  if (x.size() != y.size())
    return concat("one trace has ", x.size(), " MoE layers, the other ", y.size());
  for (std::size_t l = 0; l < x.size(); ++l) {
    if (x[l].experts != y[l].experts || x[l].index != y[l].index) {
      return concat("MoE layer ", l, " has ", x[l].experts, " experts at depth ", x[l].index,
                    " in one trace and ", y[l].experts, " at ", y[l].index, " in the other");
    }
  }
  return "";
}

Agreement agree(const TraceSource& a, const TraceSource& b, const AgreeOptions& o) {
  if (const std::string why = incomparable(a, b); !why.empty()) {
    throw Error(Exit::input, "the traces cannot be compared token by token: " + why)
        .hint("trace both on the same data with the same length");
  }
  Comparer all(a, b, o);
  const auto fields = [](const TraceFields& has) {
    TraceFields f = no_fields;
    f.margin = has.margin;
    f.logits = has.logits && !has.margin;
    return f;
  };
  const bool from_b = has_margin(b.fields());
  const std::uint64_t step = std::max<std::uint64_t>(1, o.window);
  for (std::uint64_t first = 0; first < a.tokens(); first += step) {
    const std::uint64_t n = std::min(step, a.tokens() - first);
    all.window(a.read(first, n, from_b ? no_fields : fields(a.fields())),
               b.read(first, n, fields(b.fields())));
    if (o.progress)
      o.progress(first + n);
  }
  Agreement out = all.result();
  out.order = std::max(choice_order(a), choice_order(b));
  return out;
}

std::string Agreement::id(const char* of_ids_as_they_are) const {
  return concat(of_ids_as_they_are, matched ? "_matched" : "");
}

ChanceAgreement LayerAgreement::by_chance() const {
  if (simulated)
    return *simulated;
  const double k = double(choices) / double(tokens);
  const double share = k / experts;
  ChanceAgreement out{{share}, {1.0 / experts}, {}, share, chance::same_set(experts, k)};
  for (std::size_t n = 1; n <= overlap_k.size(); ++n)
    out.overlap_k.push_back(double(n) / experts);
  return out;
}

namespace {

// (n) part / whole, element by element; NaN where a whole is 0.
std::vector<double> shares(const std::vector<std::int64_t>& part,
                           const std::vector<std::int64_t>& whole) {
  std::vector<double> out;
  for (std::size_t i = 0; i < part.size(); ++i)
    out.push_back(double(part[i]) / double(whole[i]));
  return out;
}

}  // namespace

std::vector<MetricValue> Agreement::values() const {
  std::vector<double> all, first;
  std::vector<std::vector<double>> by_k, by_margin, by_expert;
  std::int64_t common_choices = 0;
  std::int64_t every = 0;
  for (const LayerAgreement& l : layer) {
    all.push_back(l.overlap / double(l.tokens));
    const bool known = first_choices_known();
    first.push_back(known ? double(l.first) / double(l.tokens) : no_value);
    by_k.emplace_back();
    by_margin.push_back(shares(l.bin_lost, l.bin_choices));
    by_expert.push_back(shares(l.expert_lost, l.expert_choices));
    for (std::size_t k = 0; k < l.overlap_k.size(); ++k)
      by_k.back().push_back(known ? l.overlap_k[k] / double(l.tokens_k[k]) : no_value);
    common_choices += l.common;
    every += l.choices;
  }
  std::vector<MetricValue> out{
      per_layer(id("router_saturation").c_str(), all),
      per_layer(id("router_saturation_top1").c_str(), first),
      per_layer(id("router_saturation_by_k").c_str(), by_k),
      {id("flip_token_rate"), {}, {double(flipped_tokens) / double(tokens)}},
      {id("flip_layers_mean"), {}, {double(flipped_layers) / double(tokens)}},
      {id("flip_rate"), {}, {double(every - common_choices) / double(every)}},
      per_layer(id("flip_rate_by_expert").c_str(), by_expert)};
  if (!margins.empty())
    out.push_back(per_layer(id("flip_rate_by_margin").c_str(), by_margin));
  return out;
}

}  // namespace moe
