#include "apps/loss_changes.h"

#include <fmt/format.h>

#include <cmath>

#include "analysis/statistics/paired.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

void add(LossChanges& rows, const std::string& name, double before, double after, double below,
         double above) {
  rows.name.push_back(name);
  rows.before.push_back(before);
  rows.after.push_back(after);
  rows.change.push_back(after - before);
  rows.low.push_back(after - before - below);
  rows.high.push_back(after - before + above);
}

// The change of a domain's loss with its interval, paired by sequences.
statistics::Estimate change_of(const DomainLoss& before, const DomainLoss& after) {
  if (before.sequence_tokens != after.sequence_tokens)
    throw Error(Exit::bug, "losses of different sequences are compared");
  std::vector<double> nats, tokens;
  for (std::size_t q = 0; q < before.sequence_tokens.size(); ++q) {
    nats.push_back(after.sequence_nats[q] - before.sequence_nats[q]);
    tokens.push_back(double(before.sequence_tokens[q]));
  }
  statistics::Estimate e = statistics::ratio_estimate(nats, tokens);
  if (nats.size() < least_sequences)
    e.low = e.high = NAN;
  return e;
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
  double below = 0;
  double above = 0;
  double domains = 0;
  for (std::size_t d = 0; d < before.size(); ++d) {
    if (before[d].tokens == 0) {
      add(rows, before[d].name, NAN, NAN, NAN, NAN);
      continue;
    }
    const statistics::Estimate e = change_of(before[d], after[d]);
    add(rows, before[d].name, before[d].loss(), after[d].loss(), e.value - e.low, e.high - e.value);
    below += (e.value - e.low) * (e.value - e.low);
    above += (e.high - e.value) * (e.high - e.value);
    domains += 1;
  }
  if (before.size() > 1) {
    add(rows, "mean of domains", mean_loss(before), mean_loss(after), std::sqrt(below) / domains,
        std::sqrt(above) / domains);
  }
  return rows;
}

}  // namespace moe
