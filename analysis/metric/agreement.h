// Two traces over the same tokens: a checkpoint A and a reference B, or two engines with the same
// weights. How many of B's experts A chose too, layer by layer, for the first k choices, and by how
// sure the router was. Counts only, so traces of any length are compared in bounded memory.
#pragma once
#include <optional>

#include "analysis/metric/chance.h"
#include "analysis/metric/choice_order.h"
#include "analysis/metric/metric.h"

namespace moe {

struct AgreeOptions {
  // rising; bins below the first, between, from the last on
  std::vector<double> margins = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3};
  std::uint64_t window = 16384;  // rows read at a time
  std::function<void(std::uint64_t rows)> progress;
  // replicas behind the 95 % intervals; 0 = none
  int bootstrap = 0;
};

// What two routings give that know nothing of each other, one layer: by closed forms where nothing
// else is said.
struct ChanceAgreement {
  chance::Value overlap, first;
  std::vector<double> overlap_k;  // (K)
  // shares of the reference's choices that are common, and of tokens with the same set
  double common = 0, same_set = 0;
};

struct LayerAgreement {
  int number = 0, experts = 0;           // absolute layer number
  std::int64_t tokens = 0, choices = 0;  // tokens for which B chose; B's choices
  // choices of B that are A's too; tokens with equal first choice
  std::int64_t common = 0, first = 0;
  double overlap = 0;                  // sum over tokens of |A & B| / |B|
  std::vector<double> overlap_k;       // (K) the same for the first k choices of both
  std::vector<std::int64_t> tokens_k;  // (K) tokens with at least k choices in B
  // (margins+1) B's choices, and those that A lost, by router margin
  std::vector<std::int64_t> bin_choices, bin_lost;
  // (E) choices of B, those of them that A did not make, and choices of A that B did not make
  std::vector<std::int64_t> expert_choices, expert_lost, expert_gained;
  // (R) with every sequence Poisson(1) times; [0] as it is
  std::vector<double> replica_overlap, replica_first, replica_tokens;
  std::int64_t same_sets = 0;  // tokens with the same set
  std::optional<ChanceAgreement> simulated;

  ChanceAgreement by_chance() const;
};

struct Agreement {
  std::vector<double> margins;  // empty: neither trace has margins or logits
  std::vector<LayerAgreement> layer;
  // valid in both; with another set in any layer; (token, layer) pairs with another set
  std::int64_t tokens = 0, flipped_tokens = 0, flipped_layers = 0;
  // rows left out because no router can have made them, of either
  std::int64_t impossible = 0;
  // experts were matched before they were compared: the figures have ids of their own
  bool matched = false;
  // of the two, the one that knows less of its first choices
  ChoiceOrder order = ChoiceOrder::ranked;

  bool first_choices_known() const {
    return order != ChoiceOrder::by_id;
  }
  std::string id(const char* of_ids_as_they_are) const;  // "router_saturation_matched"

  // router_saturation, router_saturation_top1, router_saturation_by_k, flip_token_rate,
  // flip_layers_mean, flip_rate, flip_rate_by_margin, flip_rate_by_expert
  std::vector<MetricValue> values() const;
  void report(Report&) const;  // tables with chance values, findings

 private:
  void by_layer(Report&) const;
  void by_margin(Report&) const;
  void whole(Report&) const;
};

// "below 0.001", "0.001 to 0.003", ..., "from 0.3": bin i of rising margins.
std::string margin_bin(const std::vector<double>& margins, std::size_t i);

// Why the two cannot be compared token by token, in a sentence; empty where they can, as far as
// headers tell. (The corpus hash is the reader's: TraceReader::corpus_sha256.)
std::string incomparable(const TraceSource& a, const TraceSource& b);

// Reads both in step. Throws Error(input) where they are not over the same tokens.
Agreement agree(const TraceSource& a, const TraceSource& b, const AgreeOptions& = {});

}  // namespace moe
