// Two losses of the same sequences side by side, and what can be said of their difference.
#pragma once
#include <string>
#include <vector>

#include "analysis/table.h"
#include "lib/run/evaluation.h"

namespace moe {

// A row a domain, and where there are several one for their mean.
struct LossChanges {
  std::vector<std::string> name;
  // nats; low and high: the 95 % interval of the change, paired by sequences, which holds
  // Student's and the bootstrap's (analysis/statistics); NaN where too few tell
  std::vector<double> before, after, change, low, high;

  // a sentence on the rows whose change may be none; empty = each is clear
  std::string warning() const;
  // the change and its interval, as a column
  Column column(const std::string& meaning) const;
};
LossChanges loss_changes(const std::vector<DomainLoss>& before,
                         const std::vector<DomainLoss>& after);

}  // namespace moe
