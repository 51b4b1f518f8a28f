// The numbers of a report under the ids of their definitions: what was measured, row by row, and
// what random routing would give in the same rows. Tables and findings ask by id, so that a figure
// more or less moves no other.
#pragma once
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "analysis/metric/chance.h"
#include "analysis/metric/metric.h"

namespace moe {

struct ChanceRows {  // the chance values of a column, row by row
  std::vector<double> value, spread;
  void add(const chance::Value& v) {
    value.push_back(v.mean);
    spread.push_back(v.spread);
  }
};

class Values {
 public:
  struct Rows {
    std::vector<double> value;
    ChanceRows chance;  // empty: not known
    void add(double measured, const chance::Value& by_chance) {
      value.push_back(measured);
      chance.add(by_chance);
    }
    void add(double measured, double by_chance) {  // whose spread is in no row known
      value.push_back(measured);
      chance.value.push_back(by_chance);
    }
  };

  Values() = default;
  explicit Values(std::vector<MetricValue>);
  Values(std::initializer_list<std::string_view> ids);  // still without rows

  Rows& operator[](std::string_view id);  // made, without rows, where it is new
  // Throws Error(bug) that names the id: the metric that asks has not computed it.
  const Rows& at(std::string_view id) const;
  bool has(std::string_view id) const;

 private:
  std::map<std::string, Rows, std::less<>> rows_;
};

}  // namespace moe
