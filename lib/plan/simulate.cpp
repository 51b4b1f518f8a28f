// One object a layer, each going through all steps in order: layers are the threads' work, so that
// the result does not depend on how many there are.
#include "lib/plan/simulate.h"

#include <algorithm>
#include <memory>
#include <span>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"
#include "lib/plan/conventions.h"
#include "lib/plan/fit.h"
#include "lib/serving/eplb.h"
#include "lib/trace/reader.h"

namespace moe::plan {
namespace {

constexpr std::uint64_t window = 8192;
constexpr std::uint64_t usual_step = 4096;     // tokens, where a trace has no steps
constexpr double forward_of_launch = 1.0 / 3;  // of a factor that is for both passes
constexpr double number_bytes = 2;             // of a row that is exchanged

// Seconds at the rates that practice reaches.
struct Rates {
  double row_s = 0;              // an expert's products for one row
  double expert_s = 0;           // reading one expert
  double link_s = 0, net_s = 0;  // sending one row, there and back
  double launch_s = 0;           // a layer
  double moved_s = 0;            // one expert to another device
};

Rates rates_of(const Simulation& s) {
  const Terms& f = calibration().factors;
  const auto factor = [&](Term t) {
    return f[std::size_t(t)];
  };
  const FeedShape& moe = *s.model.moe();
  const Device& d = s.cluster.device;
  const bool narrow = s.weights.bits < 16;
  const double row = double(s.model.hidden) * number_bytes;
  Rates r;
  r.row_s = 2.0 * moe.matrices * double(moe.width * s.model.hidden) / d.flops(s.weights.bits) *
            factor(narrow ? Term::narrow : Term::wide);
  r.expert_s = s.weights.expert(s.model) / d.bandwidth;
  r.link_s = d.link > 0 ? 2 * row / d.link * factor(Term::link) : 0;
  r.net_s = d.net > 0 ? 2 * row / d.net * factor(Term::net) : 0;
  r.launch_s = factor(Term::graphs) * forward_of_launch;
  const double far = s.cluster.nodes > 1 ? d.net : d.link;
  r.moved_s = far > 0 ? s.weights.expert(s.model) / far : 0;
  return r;
}

// Of everything but experts, spread over all devices: longer of products and of reading weights.
double rest_seconds(const Simulation& s, double tokens) {
  const TokenFlops f = token_flops(s.model, s.context);
  double experts = 0;
  for (const WeightPiece& p : pieces(s.model)) {
    if (p.part == ModelPart::experts)
      experts += 2 * p.size() * p.active;
  }
  const double each = tokens / double(s.cluster.devices());
  const double wide = calibration().factors[std::size_t(Term::wide)];
  const double compute =
      each * (f.products - experts + f.output + f.full) / s.cluster.device.flops16 * wide;
  const double others = s.weights.all(s.model) - s.weights.part(s.model, ModelPart::experts);
  return std::max(compute, others / s.cluster.device.bandwidth);
}

struct LayerStep {
  double seconds = 0, ideal_s = 0, exchange_s = 0, moved_s = 0, imbalance = 1, tokens = 0;
};

class LayerSimulation {
 public:
  LayerSimulation(const Simulation& s, const Rates& rates)
      : s_(s),
        rates_(rates),
        experts_(s.model.moe()->experts),
        ranks_(s.cluster.devices()),
        used_(std::size_t(experts_), 0.0),
        row_(std::size_t(ranks_)),
        copy_(std::size_t(ranks_)),
        node_(std::size_t(s.cluster.nodes)),
        met_rank_(std::size_t(ranks_), 0),
        met_node_(std::size_t(s.cluster.nodes), 0),
        touched_(std::size_t(experts_ + s.extra), 0) {
    place_in_order();
  }

  void token(const LayerRows& rows, std::size_t t) {
    ++token_;
    for (Index c = 0; c < rows.expert.cols(); ++c) {
      const int e = rows.expert(Index(t), c);
      if (e >= 0)
        choice(std::size_t(e));
    }
  }
  void end_step() {
    if (token_ == began_)
      return;
    steps_.push_back(ended());
    if (s_.rebalance > 0 && std::ssize(steps_) % s_.rebalance == 0)
      place_anew();
    std::ranges::fill(row_, 0.0);
    std::ranges::fill(copy_, 0.0);
    std::ranges::fill(node_, 0.0);
    ++step_;
    began_ = token_;
  }
  const std::vector<LayerStep>& steps() const {
    return steps_;
  }

 private:
  void choice(std::size_t e) {
    used_[e] += 1;
    const std::vector<int>& slots = slots_[e];
    const auto slot = std::size_t(slots[std::size_t(token_) % slots.size()]);
    const auto rank = slot * std::size_t(ranks_) / touched_.size();
    row_[rank] += 1;
    touched_[slot] = step_;
    if (met_rank_[rank] != token_) {
      met_rank_[rank] = token_;
      copy_[rank] += 1;
    }
    const auto node = rank / std::size_t(s_.cluster.gpus);
    if (met_node_[node] != token_) {
      met_node_[node] = token_;
      node_[node] += 1;
    }
  }

  LayerStep ended() {
    LayerStep out{.moved_s = moved_, .tokens = double(token_ - began_)};
    std::vector<double> experts(std::size_t(ranks_), 0.0);
    for (std::size_t i = 0; i < touched_.size(); ++i)
      experts[i * std::size_t(ranks_) / touched_.size()] += touched_[i] == step_;
    double slowest = 0;
    double all_rows = 0;
    double all_experts = 0;
    for (std::size_t r = 0; r < row_.size(); ++r) {
      slowest = std::max(slowest, std::max(row_[r] * rates_.row_s, experts[r] * rates_.expert_s));
      all_rows += row_[r];
      all_experts += experts[r];
    }
    const double n = double(ranks_);
    const double ideal = std::max(all_rows / n * rates_.row_s, all_experts / n * rates_.expert_s);
    out.exchange_s = exchange(*std::ranges::max_element(copy_), *std::ranges::max_element(node_));
    out.ideal_s = ideal + rates_.launch_s + exchange_of_means();
    out.seconds = slowest + out.exchange_s + rates_.launch_s + moved_;
    out.imbalance = *std::ranges::max_element(row_) * n / all_rows;
    moved_ = 0;
    return out;
  }
  // Rows that the busiest device and node receive; of its own as many as of any other's.
  double exchange(double rank_rows, double node_rows) const {
    const double nodes = double(s_.cluster.nodes);
    const double gpus = double(s_.cluster.gpus);
    const double link = rank_rows * (1 - 1 / gpus) * rates_.link_s;
    const double net = node_rows / gpus * (1 - 1 / nodes) * rates_.net_s;
    return std::max(link, net);
  }
  double exchange_of_means() const {
    double ranks = 0;
    double nodes = 0;
    for (const double c : copy_)
      ranks += c / double(copy_.size());
    for (const double c : node_)
      nodes += c / double(node_.size());
    return exchange(ranks, nodes);
  }

  void place_in_order() {
    slots_.assign(std::size_t(experts_), {});
    const auto slots = experts_ + s_.extra;
    expert_of_.assign(std::size_t(slots), 0);
    for (Count i = 0; i < slots; ++i)
      put(std::size_t(i), int(i % experts_));
  }
  void put(std::size_t slot, int expert) {
    expert_of_[slot] = expert;
    slots_[std::size_t(expert)].push_back(int(slot));
  }
  // By the loads since the last placement; experts that a device did not hold are sent to it.
  void place_anew() {
    const EplbPlan plan = eplb_plan(used_, {.replicas = int(experts_ + s_.extra),
                                            .nodes = int(s_.cluster.nodes),
                                            .gpus = int(ranks_)});
    const std::vector<int> before = expert_of_;
    slots_.assign(std::size_t(experts_), {});
    const auto on_rank = std::ptrdiff_t(plan.expert.size()) / ranks_;
    double most = 0;
    for (std::ptrdiff_t r = 0; r < ranks_; ++r) {
      const auto had = std::span(before).subspan(std::size_t(r * on_rank), std::size_t(on_rank));
      double sent = 0;
      for (std::ptrdiff_t i = r * on_rank; i < (r + 1) * on_rank; ++i) {
        const int expert = plan.expert[std::size_t(i)];
        put(std::size_t(i), expert);
        sent += std::ranges::find(had, expert) == had.end();
      }
      most = std::max(most, sent);
    }
    moved_ = most * rates_.moved_s;
    std::ranges::fill(used_, 0.0);
  }

  const Simulation& s_;
  Rates rates_;
  Count experts_, ranks_;
  std::vector<std::vector<int>> slots_;  // (E) of each expert
  std::vector<int> expert_of_;           // (slots)
  std::vector<double> used_, row_, copy_, node_;
  std::vector<std::uint64_t> met_rank_, met_node_, touched_;
  std::uint64_t token_ = 0, began_ = 0, step_ = 1;
  double moved_ = 0;
  std::vector<LayerStep> steps_;
};

void check(const Simulation& s, const TraceReader& trace, const std::filesystem::path& path) {
  const FeedShape* moe = s.model.moe();
  if (!moe)
    throw Error(Exit::usage, s.model.name + ": a dense model has no routing to simulate");
  for (const TraceLayer& l : trace.header().layers) {
    if (l.experts != moe->experts || (l.top_k > 0 && l.top_k != moe->k)) {
      throw Error(Exit::input,
                  concat(path.string(), ": its layer ", l.index, " has ", l.experts, " experts, ",
                         l.top_k, " a token, and the model has ", moe->experts, ", ", moe->k))
          .hint("a trace of this model");
    }
  }
  if (trace.tokens() == 0) {
    throw Error(Exit::input, concat(path.string(), ": this trace holds no tokens"))
        .hint("moe show says what it holds");
  }
  if ((moe->experts + s.extra) % s.cluster.devices() != 0) {
    throw Error(Exit::usage, concat("the ", moe->experts + s.extra,
                                    " slots of a layer do not divide "
                                    "among ",
                                    s.cluster.devices(), " devices"))
        .hint("--eplb N: as many slots more than experts as make them divide");
  }
}

// The rows of a window, whose first may go on with step `last`.
void play(LayerSimulation& layer, const TraceRows& rows, std::size_t number,
          const std::function<std::int64_t(std::size_t)>& step_of, std::int64_t last) {
  std::int64_t now = last;
  for (std::size_t t = 0; t < rows.tokens(); ++t) {
    if (const std::int64_t step = step_of(t); step != now) {
      layer.end_step();
      now = step;
    }
    if (rows.valid(t))
      layer.token(rows.layer[number], t);
  }
}

std::vector<SimulatedStep> together(const Simulation& s,
                                    const std::vector<std::unique_ptr<LayerSimulation>>& layers) {
  const double scale = double(s.model.moe_layers()) / double(layers.size());
  std::vector<SimulatedStep> out(layers.front()->steps().size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    SimulatedStep& step = out[i];
    step.imbalance = 0;
    for (const auto& layer : layers) {
      const LayerStep& l = layer->steps()[i];
      step.seconds += l.seconds * scale;
      step.ideal_s += l.ideal_s * scale;
      step.exchange_s += l.exchange_s * scale;
      step.moved_s += l.moved_s * scale;
      step.imbalance += l.imbalance / double(layers.size());
      step.tokens = l.tokens;
    }
    const double rest = rest_seconds(s, step.tokens);
    step.seconds += rest;
    step.ideal_s += rest;
  }
  return out;
}

}  // namespace

std::vector<SimulatedStep> simulate(const std::filesystem::path& path, const Simulation& s,
                                    const std::function<void(std::uint64_t)>& progress) {
  const TraceReader trace(path);
  check(s, trace, path);
  const Rates rates = rates_of(s);
  std::vector<std::unique_ptr<LayerSimulation>> layers;
  for (std::size_t l = 0; l < trace.header().layers.size(); ++l)
    layers.push_back(std::make_unique<LayerSimulation>(s, rates));
  TraceFields choices;
  choices.weights = choices.dropped = choices.entropy = choices.margin = choices.logsumexp = false;
  const std::uint64_t tokens =
      s.most_tokens > 0 ? std::min(s.most_tokens, trace.tokens()) : trace.tokens();
  const bool has_steps = trace.steps().size() > 1;
  std::int64_t last = -1;
  for (std::uint64_t at = 0; at < tokens; at += window) {
    const TraceRows rows = trace.read(at, std::min(window, tokens - at), choices);
    const auto step_of = [&](std::size_t t) {
      return has_steps ? std::int64_t(rows.step[t]) : std::int64_t((at + t) / usual_step);
    };
    parallel_for(Index(layers.size()), 1, [&](Index first, Index end) {
      for (Index l = first; l < end; ++l)
        play(*layers[std::size_t(l)], rows, std::size_t(l), step_of, last);
    });
    if (rows.tokens() > 0)
      last = step_of(rows.tokens() - 1);
    if (progress)
      progress(at + rows.tokens());
  }
  for (const auto& layer : layers)
    layer->end_step();
  return together(s, layers);
}

}  // namespace moe::plan
