#include "apps/metric_selection.h"

#include <algorithm>

#include "analysis/metric/definitions.h"
#include "analysis/metric/metric.h"
#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe {

Selection::Selection(const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    const Definition* figure = find_definition(word);
    if (!figure || metrics().find(word)) {
      specs_.push_back(word);
      metrics_.insert(word.substr(0, word.find(':')));
      continue;
    }
    const std::string metric(figure->metric);
    if (!metrics().find(metric)) {
      throw Error(Exit::usage,
                  concat("'", word, "' is a figure of ", metric, ", not of a single trace"))
          .hint(metric == of_missing_experts ? "moe eval RUN --data SPEC --without-expert each"
                                             : "moe report a.moetrace.h5 --against b.moetrace.h5");
    }
    ids_.insert(word);
  }
  for (const std::string& id : ids_) {
    const std::string metric(find_definition(id)->metric);
    const auto named = [&](const std::string& spec) {
      return spec.substr(0, spec.find(':')) == metric;
    };
    if (std::ranges::none_of(specs_, named))
      specs_.push_back(metric);
  }
}

bool Selection::keeps(const std::string& id) const {
  if (ids_.contains(id))
    return true;
  const Definition* figure = find_definition(id);
  return figure && metrics_.contains(std::string(figure->metric));
}

void Selection::keep_in(Report& r) const {
  if (ids_.empty())
    return;
  std::set<std::pair<std::string, std::string>> shown;  // table and column
  std::vector<Table> tables;
  for (Table& t : r.tables) {
    std::erase_if(t.columns,
                  [&](const Column& c) { return !c.metric.empty() && !keeps(c.metric); });
    if (std::ranges::all_of(t.columns, [](const Column& c) { return c.metric.empty(); }))
      continue;
    for (const Column& c : t.columns)
      shown.emplace(t.id, c.name);
    tables.push_back(std::move(t));
  }
  r.tables = std::move(tables);
  std::erase_if(r.findings, [&](const Finding& f) {
    return std::ranges::none_of(f.cells, [&](const Quote& q) { return keeps(q.metric); });
  });
  for (Finding& f : r.findings) {
    std::erase_if(f.cells, [&](const Quote& q) { return !shown.contains({q.table, q.column}); });
  }
  r.samples.clear();
}

}  // namespace moe
