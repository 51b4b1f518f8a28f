#include "analysis/metric/values.h"

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

Values::Values(std::vector<MetricValue> all) {
  for (MetricValue& v : all)
    rows_[v.id].value = std::move(v.values);
}

Values::Values(std::initializer_list<std::string_view> ids) {
  for (const std::string_view id : ids)
    rows_[std::string(id)];
}

Values::Rows& Values::operator[](std::string_view id) {
  return rows_[std::string(id)];
}

const Values::Rows& Values::at(std::string_view id) const {
  const auto found = rows_.find(id);
  if (found == rows_.end())
    throw Error(Exit::bug, concat("a report asks for '", id, "', which was not computed"));
  return found->second;
}

bool Values::has(std::string_view id) const {
  return rows_.contains(id);
}

}  // namespace moe
