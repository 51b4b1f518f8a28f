// What the metrics share: the shape of a trace, options that are lists, and tables built row by
// layer.
#pragma once
#include <limits>
#include <map>
#include <tuple>

#include "analysis/metric/table_builder.h"
#include "lib/core/text.h"

namespace moe {

constexpr double no_value = std::numeric_limits<double>::quiet_NaN();

struct Shape {  // of a trace, as metrics need it
  explicit Shape(const TraceSource&);
  Index layers() const {
    return Index(experts.size());
  }
  int max_experts() const;
  std::vector<int> experts, top_k;   // (L)
  std::vector<std::int64_t> number;  // (L) absolute layer numbers
};

// of expert parallelism: the largest of 8, 4, 2, 1 that leaves two experts a rank
int usual_ranks(const Shape&);

// of `drops`, and of the intervals of what capacity would drop
constexpr double usual_capacity_factors[] = {1, 1.25, 2};

// "1,1.25,2": the default of an option that is a list
template <class List>
std::string list_text(const List& numbers) {
  std::string out;
  for (const auto v : numbers)
    out += concat(out.empty() ? "" : ",", v);
  return out;
}

// "lags={1,2,5}"
std::vector<double> list_of(Spec&, const char* key, const char* fallback, double least);
std::vector<int> whole_list_of(Spec&, const char* key, const char* fallback, int least);

// values: (L) or (L,n): row by row into one MetricValue.
MetricValue per_layer(const char* id, const std::vector<double>& values);
// ragged rows are padded with NaN
MetricValue per_layer(const char* id, const std::vector<std::vector<double>>& rows);
MetricValue per_layer(const char* id, const std::vector<Matrix<double>>& layers);  // [L,R,C]
Matrix<double> as_double(const Matrix<std::int64_t>&);

// "12.3 %", "0.123", "7": numbers inside sentences.
std::string percent(double share);
std::string figure(double value, int digits = 2);
std::int64_t rounded(double value);  // NaN: 0
// of a token, for what draws whole numbers of them: 1..E
int whole_choices(double mean, int experts);

// Bytes of (E,E) matrices of 64-bit numbers, one a layer; and a metric that only says that it was
// left out for want of them.
std::int64_t pair_bytes(const TraceSource&);
std::unique_ptr<Metric> left_out(const std::string& what, std::int64_t bytes, std::int64_t memory);
std::unique_ptr<Metric> left_out(std::string sentence);

// How many tables of a row for each pair of experts may stand in a report whose metrics may take so
// many bytes each.
Index maps_within(std::int64_t memory, int experts, int others);

// Which layers a figure shows when there are too many for one page: first, middle, last.
std::vector<Index> shown_layers(Index layers, Index most = 3);

// Values computed once for each distinct key, which holds all that they depend on but the options
// of the metric; simulations of the same shape are not repeated.
class Memo {
 public:
  template <class Make>
  const std::vector<chance::Value>& get(const std::vector<double>& key, Make make) {
    auto [at, fresh] = held_.try_emplace(key);
    if (fresh)
      at->second = make();
    return at->second;
  }

 private:
  std::map<std::vector<double>, std::vector<chance::Value>> held_;
};

// The key of joint counts: experts, choices, and how often each label was seen.
std::vector<double> key_of(int experts, int k, const std::vector<std::int64_t>& label_tokens);

// What one metric has simulated, with its options.
struct ChanceStore {
  Memo memo;
  // by experts and choices
  std::map<std::pair<int, int>, chance::Labels> labels_of;
  chance::Labels& labels(int experts, int k) {
    return labels_of.try_emplace({experts, k}, experts, k).first->second;
  }
  // by experts, choices and tokens
  std::map<std::tuple<int, int, std::int64_t>, chance::ClosestPairs> pairs_of;
};
// By the place and the resolved spec of each metric of a run. Reports made one after another share
// it; two at once may not.
struct KnownChance {
  std::map<std::string, ChanceStore> of_metric;
};

}  // namespace moe
