// The value of random routing that stands beside a figure, held to random routing itself: many
// traces drawn at random, every column of the report, the mean of what was measured against what
// the column says chance gives. MOE_CHANCE=1 prints the table of docs/measurements.md.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>

#include "analysis/metric/definitions.h"
#include "analysis/metric/layout.h"
#include "tests/metric/counted.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

struct Lot {
  int tokens, experts, k, traces = 32;
  bool logits = true;  // random ones; else all equal
  int layers = 2, sequence = 80, step = 256, ids = 40, domains = 3, ranks = 4;
  // a step of `step` tokens, then of 2, 3, 5 and 10, in turn: a prefill and its decode steps
  bool decode = false;
  bool counted = false;  // as an engine that only counts leaves them
};

// Pair matrices and router rows of no structure: around the value of unrelated experts.
TraceHeader header_by_lot(const Lot& m, Rng& beside) {
  TraceHeader h;
  for (int l = 0; l < m.layers; ++l) {
    TraceLayer layer;
    layer.index = l;
    layer.experts = m.experts;
    layer.top_k = m.k;
    h.layers.push_back(layer);
    Matrix<float> rows(m.experts, 64);
    for (float& v : rows.flat())
      v = float(beside.normal());
    h.router_weight.push_back(rows);
  }
  for (const auto& [name, middle] :
       {std::pair("expert_weight_cosine", 0.0), std::pair("expert_up_cosine", 0.0),
        std::pair("expert_neuron_mean_cosine", 0.0), std::pair("expert_matched_cosine", 0.0),
        std::pair("expert_output_cosine", 0.0), std::pair("expert_output_cka", 0.0),
        std::pair("expert_mean_output_angle", 0.5), std::pair("expert_ttm_distance", 1.0)}) {
    PairMatrix p{name, {}};
    for (int l = 0; l < m.layers; ++l) {
      p.layer.emplace_back(m.experts, m.experts);
      for (Index i = 0; i < m.experts; ++i) {
        for (Index j = 0; j <= i; ++j) {
          p.layer.back()(i, j) = p.layer.back()(j, i) =
              float(middle + (i == j ? 0 : 0.1 * beside.normal()));
        }
      }
    }
    h.pairs.push_back(std::move(p));
  }
  for (int d = 0; d < m.domains; ++d)
    h.domains.push_back("domain" + std::to_string(d));
  h.vocab_size = std::uint32_t(m.ids);
  return h;
}

LayerRows layer_by_lot(const Lot& m, Rng& beside) {
  LayerRows l;
  l.expert = Matrix<int>(m.tokens, m.k);
  l.predicted = Matrix<int>(m.tokens, m.k);
  l.weight = Matrix<float>(m.tokens, m.k);
  l.dropped = Matrix<std::uint8_t>(m.tokens, m.k);
  l.out_norm = Matrix<float>(m.tokens, m.k);
  l.logits = Matrix<float>(m.tokens, m.experts);
  for (float& w : l.weight.flat())
    w = float(beside.uniform());
  for (float& z : l.logits.flat())
    z = m.logits ? float(beside.normal()) : 0;
  for (float& n : l.out_norm.flat())
    n = 1 + float(beside.uniform());
  for (std::uint8_t& d : l.dropped.flat())
    d = beside.uniform() < 0.1;
  return l;
}

struct Parts {  // of a trace, while rows are added
  TraceRows rows;
  std::vector<TraceSequence> sequences;
  std::vector<TraceStep> steps;
};

bool begins_step(const Lot& m, int t) {
  if (!m.decode)
    return t % m.step == 0;
  for (const int after : {-m.step, 0, 2, 5, 10}) {
    if (t % (m.step + 20) == m.step + after)
      return true;
  }
  return false;
}

// Row t but for its layers.
void add_row(const Lot& m, int t, std::uint32_t id, Parts& p) {
  const int q = t / m.sequence;
  if (t % m.sequence == 0) {
    p.sequences.push_back({std::uint64_t(t), std::uint32_t(std::min(m.sequence, m.tokens - t)),
                           std::uint16_t(q % m.domains)});
    p.sequences.back().grid = {std::uint16_t(m.sequence / 16), 8};
  }
  if (begins_step(m, t)) {
    p.steps.push_back({t / m.step, std::uint64_t(t), std::uint32_t(std::min(m.step, m.tokens - t)),
                       Phase::train});
  }
  p.rows.token_id.push_back(id);
  p.rows.position.push_back(std::uint32_t(t % m.sequence));
  p.rows.sequence.push_back(std::uint32_t(q));
  p.rows.step.push_back(std::uint32_t(p.steps.size() - 1));
  p.rows.flags.push_back(0);
  p.rows.modality.push_back(t % m.sequence < m.sequence / 2 ? modality::image : modality::text);
  p.rows.rank.push_back(std::uint16_t(t % m.ranks));
  p.rows.predicted_id.push_back(id);
  p.rows.target_id.push_back(id);
}

// Every optional field there is, none of which knows anything of the choices; token ids from rare
// to common.
MemoryTrace by_lot(const Lot& m, std::uint64_t seed) {
  Rng rng(seed, 1);
  Rng beside(seed, 2);
  Rng losses(seed, 3);
  TraceHeader h = header_by_lot(m, beside);
  Parts p;
  for (int l = 0; l < m.layers; ++l)
    p.rows.layer.push_back(layer_by_lot(m, beside));
  std::vector<int> deck(static_cast<std::size_t>(m.experts));
  std::iota(deck.begin(), deck.end(), 0);
  for (int t = 0; t < m.tokens; ++t) {
    add_row(m, t, std::uint32_t(double(m.ids) * std::pow(beside.uniform(), 3)), p);
    p.rows.logprob.push_back(-float(3 + losses.normal() * losses.uniform()));
    for (LayerRows& l : p.rows.layer) {
      chance::draw_experts(deck, l.expert.row(t), rng);
      chance::draw_experts(deck, l.predicted.row(t), beside);
    }
  }
  return {std::move(h), std::move(p.sequences), std::move(p.steps), std::move(p.rows)};
}

struct Seen {
  // (traces) measured less chance, mean over the rows that are alike
  std::vector<double> off;
  double chance = 0;  // of the last trace
  double spread = 0;  // mean over traces; NaN: not known
  int rows = 0;
};

// Why a column is not held to the mean over random traces of this kind; "" where it is.
std::string exempt(const std::string& key, const Lot& m) {
  if (key == "load / max/min") {
    return "its chance value is a median: of few tokens, now and then an expert has none and the "
           "figure is infinite";
  }
  if (key.starts_with("router") && m.logits && !key.ends_with("loss"))
    return "its chance values are those of equal logits";
  if (key.starts_with("logit_similarity /") && !m.logits)
    return "equal logits have no directions";
  if (key.starts_with("loss_entropy /") && !m.logits)
    return "equal logits have one entropy, and nothing goes with a constant";
  return "";
}

// Figures that hardly ever move, then by much, so that a few traces do not tell their spread; and
// rows that shift where a domain has fewer than five experts above its fair share.
bool rare(const std::string& key) {
  return key.starts_with("load_more / padding") || key == "planted / purity" ||
         key == "load / dead share" || key.starts_with("drift / settled") ||
         key.starts_with("domain_experts");
}

// One column of one trace: what was measured less what chance gives, row by row or, where the rows
// are alike, their mean.
void add(const Table& t, const Column& c, int traces, std::map<std::string, Seen>& out) {
  const auto* v = std::get_if<std::vector<double>>(&c.cells);
  if (!v || c.chance.empty())
    return;
  // else every row is a figure of its own
  const bool together = t.columns[0].name == "layer" || v->size() > 16;
  struct Sum {
    double off = 0, spread = 0;
    int rows = 0;
  };
  std::map<std::string, Sum> sum;
  for (std::size_t i = 0; i < v->size(); ++i) {
    if (!std::isfinite((*v)[i]) || std::isnan(c.chance[i]))
      continue;
    const std::string key = t.id + " / " + c.name + (together ? "" : " / row " + std::to_string(i));
    Sum& s = sum[key];
    s.off += (*v)[i] - c.chance[i];
    ++s.rows;
    s.spread += i < c.chance_spread.size() ? c.chance_spread[i] : no_value;
    out[key].chance = c.chance[i];
  }
  for (const auto& [key, s] : sum) {
    out[key].off.push_back(s.off / s.rows);
    out[key].spread += s.spread / s.rows / traces;
    out[key].rows = s.rows;
  }
}

std::map<std::string, Seen> held(const Lot& m) {
  std::map<std::string, Seen> out;
  AnalyzeOptions o;
  o.known_chance = std::make_shared<KnownChance>();  // the traces are of one shape
  for (int id = 0; id < m.ids; ++id)
    o.planted_labels.push_back(id % 4);
  for (int trace = 0; trace < m.traces; ++trace) {
    const MemoryTrace drawn = by_lot(m, 1000 + std::uint64_t(trace));
    const Report r = m.counted ? analyze(twin_of(drawn), {}, o) : analyze(drawn, {}, o);
    for (const Table& t : r.tables) {
      for (const Column& c : t.columns)
        add(t, c, m.traces, out);
    }
  }
  return out;
}

struct Deviation {  // mean over traces of what was measured less chance, and how sure that is
  Deviation(const Seen& s, int layers) {
    const double n = double(s.off.size());
    double square = 0;
    for (const double d : s.off)
      mean += d / n;
    for (const double d : s.off)
      square += (d - mean) * (d - mean) / (n - 1);
    const double said =
        std::isnan(s.spread) || s.rows > layers ? 0 : s.spread / std::sqrt(n * s.rows);
    // of rare events the traces may hold none
    of_mean = std::max(std::sqrt(square / n), said);
    alone = std::sqrt(square * s.rows);  // layers are independent
  }
  double mean = 0, of_mean = 0, alone = 0;
};

void hold(const Lot& m) {
  int columns = 0;
  int spreads = 0;
  for (const auto& [key, s] : held(m)) {
    if (!exempt(key, m).empty())
      continue;
    const auto [mean, error, alone] = Deviation(s, m.layers);
    INFO("T=" << m.tokens << " E=" << m.experts << " K=" << m.k << ": " << key << ": chance "
              << s.chance << ", measured less chance " << mean << " +- " << error
              << "; spread said " << s.spread << ", measured " << alone);
    if (std::getenv("MOE_CHANCE")) {
      std::printf("%d\t%d\t%d\t%s\t%.5g\t%.3g\t%.3g\t%.3g\t%.3g\n", m.tokens, m.experts, m.k,
                  key.c_str(), s.chance, mean, error, s.spread, alone);
    }
    CHECK(std::abs(mean) <= 4 * error + 0.01 * std::abs(s.chance) + 1e-6);
    ++columns;
    if (std::isnan(s.spread) || s.spread < 1e-9 || s.spread > std::abs(s.chance) ||
        s.rows > m.layers || rare(key)) {
      continue;
    }
    CHECK(alone < 1.7 * s.spread + 1e-6);
    CHECK(alone > 0.4 * s.spread - 1e-6);
    ++spreads;
  }
  CHECK(columns > (m.counted ? 35 : 90));
  CHECK(spreads > (m.counted ? 15 : 30));
}

}  // namespace

// Figures that random routing gives no value, and why.
const std::map<std::string, std::string> without{
    {"observed_drop_rate",
     "what was dropped depends on the capacity in force; capacity_drop_rate has the values of "
     "given capacities"},
    {"observed_token_drop_rate", "as observed_drop_rate"},
    {"modality_tokens", "a number of rows"},
    {"modality_load_by_sample", "in the words of MoE-LLaVA alone; 1/E of every expert"},
    {"modality_share_by_sample", "as modality_load_by_sample; 1/2"},
    {"eplb_balancedness_held_out",
     "halves by rows, which are other domains in many traces; eplb_balancedness_unseen is the "
     "figure of reports"},
    {"cache_accesses", "a number of requests: T K whatever the routing"},
    {"cache_hits_lru", "a count; cache_hit_rate_lru is its share"},
    {"crosslayer_transition",
     "a matrix too large for a report; every cell is T K^2/E^2 by symmetry"},
    {"crosslayer_rank_zip", "a matrix too large for a report; every cell is T K/E^2 by symmetry"},
    {"coactivation_adjacent",
     "a matrix for comparison with OLMoE's code; every cell is 2(K-1)/(K(E-1)) by symmetry"},
    {"expert_matched_cosine",
     "of weights, not of routing: the best of many permutations of as many hidden units as the "
     "trace does not tell"},
    {"expert_output_cka",
     "of outputs, not of routing: about H/T, of tokens that the trace does not tell"},
    {"place_slots", "a plan: the slots of GPUs"},
    {"offload_misses_p50", "a quantile of a sum over layers; the mean has a value"},
    {"offload_misses_p99", "as offload_misses_p50"},
    {"offload_bytes_p50", "as offload_misses_p50"},
    {"offload_bytes_p99", "as offload_misses_p50"},
    {"disk_order", "an order of experts"},
    {"loss_mean", "of the model, not of its routing; it stands where traces are side by side"}};

TEST_CASE("every definition stands in a report with its chance value, or it is said why not") {
  std::set<std::string> with, seen;
  const Lot m{512, 16, 4};
  AnalyzeOptions o;
  for (int id = 0; id < m.ids; ++id)
    o.planted_labels.push_back(id % 4);
  const MemoryTrace trace = by_lot(m, 1);
  // those of every report, those that are asked for by name, and those of counts
  for (const Report& r :
       {analyze(trace, {}, o), analyze(trace, {"place:gpus=4,nodes=2,extra=16"}, o),
        analyze(trace, {"offload:expert_bytes=100"}, o), analyze(twin_of(trace), {}, o)}) {
    for (const Table& t : r.tables) {
      for (const Column& c : t.columns) {
        if (!c.metric.empty())
          (c.chance.empty() ? seen : with).insert(c.metric);
      }
    }
  }
  for (const Definition& d : definitions()) {
    const std::string id(d.id);
    INFO(id << (seen.contains(id) ? ": in a column without chance value" : ": in no column"));
    CHECK((with.contains(id) || !of_one_trace(d) || without.contains(id)));
    CHECK_FALSE((with.contains(id) && without.contains(id)));
  }
}

// Per column: the mean over traces, and where it is said, how far a figure spreads.
TEST_CASE("chance values hold on random routing: 16 experts, 2 choices, equal logits") {
  hold({4096, 16, 2, 32, false});
}
TEST_CASE("chance values hold on random routing: 64 experts, 8 choices") {
  hold({1024, 64, 8});
}
TEST_CASE("chance values hold on random routing: 5 experts, 1 choice") {
  hold({1536, 5, 1});
}
TEST_CASE("chance values hold on random routing: 96 tokens") {
  hold({96, 32, 2});
}
TEST_CASE("chance values hold on random routing: 5 of 6 experts") {
  hold({512, 6, 5});
}
TEST_CASE("chance values hold on random routing: prefill and decode steps, 16 experts, 2 choices") {
  hold({.tokens = 1104, .experts = 16, .k = 2, .decode = true});
}
TEST_CASE("chance values hold on random counts: prefill and decode steps, 64 experts, 6 choices") {
  hold({.tokens = 1656, .experts = 64, .k = 6, .decode = true, .counted = true});
}
TEST_CASE("chance values hold on random counts: even steps, 8 experts, 1 choice") {
  hold({.tokens = 2048, .experts = 8, .k = 1, .counted = true});
}
