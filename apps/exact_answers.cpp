#include "apps/exact_answers.h"

#include <fmt/format.h>

#include <algorithm>

#include "analysis/statistics/paired.h"

namespace moe {
namespace {

struct Rows {
  std::vector<std::string> domain, question;
  std::vector<std::int64_t> asked, exact;
  std::vector<double> share, low, high, guess;

  void add(const std::string& where, const std::string& kind, Index n, Index right, double blind) {
    const auto [from, to] = statistics::wilson(double(right), double(n));
    domain.push_back(where);
    question.push_back(kind);
    asked.push_back(n);
    exact.push_back(right);
    share.push_back(double(right) / double(n));
    low.push_back(from);
    high.push_back(to);
    guess.push_back(blind);
  }
};

// Over all kinds; guess: what the commonest answer of each kind gets.
struct Sum {
  Index asked = 0, exact = 0;
  double guessed = 0;
};
Sum sum_of(const std::vector<DomainLoss>& losses) {
  Sum out;
  for (const DomainLoss& d : losses) {
    for (const AnswerCount& a : d.answers) {
      out.asked += a.asked;
      out.exact += a.exact;
      out.guessed += a.guess() * double(a.asked);
    }
  }
  return out;
}

}  // namespace

bool has_answers(const std::vector<DomainLoss>& losses) {
  return std::ranges::any_of(losses, [](const DomainLoss& d) { return !d.answers.empty(); });
}

namespace {

Rows rows_of(const std::vector<DomainLoss>& losses) {
  Rows rows;
  for (const DomainLoss& d : losses) {
    for (const AnswerCount& a : d.answers)
      rows.add(d.name, a.question, a.asked, a.exact, a.guess());
  }
  const Sum all = sum_of(losses);
  if (rows.asked.size() > 1)
    rows.add("all", "all kinds", all.asked, all.exact, all.guessed / double(all.asked));
  return rows;
}

Table empty_table() {
  return {.id = "answers",
          .title = "Exact answers",
          .reading =
              "An answer is exact where every id of it and its end was the likeliest. A guess "
              "says the commonest answer of its kind without a look at the picture or sound; "
              "it is counted in the answers asked for, so that chance is not above it."};
}

}  // namespace

Table exact_answers_of(const std::vector<std::pair<std::string, std::vector<DomainLoss>>>& models) {
  Table t = empty_table();
  for (const auto& [name, losses] : models) {
    const Rows rows = rows_of(losses);
    if (t.columns.empty()) {
      t.columns = {{.name = "domain", .cells = rows.domain},
                   {.name = "question", .meaning = "kind of question", .cells = rows.question},
                   {.name = "asked", .cells = rows.asked},
                   {.name = "guess",
                    .meaning = "share for which the commonest answer of the kind is right",
                    .cells = rows.guess}};
    }
    t.columns.push_back({.name = name,
                         .unit = "share",
                         .meaning = "of the answers that are exact, with Wilson's 95 % interval",
                         .cells = rows.share,
                         .low = rows.low,
                         .high = rows.high});
  }
  return t;
}

Table exact_answers(const std::vector<DomainLoss>& losses) {
  const Rows rows = rows_of(losses);
  Table t = empty_table();
  t.columns = {{.name = "domain", .cells = rows.domain},
               {.name = "question", .meaning = "kind of question", .cells = rows.question},
               {.name = "asked", .cells = rows.asked},
               {.name = "exact", .cells = rows.exact},
               {.name = "share",
                .meaning = "of the answers that are exact, with Wilson's 95 % interval",
                .cells = rows.share,
                .low = rows.low,
                .high = rows.high},
               {.name = "guess",
                .meaning = "share for which the commonest answer of the kind is right",
                .cells = rows.guess}};
  return t;
}

std::string exact_text(const std::vector<DomainLoss>& losses) {
  const Sum all = sum_of(losses);
  if (all.asked == 0)
    return "";
  return fmt::format(", {:.1f}% of {} answers exact", 100 * double(all.exact) / double(all.asked),
                     all.asked);
}

}  // namespace moe
