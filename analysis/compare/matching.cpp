#include "analysis/compare/matching.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "analysis/metric/impossible.h"
#include "analysis/metric/layout.h"
#include "lib/core/parallel.h"
#include "lib/core/shuffle.h"

namespace moe {
namespace {

constexpr std::uint64_t most_simulated = 131072;  // tokens of a run
constexpr std::uint64_t enough_tokens = 200000;   // of all runs together
constexpr std::uint64_t least_window = 8192;      // within which tokens change places

// One row after another finds its column along a shortest path of reduced costs, as Jonker and
// Volgenant 1987 write it. Row and column 0 are the start of paths.
class Assignment {
 public:
  explicit Assignment(const Counts& gain)
      : gain_(gain),
        n_(std::size_t(gain.rows())),
        row_potential_(n_ + 1, 0),
        column_potential_(n_ + 1, 0),
        row_of_(n_ + 1, 0),
        before_(n_ + 1, 0) {}

  std::vector<int> solve() {
    for (std::size_t row = 1; row <= n_; ++row)
      place(row);
    std::vector<int> out(n_, 0);
    for (std::size_t column = 1; column <= n_; ++column)
      out[row_of_[column] - 1] = int(column - 1);
    return out;
  }

 private:
  // Of equal sums the one that moves fewer ids.
  std::int64_t cost(std::size_t row, std::size_t column) const {
    const auto n = std::int64_t(n_ + 1);
    return -n * gain_(Index(row - 1), Index(column - 1)) - (row == column);
  }

  void place(std::size_t row) {
    constexpr std::int64_t endless = std::numeric_limits<std::int64_t>::max();
    std::vector<std::int64_t> far(n_ + 1, endless);
    std::vector<char> done(n_ + 1, 0);
    std::size_t at = 0;
    row_of_[0] = row;
    do {
      done[at] = 1;
      at = step(at, far, done);
    } while (row_of_[at] != 0);
    for (; at != 0; at = before_[at])
      row_of_[at] = row_of_[before_[at]];
  }

  // From a column that is taken to the nearest one that is not yet done.
  std::size_t step(std::size_t at, std::vector<std::int64_t>& far, const std::vector<char>& done) {
    const std::size_t row = row_of_[at];
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    std::size_t next = 0;
    for (std::size_t c = 1; c <= n_; ++c) {
      if (done[c])
        continue;
      const std::int64_t reduced = cost(row, c) - row_potential_[row] - column_potential_[c];
      if (reduced < far[c]) {
        far[c] = reduced;
        before_[c] = at;
      }
      if (far[c] < least) {
        least = far[c];
        next = c;
      }
    }
    for (std::size_t c = 0; c <= n_; ++c) {
      if (done[c]) {
        row_potential_[row_of_[c]] += least;
        column_potential_[c] -= least;
      } else {
        far[c] -= least;
      }
    }
    return next;
  }

  const Counts& gain_;
  std::size_t n_;
  std::vector<std::int64_t> row_potential_, column_potential_;
  std::vector<std::size_t> row_of_, before_;  // of columns
};

struct Joint {  // of one layer
  Counts choices, first;
  std::vector<std::int64_t> chosen, reference;  // by the trace, by the reference
};

void count(const Matrix<int>& a, const Matrix<int>& b, std::span<const Index> rows, Joint& j) {
  for (const Index t : rows) {
    int first_a = -1;
    for (const int from : a.row(t)) {
      if (from < 0)
        continue;
      first_a = first_a < 0 ? from : first_a;
      ++j.chosen[from];
      for (const int to : b.row(t)) {
        if (to >= 0)
          ++j.choices(from, to);
      }
    }
    for (const int to : b.row(t)) {
      if (to >= 0)
        ++j.reference[to];
    }
    const auto ids = b.row(t);
    const auto first_b = std::ranges::find_if(ids, [](int e) { return e >= 0; });
    if (first_a >= 0 && first_b != ids.end())
      ++j.first(first_a, *first_b);
  }
}

// Rows that are no padding, and routing in both.
std::vector<Index> comparable_rows(const TraceRows& a, const TraceRows& b) {
  const auto odd_a = repeated_choices(a);
  const auto odd_b = repeated_choices(b);
  std::vector<Index> out;
  for (std::size_t t = 0; t < a.tokens(); ++t) {
    if (a.valid(t) && b.valid(t) && (odd_a.empty() || !odd_a[t]) && (odd_b.empty() || !odd_b[t]))
      out.push_back(Index(t));
  }
  return out;
}

LayerMatch match_of(const Joint& j) {
  LayerMatch out;
  out.to = best_matching(j.choices);
  out.chosen = j.chosen;
  out.reference = j.reference;
  for (std::size_t e = 0; e < out.to.size(); ++e)
    out.together.push_back(j.choices(Index(e), out.to[e]));
  out.ami = adjusted_mutual_information(j.first);
  out.ari = adjusted_rand(j.first);
  const auto rows = row_sums(j.first);
  out.tokens = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  return out;
}

std::vector<LayerMatch> match_layers(const TraceSource& a, const TraceSource& b,
                                     const MatchOptions& o, std::size_t from, std::size_t to) {
  std::vector<Joint> joint;
  for (std::size_t l = from; l < to; ++l) {
    const int e = a.header().layers[l].experts;
    const std::vector<std::int64_t> none(std::size_t(e), 0);
    joint.push_back({Counts(e, e), Counts(e, e), none, none});
  }
  const std::uint64_t tokens = std::min(o.most_tokens, std::min(a.tokens(), b.tokens()));
  for (std::uint64_t first = 0; first < tokens; first += o.window) {
    const std::uint64_t n = std::min(o.window, tokens - first);
    const TraceRows ra = a.read(first, n, no_fields);
    const TraceRows rb = b.read(first, n, no_fields);
    const std::vector<Index> rows = comparable_rows(ra, rb);
    parallel_for(Index(joint.size()), 1, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const std::size_t l = from + std::size_t(i);
        count(ra.layer[l].expert, rb.layer[l].expert, rows, joint[i]);
      }
    });
  }
  std::vector<LayerMatch> out(joint.size());
  parallel_for(Index(joint.size()), 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      out[i] = match_of(joint[i]);
  });
  return out;
}

void rename(Matrix<int>& ids, const std::vector<int>& to) {
  for (int& e : ids.flat())
    e = e >= 0 ? to[e] : e;
}

// Columns of logits by the names of the experts.
void rename_columns(Matrix<float>& logits, const std::vector<int>& to) {
  std::vector<float> row;
  for (Index t = 0; t < logits.rows(); ++t) {
    row.assign(logits.row(t).begin(), logits.row(t).end());
    for (std::size_t e = 0; e < to.size(); ++e)
      logits(t, to[e]) = row[e];
  }
}

void reorder(Matrix<int>& ids, std::span<const Index> from, std::span<const Index> order) {
  const Matrix<int> old = ids;
  for (std::size_t i = 0; i < from.size(); ++i)
    std::ranges::copy(old.row(order[i]), ids.row(from[i]).begin());
}

}  // namespace

std::vector<int> best_matching(const Counts& joint) {
  return Assignment(joint).solve();
}

std::vector<LayerMatch> match_experts(const TraceSource& a, const TraceSource& b,
                                      const MatchOptions& o) {
  const std::size_t layers = a.header().layers.size();
  const std::int64_t each = 2 * pair_bytes(a) / std::int64_t(std::max<std::size_t>(1, layers));
  const auto fit =
      std::size_t(std::max<std::int64_t>(1, o.memory / std::max<std::int64_t>(1, each)));
  std::vector<LayerMatch> out;
  for (std::size_t from = 0; from < layers; from += fit) {
    for (LayerMatch& m : match_layers(a, b, o, from, std::min(layers, from + fit)))
      out.push_back(std::move(m));
  }
  return out;
}

void MatchedTrace::change(TraceRows& rows) const {
  for (std::size_t l = 0; l < rows.layer.size(); ++l) {
    const std::vector<int>& to = matches_[l].to;
    rename(rows.layer[l].expert, to);
    rename(rows.layer[l].kept, to);
    rename(rows.layer[l].predicted, to);
    rename_columns(rows.layer[l].logits, to);
  }
}

void ShuffledTrace::change(TraceRows& rows) const {
  std::vector<Index> valid;
  for (std::size_t t = 0; t < rows.tokens(); ++t) {
    if (rows.valid(t))
      valid.push_back(Index(t));
  }
  std::vector<Index> order = valid;
  Rng rng = Rng(chance::seed, run_).stream(rows.first);
  shuffle(order, rng);
  for (LayerRows& layer : rows.layer)
    reorder(layer.expert, valid, order);
}

namespace {

struct Runs {  // of one layer
  std::vector<double> overlap, first, common, same_set, ami, ari;
  std::vector<std::vector<double>> overlap_k;

  void add(const LayerAgreement& l, const LayerMatch& m) {
    const double n = double(l.tokens);
    overlap.push_back(l.overlap / n);
    first.push_back(double(l.first) / n);
    common.push_back(double(l.common) / double(l.choices));
    same_set.push_back(double(l.same_sets) / n);
    overlap_k.resize(std::max(overlap_k.size(), l.overlap_k.size()));
    for (std::size_t k = 0; k < l.overlap_k.size(); ++k)
      overlap_k[k].push_back(l.overlap_k[k] / double(l.tokens_k[k]));
    ami.push_back(m.ami);
    ari.push_back(m.ari);
  }
  ChanceAgreement agreement() const {
    ChanceAgreement out{chance::of_runs(overlap),
                        chance::of_runs(first),
                        {},
                        chance::of_runs(common).mean,
                        chance::of_runs(same_set).mean};
    for (const auto& k : overlap_k)
      out.overlap_k.push_back(chance::of_runs(k).mean);
    return out;
  }
};

}  // namespace

SimulatedAgreement simulate_agreement(const TraceSource& a, const TraceSource& b,
                                      const MatchOptions& asked) {
  MatchOptions o = asked;
  o.window = std::max<std::uint64_t>(o.window, least_window);
  o.most_tokens = std::min({o.most_tokens, most_simulated, a.tokens()});
  const std::uint64_t n = std::max<std::uint64_t>(1, o.most_tokens);
  const std::uint64_t runs = std::clamp<std::uint64_t>(enough_tokens / n, 3, 20);
  AgreeOptions how;
  how.window = o.window;  // the same windows, so that the same tokens change places
  how.margins.clear();
  std::vector<Runs> seen(a.header().layers.size());
  for (std::uint64_t run = 0; run < runs; ++run) {
    const ShuffledTrace other(b, run, o.most_tokens);
    const auto matches = match_experts(a, other, o);
    const Agreement agreed = agree(MatchedTrace(a, matches, o.most_tokens), other, how);
    for (std::size_t l = 0; l < seen.size(); ++l)
      seen[l].add(agreed.layer[l], matches[l]);
  }
  SimulatedAgreement out;
  for (const Runs& r : seen) {
    out.matched.push_back(r.agreement());
    out.partition.push_back({chance::of_runs(r.ami), chance::of_runs(r.ari)});
  }
  return out;
}

}  // namespace moe
