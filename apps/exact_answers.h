// Exact answers to the questions that data ask, by kind of question: what losses in nats do not
// say.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "analysis/table.h"
#include "lib/run/evaluation.h"

namespace moe {

bool has_answers(const std::vector<DomainLoss>&);
// A row for each domain and kind of question, and one for all; beside each share what the commonest
// answer would get.
Table exact_answers(const std::vector<DomainLoss>&);
// The same of several models by name, a column of shares each.
Table exact_answers_of(const std::vector<std::pair<std::string, std::vector<DomainLoss>>>&);
// ", 93.4% of 1024 answers exact"; "" where nothing was asked
std::string exact_text(const std::vector<DomainLoss>&);

}  // namespace moe
