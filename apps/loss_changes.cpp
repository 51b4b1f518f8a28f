#include "apps/loss_changes.h"

#include <fmt/format.h>

#include <cmath>

#include "lib/core/text.h"

namespace moe {
namespace {

void add(LossChanges& rows, const std::string& name, double before, double after, double reach) {
  rows.name.push_back(name);
  rows.before.push_back(before);
  rows.after.push_back(after);
  rows.change.push_back(after - before);
  rows.low.push_back(after - before - reach);
  rows.high.push_back(after - before + reach);
}

// Half of a 95 % interval of a change, by sequences; Student's t of few is wider.
double reach_of_change(const DomainLoss& before, const DomainLoss& after) {
  constexpr double few = 1.66;
  const double n = double(before.sequence_tokens.size());
  return 1.96 * (1 + few / n) * error_of_difference(before, after);
}

}  // namespace

std::string LossChanges::warning() const {
  std::vector<std::string> unclear;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (!std::isnan(change[i]) && !(low[i] > 0 || high[i] < 0))
      unclear.push_back(name[i]);
  }
  if (unclear.empty())
    return "";
  return fmt::format(
      "too little text to judge the change of {}: more --tokens, and at least {} sequences a "
      "domain",
      join(unclear), least_sequences);
}

Column LossChanges::column(const std::string& meaning) const {
  return {.name = "change",
          .unit = "nats",
          .meaning = meaning,
          .cells = change,
          .digits = 4,
          .low = low,
          .high = high};
}

LossChanges loss_changes(const std::vector<DomainLoss>& before,
                         const std::vector<DomainLoss>& after) {
  LossChanges rows;
  double square = 0;
  double domains = 0;
  for (std::size_t d = 0; d < before.size(); ++d) {
    if (before[d].tokens == 0) {
      add(rows, before[d].name, NAN, NAN, NAN);
      continue;
    }
    const double reach = reach_of_change(before[d], after[d]);
    add(rows, before[d].name, before[d].loss(), after[d].loss(), reach);
    square += reach * reach;
    domains += 1;
  }
  if (before.size() > 1) {
    add(rows, "mean of domains", mean_loss(before), mean_loss(after), std::sqrt(square) / domains);
  }
  return rows;
}

}  // namespace moe
