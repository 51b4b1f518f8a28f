// The most travelled paths: a token's first choices through all layers. Counted exactly while the
// distinct paths fit in memory; beyond that by Misra-Gries (1982), which never overstates a path
// and says by how much it may understate.
#include <algorithm>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/path_table.h"
#include "analysis/metric/verdict.h"
#include "lib/core/text.h"

namespace moe {
namespace {

class Paths final : public Metric {
 public:
  Paths(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o)
      : shape_(trace),
        top_(spec.get("top", 20, 1)),
        most_(std::size_t(std::max<std::int64_t>(
            1024, o.memory / 4 / std::int64_t(96 + 2 * shape_.experts.size())))),
        first_(shape_.experts.size()) {
    for (std::size_t l = 0; l < first_.size(); ++l)
      first_[l].assign(std::size_t(shape_.experts[l]), 0);
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe(const Window& w) override {
    const std::size_t layers = shape_.experts.size();
    if (layers == 0)
      return;
    path_.resize(w.valid.size() * layers);
    whole_.assign(w.valid.size(), 1);
    for (std::size_t l = 0; l < layers; ++l) {
      for (std::size_t i = 0; i < w.valid.size(); ++i) {
        const int e = w.layer[l].first(w.valid[i]);
        if (e < 0 || e >= 0xFFFF)
          whole_[i] = 0;
        path_[i * layers + l] = std::uint16_t(e);
      }
    }
    for (std::size_t i = 0; i < w.valid.size(); ++i) {
      if (!whole_[i])
        continue;
      const std::uint16_t* path = &path_[i * layers];
      ++tokens_;
      for (std::size_t l = 0; l < layers; ++l)
        ++first_[l][path[l]];
      count_.add(path);
      if (count_.size() > most_) {
        count_.thin();
        ++understated_;
      }
    }
  }

  std::vector<MetricValue> values() const override {
    MetricValue v{"path_frequency", {0}, {}};
    for (const std::size_t i : sorted())
      v.values.push_back(double(count_.count(i)) / double(tokens_));
    v.dims[0] = Index(v.values.size());
    return {v};
  }

  void report(Report&) const override;

 private:
  // the `top` first, of equals in the order of their experts
  std::vector<std::size_t> sorted() const {
    std::vector<std::size_t> all(count_.size());
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i] = i;
    const auto order = [&](std::size_t a, std::size_t b) {
      return count_.count(a) != count_.count(b)
                 ? count_.count(a) > count_.count(b)
                 : std::ranges::lexicographical_compare(count_.path(a), count_.path(b));
    };
    const std::size_t n = std::min(all.size(), std::size_t(top_));
    std::partial_sort(all.begin(), all.begin() + std::ptrdiff_t(n), all.end(), order);
    all.resize(n);
    return all;
  }

  struct Listed {  // rows of the table
    std::vector<std::string> name;
    std::vector<std::int64_t> count;
    Values::Rows share;
    std::vector<double> expected;
  };
  Listed listed() const;
  void table(Report&, const Listed&) const;
  void finding(Report&) const;

  Shape shape_;
  int top_;
  std::size_t most_;
  std::vector<std::vector<std::int64_t>> first_;  // (L)(E) first choices
  PathTable count_{shape_.experts.size()};
  std::vector<std::uint16_t> path_;  // (tokens of a window, L)
  std::vector<char> whole_;          // has a first choice in every layer
  std::int64_t tokens_ = 0, understated_ = 0;
};

void Paths::report(Report& r) const {
  if (tokens_ == 0 || shape_.layers() < 2)
    return;
  if (count_.size() == 0) {
    return r.warnings.push_back(
        "more distinct paths than memory allows, and none of them often enough to be kept: the "
        "most travelled paths are left out");
  }
  table(r, listed());
  finding(r);
}

Paths::Listed Paths::listed() const {
  double all_paths = 1;
  for (const int e : shape_.experts)
    all_paths *= e;
  const std::vector<std::size_t> top = sorted();
  const std::vector<double> lot = chance::fullest_cells(all_paths, double(tokens_), top.size());
  Listed out;
  for (std::size_t i = 0; i < top.size(); ++i) {
    const auto path = count_.path(top[i]);
    const std::int64_t n = count_.count(top[i]);
    std::string text;
    double independent = 1;
    for (std::size_t l = 0; l < path.size(); ++l) {
      text += concat(l ? "→" : "", path[l]);
      independent *= double(first_[l][path[l]]) / double(tokens_);
    }
    out.name.push_back(text);
    out.count.push_back(n);
    out.share.add(double(n) / double(tokens_), lot[i] / double(tokens_));
    out.expected.push_back(independent * double(tokens_));
  }
  return out;
}

void Paths::table(Report& r, const Listed& rows) const {
  TableBuilder t("paths", "The most travelled paths", section::paths);
  t.reading(
      "A path is a token's first choice in every layer. Random routing spreads the tokens over "
      "all paths alike, yet some paths are taken more often: the chance values are those of "
      "the most, second most, ... travelled. `if independent` is how many tokens would take it "
      "if layers ignored each other but kept their loads.");
  t.key("path", "experts from the first to the last MoE layer", rows.name);
  t.column("tokens").unit("tokens").meaning("tokens that took it").values(rows.count);
  t.column("share")
      .unit("share")
      .meaning("of all tokens")
      .of("path_frequency")
      .digits(5)
      .rows(rows.share);
  t.column("if independent")
      .unit("tokens")
      .meaning("expected tokens from the layers' first-choice shares alone")
      .digits(1)
      .values(rows.expected);
  if (understated_) {
    t.warn(concat("more distinct paths than memory allows: each count may be up to ", understated_,
                  " too low"));
  }
  t.into(r);
}

// How many paths there are in all stands in no table: it is the number of rows before the table is
// cut to the most travelled.
void Paths::finding(Report& r) const {
  const QuotedTable t(r, "paths");
  const QuotedCell most = t.cell("tokens", 0);
  if (most.number() < 2) {
    return tell(r, Priority::chance, derived("No two tokens take the same path", {most.basis()}),
                " through the ", shape_.layers(), " layers.");
  }
  // by the Poisson tails of all paths together
  double all_paths = 1;
  for (const int e : shape_.experts)
    all_paths *= e;
  const double by_chance =
      all_paths * chance::poisson_tail(double(tokens_) / all_paths, most.number());
  const Finding first =
      by_chance > chance::rarely
          ? told(Priority::chance,
                 "No path is travelled more than under random routing of this size. ")
          : Finding{};
  const auto sum = [&](std::span<const double> shares) {
    return derived(percent(std::accumulate(shares.begin(), shares.end(), 0.0)), {t.basis("share")});
  };
  tell(r, first, "The most travelled path",
       shape_.layers() <= 8 ? told(", ", t.cell("path", 0), ",") : Finding{}, " is taken by ",
       t.cell("share", 0).percent(), " of the tokens; the ",
       derived(concat(t.rows()), {t.basis("path")}), " busiest of ",
       understated_ ? "more than " : "", count_.size(), " paths carry ", sum(t.numbers("share")),
       " (random routing: ", sum(t.chances("share")), ").");
}

}  // namespace

std::unique_ptr<Metric> make_paths_metric(Spec& spec, const TraceSource& trace,
                                          const AnalyzeOptions& o) {
  return std::make_unique<Paths>(spec, trace, o);
}

}  // namespace moe
