// Which experts a row may choose, by its modality: experts of one modality beside experts that all
// share (VLMo 2111.02358, ERNIE 4.5 VL, MoIIE 2508.09779). The matrix B[m,e] of 0 and -inf that is
// added to what ranks experts; scores are taken over the experts that are left.
#pragma once
#include <string>

#include "lib/core/batch.h"
#include "lib/core/matrix.h"

namespace moe {

class Spec;

class ModalityMask {
 public:
  ModalityMask() = default;
  // "text:0-3/image:4-7/all:8-9": ranges of expert ids; a modality that is not named has those of
  // `all`. Throws Error(usage) for ids that do not exist and experts that nobody may choose.
  ModalityMask(const std::string& text, int experts, const std::string& router);

  bool empty() const {
    return allowed_.empty();
  }
  bool allows(std::uint8_t modality, int expert) const {
    return allowed_.empty() || allowed_(modality, expert) != 0;
  }
  int count(std::uint8_t modality) const;  // of experts that it may choose
  // see Router::choice_sets
  std::vector<int> sets() const;
  // Throws Error(usage) where a modality that was named has fewer experts than k.
  void check_k(int k, const std::string& router) const;
  // (T,E) 1 = the row may not choose this expert. Throws Error(usage) where a valid row has a
  // modality with fewer than k.
  Matrix<std::uint8_t> barred(const Batch&, int k) const;

 private:
  std::vector<std::uint8_t> named_;  // modalities
  Matrix<std::uint8_t> allowed_;     // (modality_kinds,E) or empty: everything is allowed
};

// The option experts= of a router; empty where it is not given.
ModalityMask modality_mask(Spec&, int experts);

// Fills `out` with `row`, and with -inf where `barred` (empty = nowhere).
void with_bars(std::span<const double> row, std::span<const std::uint8_t> barred,
               std::span<double> out);

}  // namespace moe
