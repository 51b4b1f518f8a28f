// How routing changed while the model was trained, from one trace recorded during training: its
// steps are cut into blocks, and each block's loads, and the expert that each token id goes to, are
// compared. Nothing for traces without training steps.
#include <cmath>
#include <map>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/count_pass.h"
#include "analysis/metric/layout.h"
#include "lib/core/load.h"

namespace moe {
namespace {

class Drift final : public Metric {
 public:
  Drift(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o)
      : shape_(trace),
        blocks_(spec.get("blocks", 8, 2)),
        ids_(spec.get("ids", 1024, 1)),
        vocabulary_(trace.header().vocab_size),
        counted_(counts_only(trace)) {
    auto steps = trace.steps();
    training_ = std::any_of(steps.begin(), steps.end(),
                            [](const TraceStep& s) { return s.phase == Phase::train; });
    if (counted_)
      steps.resize(std::size_t(trace.count_steps()));
    if ((!training_ && !counted_) || steps.size() < 2)
      return;
    blocks_ = int(std::min<std::size_t>(std::size_t(blocks_), steps.size()));
    steps_ = steps.size();
    for (int b = 0; b < blocks_; ++b)
      from_.push_back(steps[std::size_t(b) * steps_ / std::size_t(blocks_)].step);
    std::int64_t each = 0;  // bytes an id takes in all layers
    for (const int e : shape_.experts)
      each += std::int64_t{4} * e * blocks_;
    ids_ = int(std::clamp<std::int64_t>(o.memory / 4 / std::max<std::int64_t>(1, each), 1, ids_));
    for (const int e : shape_.experts) {
      layer_.push_back({Matrix<std::int64_t>(blocks_, e),
                        std::vector<std::int64_t>(std::size_t(blocks_), 0),
                        {},
                        {}});
    }
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    if (layer_.empty())
      return;
    State& s = layer_[l];
    const int experts = shape_.experts[l];
    for (const Index t : w.valid) {
      const auto chosen = w.layer[l].of(t);
      if (chosen.empty())
        continue;
      const std::size_t block = block_of(w.rows.step[t]);
      auto counts = s.counts.row(Index(block));
      for (const int e : chosen)
        ++counts[e];
      ++s.tokens[block];
      const int first = w.layer[l].first(t);
      const int slot = slot_of(s, w.rows.token_id[t], experts);
      if (slot >= 0 && first >= 0) {
        ++s.first[(std::size_t(slot) * std::size_t(blocks_) + block) * std::size_t(experts) +
                  std::size_t(first)];
      }
    }
  }

  bool counts_suffice() const override {
    return true;
  }
  void observe_counts(const CountWindow& w, Index l) override {
    if (layer_.empty())
      return;
    State& s = layer_[l];
    for (Index step = 0; step < w.count(); ++step) {
      const std::size_t block = block_of(w.steps.first + std::uint64_t(step));
      const auto counts = w.of(step, l);
      for (std::size_t e = 0; e < counts.size(); ++e)
        s.counts(Index(block), Index(e)) += counts[e];
      add_tokens(s.tokens[block], w.tokens(step, l));
    }
  }

  std::vector<MetricValue> values() const override {
    if (layer_.empty())
      return {};
    std::vector<std::vector<double>> cv, most, moved, settled;
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      cv.push_back(block_cv(layer_[l]));
      most.push_back(block_maxvio(layer_[l]));
      moved.push_back(moves(layer_[l]));
      settled.push_back(saturation(layer_[l], shape_.experts[l]));
    }
    std::vector<MetricValue> out{per_layer("load_drift_cv", cv),
                                 per_layer("load_drift_maxvio", most),
                                 per_layer("load_drift_tv", moved)};
    if (!counted_)
      out.push_back(per_layer("token_saturation", settled));
    return out;
  }

  void report(Report&) const override;

 private:
  struct State {
    Matrix<std::int64_t> counts;       // (blocks,E)
    std::vector<std::int64_t> tokens;  // (blocks); -1: not known
    std::vector<int> slot;             // (vocabulary) place among the ids followed, -1 = none
    std::vector<std::uint32_t> first;  // (ids seen, blocks, E) first choices
  };
  std::size_t block_of(std::uint64_t step) const {
    return std::min<std::size_t>(step * std::size_t(blocks_) / steps_, std::size_t(blocks_) - 1);
  }
  // the first ids_ distinct ids are followed
  int slot_of(State& s, std::uint32_t id, int experts) const {
    constexpr std::uint32_t most = 1u << 20;
    if (id >= (vocabulary_ ? std::min(vocabulary_, most) : most))
      return -1;
    if (id >= s.slot.size())
      s.slot.resize(std::size_t(id) + 1, -1);
    if (s.slot[id] < 0) {
      const std::size_t each = std::size_t(blocks_) * std::size_t(experts);
      const std::size_t known = s.first.size() / each;
      if (known >= std::size_t(ids_))
        return -1;
      s.slot[id] = int(known);
      s.first.resize(s.first.size() + each, 0);
    }
    return s.slot[id];
  }
  std::vector<double> block_cv(const State& s) const {
    std::vector<double> out;
    for (Index b = 0; b < s.counts.rows(); ++b)
      out.push_back(cv_of(s.counts.row(b)));
    return out;
  }
  static std::vector<double> block_maxvio(const State& s) {
    std::vector<double> out;
    for (Index b = 0; b < s.counts.rows(); ++b)
      out.push_back(load_figures(s.counts.row(b)).maxvio);
    return out;
  }
  static double cv_of(std::span<const std::int64_t> c) {
    const double n = double(c.size());
    const double mean = std::accumulate(c.begin(), c.end(), 0.0) / n;
    double around = 0;
    for (const auto v : c)
      around += (double(v) - mean) * (double(v) - mean) / n;
    return mean > 0 ? std::sqrt(around) / mean : no_value;
  }
  // (blocks-1) total variation to the block before
  std::vector<double> moves(const State& s) const {
    std::vector<double> out;
    for (Index b = 1; b < s.counts.rows(); ++b) {
      const auto x = s.counts.row(b - 1);
      const auto y = s.counts.row(b);
      const double nx = std::accumulate(x.begin(), x.end(), 0.0);
      const double ny = std::accumulate(y.begin(), y.end(), 0.0);
      double distance = nx > 0 && ny > 0 ? 0 : no_value;
      for (std::size_t e = 0; e < x.size(); ++e)
        distance += std::abs(double(x[e]) / nx - double(y[e]) / ny) / 2;
      out.push_back(distance);
    }
    return out;
  }
  // Share of a block's tokens (of ids that the last block has too) whose id had the same favourite
  // then as at the end.
  std::vector<double> saturation(const State& s, int experts) const {
    const std::size_t e = std::size_t(experts);
    const std::size_t n = std::size_t(blocks_);
    std::vector<double> same(n, 0);
    std::vector<double> all(n, 0);
    std::vector<double> out;
    for (std::size_t id = 0; id * n * e < s.first.size(); ++id) {
      const auto favourite = [&](std::size_t b) {
        const auto begin = s.first.begin() + std::ptrdiff_t((id * n + b) * e);
        const auto best = std::max_element(begin, begin + std::ptrdiff_t(e));
        return std::pair{best - begin, std::accumulate(begin, begin + std::ptrdiff_t(e), 0.0)};
      };
      const auto end = favourite(n - 1);
      for (std::size_t b = 0; b < n && end.second > 0; ++b) {
        const auto now = favourite(b);
        all[b] += now.second;
        same[b] += now.first == end.first ? now.second : 0;
      }
    }
    for (std::size_t b = 0; b < n; ++b)
      out.push_back(all[b] > 0 ? same[b] / all[b] : no_value);
    return out;
  }
  // The same when every token's first choice is drawn at random: a rare id's favourite is the lower
  // of equals, so it is one expert more often than another.
  std::vector<chance::Value> saturation_by_lot(const State& s, int experts,
                                               chance::Labels& label) const {
    const std::size_t e = std::size_t(experts);
    const std::size_t n = std::size_t(blocks_);
    std::vector<double> same(n, 0);
    std::vector<double> all(n, 0);
    std::vector<double> square(n, 0);
    std::vector<chance::Value> out;
    for (std::size_t id = 0; id * n * e < s.first.size(); ++id) {
      const auto seen = [&](std::size_t b) {
        const auto begin = s.first.begin() + std::ptrdiff_t((id * n + b) * e);
        return std::accumulate(begin, begin + std::ptrdiff_t(e), std::int64_t{0});
      };
      const std::int64_t end = seen(n - 1);
      for (std::size_t b = 0; b < n && end > 0; ++b) {
        const std::int64_t now = seen(b);
        if (now == 0)
          continue;
        const double p = b + 1 == n ? 1 : label.same_favourite(now, end);
        all[b] += double(now);
        same[b] += double(now) * p;
        square[b] += double(now) * double(now) * p * (1 - p);
      }
    }
    for (std::size_t b = 0; b < n; ++b) {
      out.push_back(all[b] > 0 ? chance::Value{same[b] / all[b], std::sqrt(square[b]) / all[b]}
                               : chance::Value{});
    }
    return out;
  }

  struct Blocks {  // of one figure, (blocks): the mean over layers, and what chance gives in each
    explicit Blocks(std::size_t n) : mean(n, 0), by_lot(n) {}
    void add(std::size_t block, double v, const chance::Value& by_chance, std::size_t layers) {
      mean[block] += v * (1.0 / double(layers));
      by_lot[block].push_back(by_chance);
    }
    std::vector<double> mean;
    std::vector<std::vector<chance::Value>> by_lot;  // (blocks, layers)
  };
  struct OverLayers {
    Blocks cv, most, moved, settled;
  };
  static double known(std::int64_t tokens) {
    return tokens < 0 ? no_value : double(tokens);
  }
  static chance::Value cv_by_lot(double experts, double k, double tokens);
  static bool counts_any(const State& s) {
    return std::ranges::any_of(s.counts.flat(), [](std::int64_t c) { return c > 0; });
  }
  chance::Value maxvio_by_lot(int experts, int k, std::int64_t tokens) const;
  OverLayers over_layers() const;  // that have any
  void add_layer(OverLayers&, std::size_t l, std::size_t layers) const;
  Values mean_values() const;

  Shape shape_;
  int blocks_, ids_;
  std::uint32_t vocabulary_;
  bool counted_;  // by the engine, there are no tokens
  bool training_ = false;
  std::size_t steps_ = 0;
  std::vector<std::int64_t> from_;  // (blocks) training step of each block's first rows
  std::vector<State> layer_;
};

// One block of one layer: how uneven its counts are, by chance too.
chance::Value Drift::cv_by_lot(double experts, double k, double tokens) {
  const double root = chance::mean_root(experts - 1);
  const double even = chance::load_cv(experts, k, tokens);
  return {even * root, even * std::sqrt(std::max(0.0, 1 - root * root))};
}

chance::Value Drift::maxvio_by_lot(int experts, int k, std::int64_t tokens) const {
  return store().memo.get({double(experts), double(k), double(tokens)}, [&] {
    return chance::simulate_load(experts, k, tokens, 1, [](auto counts) {
      return std::vector<double>{load_figures(counts).maxvio};
    });
  })[0];
}

Drift::OverLayers Drift::over_layers() const {
  const std::size_t n = std::size_t(blocks_);
  OverLayers out{Blocks(n), Blocks(n), Blocks(n), Blocks(n)};
  const auto layers = std::size_t(std::ranges::count_if(layer_, counts_any));
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    if (counts_any(layer_[l]))
      add_layer(out, l, layers);
  }
  return out;
}

// One of so many layers.
void Drift::add_layer(OverLayers& out, std::size_t l, std::size_t layers) const {
  const State& s = layer_[l];
  const int experts = shape_.experts[l];
  const auto cv = block_cv(s);
  const auto most = block_maxvio(s);
  const auto moved = moves(s);
  const auto settled = saturation(s, experts);
  const auto settled_by_lot = saturation_by_lot(s, experts, store().labels(experts, 1));
  for (std::size_t b = 0; b < std::size_t(blocks_); ++b) {
    const auto row = s.counts.row(Index(b));
    const double tokens = known(s.tokens[b]);
    const double k = std::accumulate(row.begin(), row.end(), 0.0) / tokens;
    const double before = b ? known(s.tokens[b - 1]) : 0;
    const double harmonic = 2 * tokens * before / (tokens + before);
    out.cv.add(b, cv[b], cv_by_lot(experts, k, tokens), layers);
    out.most.add(b, most[b], maxvio_by_lot(experts, whole_choices(k, experts), rounded(tokens)),
                 layers);
    const bool comparable = b > 0 && !std::isnan(harmonic);
    out.moved.add(b, b ? moved[b - 1] : no_value,
                  {comparable ? chance::total_variation(experts, k, harmonic) : no_value}, layers);
    out.settled.add(b, settled[b], settled_by_lot[b], layers);
  }
}

Values Drift::mean_values() const {
  const OverLayers all = over_layers();
  Values out;
  const auto add = [&](const char* id, const Blocks& blocks) {
    for (std::size_t b = 0; b < std::size_t(blocks_); ++b)
      out[id].add(blocks.mean[b], chance::mean_of_independent(blocks.by_lot[b]));
  };
  add("load_drift_cv", all.cv);
  add("load_drift_maxvio", all.most);
  add("load_drift_tv", all.moved);
  add("token_saturation", all.settled);
  return out;
}

void Drift::report(Report& r) const {
  if (std::ranges::none_of(layer_, counts_any))
    return;
  const Values values = mean_values();
  TableBuilder t(
      "drift",
      training_ ? "How routing settled during training" : "How the loads changed over the steps",
      section::balance);
  t.reading(
       concat("Mean over layers of each block of ", training_ ? "training steps" : "steps",
              ": how uneven the loads are, and how far the busiest expert lies above their mean; "
              "how far they moved since the block before (0 = not at all, 1 = to other "
              "experts altogether)",
              counted_ ? ""
                       : "; and for how many tokens the id's favourite expert is already the "
                         "one it has in the last block",
              ". Chance values: tokens that draw their experts at random."))
      .chart(Chart::lines);
  t.key("from step", concat("first ", training_ ? "training step" : "step", " of the block"),
        from_);
  t.column("load CV").meaning("of the block's counts").of("load_drift_cv", values);
  t.column("MaxVio")
      .unit("x mean")
      .meaning("load of the busiest expert over the mean load, less 1, of the block's counts")
      .of("load_drift_maxvio", values);
  t.column("moved")
      .unit("share")
      .meaning("total variation between the load shares of this block and the one before")
      .of("load_drift_tv", values);
  if (!counted_) {
    t.column("settled")
        .unit("share")
        .meaning("tokens whose id has its final favourite expert")
        .of("token_saturation", values);
  }
  t.into(r);
}

}  // namespace

std::unique_ptr<Metric> make_drift_metric(Spec& spec, const TraceSource& trace,
                                          const AnalyzeOptions& o) {
  return std::make_unique<Drift>(spec, trace, o);
}

}  // namespace moe
