// How well the experts recover planted labels: the cluster of every token id, known where
// the dataset made it. First choices only.
#include <algorithm>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/verdict.h"
#include "lib/core/text.h"

namespace moe {
namespace {

class Planted final : public Metric {
 public:
  Planted(const TraceSource& trace, const AnalyzeOptions& o)
      : shape_(trace), labels_(o.planted_labels) {
    for (const int c : labels_)
      clusters_ = std::max(clusters_, c + 1);
    for (const int e : shape_.experts)
      first_.emplace_back(e, clusters_);
    ranked_.assign(first_.size(), 1);
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    if (clusters_ == 0)
      return;
    Counts& c = first_[l];
    ranked_[l] = w.layer[l].ranked;
    for (const Index t : w.valid) {
      const std::uint32_t id = w.rows.token_id[t];
      const int e = w.layer[l].first(t);
      if (id < labels_.size() && labels_[id] >= 0 && e >= 0)
        ++c(e, labels_[id]);
    }
  }

  std::vector<MetricValue> values() const override {
    if (clusters_ == 0)
      return {};
    std::vector<double> ami, purity;
    for (std::size_t l = 0; l < first_.size(); ++l) {
      ami.push_back(ranked_[l] ? adjusted_mutual_information(first_[l]) : no_value);
      purity.push_back(best_guess_share(first_[l]));
    }
    return {per_layer("planted_ami", ami), per_layer("planted_purity", purity)};
  }

  void report(Report& r) const override {
    if (clusters_ == 0)
      return;
    Values all(values());
    std::int64_t most = 0;
    Memo& memo = store().memo;
    for (std::size_t l = 0; l < first_.size(); ++l) {
      const auto clusters = column_sums(first_[l]);
      const std::int64_t n = std::accumulate(clusters.begin(), clusters.end(), std::int64_t{0});
      most = std::max(most, n);
      const auto& random = memo.get(key_of(shape_.experts[l], 1, clusters), [&] {
        return chance::simulate_joint(clusters, shape_.experts[l], 1, 1, [](const Counts& c) {
          return std::vector<double>{purity(c)};
        });
      });
      all["planted_purity"].chance.add(random.front());
    }
    if (most == 0) {
      return r.warnings.push_back(
          "no token of the trace has a planted cluster: --planted-labels names another dataset "
          "than the "
          "trace was made with");
    }
    table(r, all);
    finding(r);
  }

 private:
  void table(Report& r, const Values& values) const {
    TableBuilder t("planted", "Do the experts recover what was planted?", section::specialisation);
    t
        .reading(concat(
            "First choices against the ", clusters_,
            " clusters of the dataset. Agreement 1: experts and clusters cut the tokens alike; it "
            "falls too where several experts share a cluster. "
            "Purity: how often an expert's most frequent cluster is right. Random routing gives "
            "agreement 0 and the purity beside."))
        .chart(Chart::lines);
    t.layers(shape_.number);
    t.column("agreement")
        .meaning("adjusted mutual information of first choice and cluster")
        .of("planted_ami", values)
        .chance(0);
    t.column("purity")
        .unit("share")
        .meaning("first choices whose expert's most frequent cluster is the token's")
        .of("planted_purity", values);
    t.into(r);
  }
  void finding(Report& r) const {
    const QuotedTable t(r, "planted");
    const std::size_t best = largest(t.numbers("agreement"));
    const auto clusters = column_sums(first_[best]);
    const double seen = std::accumulate(clusters.begin(), clusters.end(), 0.0);
    const Column& purity = t.column("purity");
    const Standing s =
        standing(t.numbers("purity")[best], {purity.chance.at(best), purity.chance_spread.at(best)},
                 {.tokens = seen, .figures = double(first_.size())});
    const Finding first =
        s.shown == Shown::too_few
            ? told(too_few(seen, "whether experts recover the planted clusters", s.needed), " ")
        : s.shown == Shown::no_more
            ? told(Priority::chance,
                   "The experts do not recover the planted clusters, no more than random routing. ")
            : Finding{};
    tell(r, first, "The planted clusters are recovered best in layer ", t.cell("layer", best),
         ": agreement ", t.cell("agreement", best).figure(3), " (random routing: 0), purity ",
         t.cell("purity", best).percent(), " (random routing: ", t.chance("purity", best).percent(),
         ").");
  }
  // (clusters,E): the largest cluster of each expert, over all
  static double purity(const Counts& by_cluster) {
    double best = 0;
    for (Index e = 0; e < by_cluster.cols(); ++e) {
      std::int64_t most = 0;
      for (Index c = 0; c < by_cluster.rows(); ++c)
        most = std::max(most, by_cluster(c, e));
      best += double(most);
    }
    const auto rows = row_sums(by_cluster);
    return best / double(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
  }

  Shape shape_;
  std::vector<int> labels_;
  int clusters_ = 0;
  std::vector<Counts> first_;         // (L)(E,clusters)
  std::vector<std::uint8_t> ranked_;  // (L) first choices are known
};

}  // namespace

std::unique_ptr<Metric> make_planted_metric(Spec&, const TraceSource& trace,
                                            const AnalyzeOptions& o) {
  return std::make_unique<Planted>(trace, o);
}

}  // namespace moe
