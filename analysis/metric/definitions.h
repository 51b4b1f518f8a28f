// The definitions behind the numbers: one row for every id that a metric gives. Ids never change
// their meaning; another definition gets another id. docs/metrics.md is written from this table and
// a test keeps the two in step.
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace moe {

struct Definition {
  // who computes it: a name of metrics.def, or of_two_traces (agreement.h), or of_missing_experts
  // (analysis/compare/worth.h, moe eval)
  std::string_view id, metric;
  std::string_view shape;  // L layers, E experts, D domains, M modalities; empty = one number
  std::string_view formula, range, chance, needs;
};

constexpr std::string_view of_two_traces = "two traces";
constexpr std::string_view of_missing_experts = "missing experts";
// A metric of metrics.def gives it.
constexpr bool of_one_trace(const Definition& d) {
  return d.metric != of_two_traces && d.metric != of_missing_experts;
}

std::span<const Definition> definitions();
const Definition* find_definition(std::string_view id);  // nullptr where there is none
std::string definitions_page();                          // docs/metrics.md, Markdown

}  // namespace moe
