// moe eval --without-expert: losses with experts missing; lists of them, each in turn, and pairs.
#pragma once
#include <string>
#include <vector>

#include "apps/knock_out.h"
#include "apps/measurement.h"
#include "lib/run/expert_usage.h"

namespace moe {

// of a report: the hash of the weights that were measured, as traces have it
inline constexpr const char* weights_fact = "weights xxh3";

struct WithoutOptions {
  std::vector<std::string> lists;  // LAYER:EXPERT,...; each; pair
  bool renormalise = false;
  int pairs = 64;  // that are measured; 0 = all
  bool pairs_given = false;
  std::string keep;   // a file for what was measured so far; "" = none
  bool each() const;  // every expert in turn, which pairs take as well
  bool pair() const;
};
// Throws Error(usage) for experts that are not there, before anything is computed.
void check_without(const WithoutOptions&, Decoder<float>&);
int passes_without(const WithoutOptions&, Decoder<float>&);  // over the text

// Adds tables of the lists, and what every expert and pair is worth where that was asked for. Ends
// early where a signal asks for it.
struct Without {
  std::vector<Table> tables;
  WorthOfExperts worth;
};
Without measure_without(const WithoutOptions&, Decoder<float>&, Measurement&,
                        const std::vector<DomainLoss>& whole, const ExpertUsage&);

}  // namespace moe
