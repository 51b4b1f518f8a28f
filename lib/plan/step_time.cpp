// The terms of a training step.
#include "lib/plan/step_time.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/plan/conventions.h"

namespace moe::plan {
namespace {

constexpr double row_bytes = 2;  // of a number that is exchanged or written between products
constexpr double weight_bytes = 2, gradient_bytes = 4, moment_bytes = 12;
constexpr int exchanges = 4;         // there and back, forwards and backwards
constexpr int tensor_exchanges = 5;  // gathers and scatters of a layer cut over tp, both passes
constexpr double step_bytes = 30;    // read and written of a parameter by the optimiser

std::size_t at(Term t) {
  return std::size_t(t);
}

// What one token does in the whole model, forwards.
struct TokenWork {
  double dense = 0, experts = 0;  // FLOPs of products
  double attention = 0;
  double numbers = 0;                            // written and read between products
  double expert_weights = 0, other_weights = 0;  // parameters
  double layers = 0, moe_layers = 0;
};

void add_piece(TokenWork& w, const WeightPiece& p) {
  const bool expert = p.part == ModelPart::experts;
  (expert ? w.expert_weights : w.other_weights) += p.size() * double(p.count);
  if (!p.multiplied)
    return;
  (expert ? w.experts : w.dense) += 2 * p.size() * p.active;
  w.numbers += double(p.rows + p.cols) * p.active;
}

TokenWork work_of(const Architecture& a, const Layout& l) {
  TokenWork w;
  for (const WeightPiece& p : pieces(a))
    add_piece(w, p);
  const TokenFlops f = token_flops(a, l.sequence);
  w.attention = f.causal;
  w.layers = double(a.layers.size());
  w.moe_layers = double(a.moe_layers());
  if (l.further && a.further_layers > 0) {
    const double n = double(a.further_layers);
    w.dense += f.further;  // its experts among them
    w.layers += n;
    w.moe_layers += n;
    w.numbers += n * w.numbers / double(a.layers.size());
  }
  w.numbers += 6 * double(a.hidden) * w.layers;
  if (const FeedShape* moe = a.moe()) {
    // rows put in order of experts and back, gates
    const double k = double(moe->k);
    w.numbers += w.moe_layers * (4 * k * double(a.hidden) + 3 * k * double(moe->width));
  }
  return w;
}

// FLOPs of the units that stages are cut from: layers, layers of further tokens, output matrix.
std::vector<double> units(const Architecture& a, const Layout& l) {
  std::vector<double> out;
  Architecture one = a;
  one.further_layers = 0;
  const double outside = moe::flops(a, l.sequence).products;
  for (const LayerShape& layer : a.layers) {
    one.layers = {layer};
    Architecture none = one;
    none.layers.clear();
    out.push_back(moe::flops(one, l.sequence).products - moe::flops(none, l.sequence).products +
                  moe::flops(one, l.sequence).attention / 2);
  }
  const TokenFlops f = token_flops(a, l.sequence);
  if (l.further && a.further_layers > 0)
    out.push_back(f.further);
  out.push_back(std::min(f.output, outside));
  return out;
}

// The longest of `chunks` neighbouring pieces of the units, as short as it can be.
double longest_chunk(const std::vector<double>& unit, Count chunks) {
  const auto pieces_of = [&](double most) {
    Count n = 1;
    double sum = 0;
    for (const double u : unit) {
      if (sum + u > most && sum > 0) {
        ++n;
        sum = 0;
      }
      sum += u;
    }
    return n;
  };
  double low = *std::ranges::max_element(unit);
  double high = std::accumulate(unit.begin(), unit.end(), 0.0);
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (pieces_of(middle) <= chunks ? high : low) = middle;
  }
  return high;
}

ExchangeShape exchange_of(const Architecture& a, const Cluster& c, const Layout& l) {
  const FeedShape* moe = a.moe();
  if (!moe)
    return {};
  return {.experts = moe->experts,
          .k = moe->k,
          .ranks = l.ep,
          .gpus = std::min(c.gpus, l.ep),
          .limit_nodes = l.limit_nodes};
}

struct Groups {  // ranks that hold the same parameters
  double dense = 1, experts = 1;
};
Groups groups_of(const Layout& l) {
  return {double(l.dp), double(l.dp * l.tp) / double(l.ep)};
}

double others(double ranks) {
  return (ranks - 1) / ranks;
}

// Bytes that a device sends for gradients and weights of a step.
double shared_bytes(const TokenWork& w, const Layout& l) {
  const Groups g = groups_of(l);
  const double stages = double(l.pp);
  const double dense = w.other_weights / (stages * double(l.tp)) * others(g.dense);
  const double experts = w.expert_weights / (stages * double(l.ep)) * others(g.experts);
  const double micro = double(l.micro_batches());
  const double each = l.zero == 0   ? 2 * gradient_bytes
                      : l.zero == 1 ? gradient_bytes + weight_bytes
                                    : gradient_bytes + 2 * weight_bytes * micro;
  return (dense + experts) * each;
}

void add_exchange(StepParts& out, const Architecture& a, const Cluster& c, const Layout& l,
                  const TokenWork& w, double tokens) {
  const Rows rows = rows_sent(exchange_of(a, c, l), l.dispatch);
  const double row = double(a.hidden) * row_bytes;
  const double each = exchanges * w.moe_layers * tokens * row * (1 - l.overlap) * out.imbalance;
  if (rows.link > 0)
    out.seconds[at(Term::link)] += each * rows.link / c.device.link;
  if (rows.net > 0)
    out.seconds[at(Term::net)] += each * rows.net / c.device.net;
  if (l.tp > 1) {
    const double gathered = tokens * double(l.tp) * others(double(l.tp)) * row;
    out.seconds[at(Term::link)] += tensor_exchanges * w.layers * gathered / c.device.link;
  }
}

void add_compute(StepParts& out, const Architecture& a, const Cluster& c, const Layout& l,
                 const TokenWork& w, const StepOptions& options) {
  const double tokens = double(l.mbs * l.sequence) / double(l.tp);
  const double passes = l.recompute ? 4 : 3;
  double dense = w.dense;
  double experts = w.experts * out.imbalance;
  const FeedShape* moe = a.moe();
  if (options.efficiency) {
    dense /= options.efficiency(tokens);
    if (moe) {
      const double rows = tokens * double(moe->k) * double(l.ep) / double(moe->experts);
      experts /= options.efficiency(rows);
    }
  }
  const double products = passes * tokens * (dense + experts) / c.device.flops(l.bits);
  out.seconds[at(l.bits < 16 ? Term::narrow : Term::wide)] += products;
  out.seconds[at(Term::wide)] += passes * tokens * w.attention / c.device.flops16;
  out.seconds[at(Term::rows)] = passes * tokens * w.numbers * row_bytes / c.device.bandwidth;
  add_exchange(out, a, c, l, w, tokens);
  out.seconds[at(l.graphs ? Term::graphs : Term::launch)] = w.layers;
}

// What a step takes once, when its micro-batches are done.
void add_step_end(StepParts& out, const Cluster& c, const Layout& l, const TokenWork& w) {
  const Groups g = groups_of(l);
  const bool far = l.dp * l.tp > c.gpus;
  out.seconds[at(Term::gradients)] =
      c.devices() > 1 ? shared_bytes(w, l) / (far ? c.device.net : c.device.link) : 0;
  const double share = l.zero > 0 ? 1 : 0;
  const double mine =
      w.other_weights / (double(l.pp) * double(l.tp)) / (share > 0 ? g.dense : 1) +
      w.expert_weights / (double(l.pp) * double(l.ep)) / (share > 0 ? g.experts : 1);
  out.seconds[at(Term::optimizer)] = mine * step_bytes / c.device.bandwidth;
}

}  // namespace

std::string_view name_of(Term t) {
  constexpr std::string_view names[term_count] = {
      "narrow products", "16-bit products", "activations", "links",    "network",
      "launching",       "graphs",          "gradients",   "optimiser"};
  return names[at(t)];
}
std::string_view about(Term t) {
  constexpr std::string_view texts[term_count] = {
      "products with weights in 8 or 4 bits, at the rate of those",
      "products in 16 bits, scores and values of attention among them",
      "activations written and read between products",
      "exchange over the links of a node",
      "exchange over the network",
      "launching a layer's work; factor: seconds a layer and micro-batch",
      "the same, replayed from graphs; factor: seconds a layer and micro-batch",
      "gradients and weights shared among data-parallel ranks, once a step",
      "weights and moments read and written, once a step"};
  return texts[at(t)];
}
bool of_micro_batch(Term t) {
  return t != Term::gradients && t != Term::optimizer;
}

StepParts step_parts(const Architecture& a, const Cluster& c, const Layout& l,
                     const StepOptions& options) {
  StepParts out;
  const TokenWork w = work_of(a, l);
  const FeedShape* moe = a.moe();
  if (moe && options.imbalance) {
    out.imbalance = options.imbalance(l.ep);
  } else if (moe && !options.law.layer.empty()) {
    const double rows = double(l.mbs * l.sequence * moe->k) / double(l.tp) * double(l.ep);
    out.imbalance = options.law.imbalance(l.ep, rows);
  }
  add_compute(out, a, c, l, w, options);
  const std::vector<double> unit = units(a, l);
  const double whole = std::accumulate(unit.begin(), unit.end(), 0.0);
  const double stages = double(l.pp);
  if (l.pp > 1)
    out.slowest = longest_chunk(unit, l.pp * l.vp) * double(l.vp) * stages / whole;
  const double micro = double(l.micro_batches());
  const double waiting = (stages - 1) / double(l.vp);
  out.bubble = waiting / (micro + waiting);
  for (std::size_t i = 0; i < term_count; ++i) {
    if (of_micro_batch(Term(i)))
      out.seconds[i] *= (micro + waiting) * out.slowest / stages;
  }
  add_step_end(out, c, l, w);
  out.tokens = l.tokens_a_step() / double(c.devices());
  return out;
}

TrainingMemory training_memory(const Architecture& a, const Cluster&, const Layout& l) {
  const TokenWork w = work_of(a, l);
  const Groups g = groups_of(l);
  const double stages = double(l.pp);
  const double dense = w.other_weights / (stages * double(l.tp));
  const double experts = w.expert_weights / (stages * double(l.ep));
  const double all = dense + experts;
  const double shared = dense / g.dense + experts / g.experts;
  TrainingMemory m;
  m.weights = weight_bytes * (l.zero == 3 ? shared : all);
  m.gradients = gradient_bytes * (l.zero == 3 ? shared : all);
  m.optimizer = moment_bytes * (l.zero >= 1 ? shared : all);
  const double tokens = double(l.mbs * l.sequence) / double(l.tp);
  const double in_flight = std::min(double(l.pp), double(l.micro_batches()));
  // between products kept in the bits of the operands; recomputed: a row a layer
  const double kept = l.recompute ? w.layers * double(a.hidden) * row_bytes
                                  : w.numbers / 2 * std::max(1.0, l.bits / 8.0);
  const double logits = double(a.vocabulary) * gradient_bytes;
  m.activations = tokens * (kept / stages * in_flight + logits);
  return m;
}

double step_seconds(const StepParts& p, const Terms& factors) {
  return std::inner_product(p.seconds.begin(), p.seconds.end(), factors.begin(), 0.0);
}
double tokens_per_s(const StepParts& p, const Terms& factors) {
  return p.tokens / step_seconds(p, factors);
}

}  // namespace moe::plan
