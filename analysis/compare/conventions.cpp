#include "analysis/compare/conventions.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>

#include "analysis/metric/definitions.h"
#include "analysis/metric/layout.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr ToolConvention all_conventions[] = {
#define CONVENTION(name, about) {#name, about},
#define UPSTREAM(...)
#include "analysis/compare/conventions.def"
#undef CONVENTION
#undef UPSTREAM
};
constexpr Upstream all_figures[] = {
#define CONVENTION(...)
#define UPSTREAM(convention, name, id, reduction, our_id, our_reduction, difference) \
  {#convention, name, #id, #reduction, #our_id, #our_reduction, difference},
#include "analysis/compare/conventions.def"
#undef CONVENTION
#undef UPSTREAM
};

double over_layers(std::vector<double> v, std::string_view how) {
  std::erase_if(v, [](double x) { return std::isnan(x); });
  if (v.empty())
    return no_value;
  std::sort(v.begin(), v.end());
  if (how == "mean")
    return std::accumulate(v.begin(), v.end(), 0.0) / double(v.size());
  // min: the first
  const double place = (how == "p10" ? 0.1 : how == "p50" ? 0.5 : 0.0) * double(v.size() - 1);
  const std::size_t i = std::min(v.size() - 1, std::size_t(place));
  const std::size_t j = std::min(v.size() - 1, i + 1);
  return v[i] + (place - double(i)) * (v[j] - v[i]);
}

// One layer's values to one: the largest or smallest, off the diagonal where both axes are experts.
double over_experts(std::span<const double> v, const MetricValue& m, std::string_view how) {
  if (how == "first")
    return v.empty() ? no_value : v[0];
  const bool pairs =
      m.dims.size() == 3 && m.dims[1] == m.dims[2] && m.id.starts_with("coactivation");
  double out = no_value;
  for (std::size_t i = 0; i < v.size(); ++i) {
    if (std::isnan(v[i]) || (pairs && i % std::size_t(m.dims[2] + 1) == 0))
      continue;
    if (std::isnan(out) || (how == "most" ? v[i] > out : v[i] < out))
      out = v[i];
  }
  return out;
}

// A value a layer, or one: (L) or (1).
std::vector<double> reduced(const MetricValue& m, std::string_view how, const Shape& shape) {
  if (m.dims.empty() || how == "one")
    return m.values;
  if (how == "each")
    return m.values;
  const std::size_t layers = std::size_t(m.dims[0]);
  const std::size_t each = layers ? m.values.size() / layers : 0;
  if (how == "most" || how == "least" || how == "first") {
    std::vector<double> out;
    for (std::size_t l = 0; l < layers; ++l)
      out.push_back(over_experts(std::span(m.values).subspan(l * each, each), m, how));
    return out;
  }
  std::vector<double> v = m.values;
  if (how != "stacked")
    return {over_layers(v, how)};
  for (std::size_t l = 0; l < v.size(); ++l)
    v[l] *= shape.top_k[l];
  return {over_layers(v, "mean")};
}

std::vector<std::string> metrics_of(std::string_view convention) {
  std::vector<std::string> out;
  for (const Upstream& u : all_figures) {
    if (u.convention == convention) {
      for (const std::string_view id : {u.id, u.our_id}) {
        const Definition* d = find_definition(id);
        if (d && std::ranges::find(out, d->metric) == out.end())
          out.emplace_back(d->metric);
      }
    }
  }
  return out;
}

struct Rows {
  std::vector<std::string> name, layer, id, difference;
  std::vector<double> theirs, ours;
};

void append(Rows& r, const Upstream& u, const std::vector<double>& theirs,
            const std::vector<double>& ours, const Shape& shape) {
  const std::size_t n = std::max(theirs.size(), ours.size());
  const std::size_t layers = shape.number.size();
  const bool by_layer =
      std::ranges::any_of(std::array{u.reduction, u.our_reduction}, [](std::string_view how) {
        return how == "each" || how == "most" || how == "least" || how == "first";
      });
  for (std::size_t i = 0; i < n; ++i) {
    r.name.emplace_back(u.name);
    r.layer.push_back(!by_layer     ? "all"
                      : n == layers ? concat(shape.number[i])
                                    : concat(shape.number[i], "→", shape.number[i + 1]));
    r.theirs.push_back(theirs.size() == 1 ? theirs[0] : theirs[i]);
    r.ours.push_back(ours.size() == 1 ? ours[0] : ours[i]);
    r.id.emplace_back(u.our_id);
    r.difference.emplace_back(i == 0 ? u.difference : "");
  }
}

}  // namespace

std::span<const ToolConvention> conventions() {
  return all_conventions;
}
std::span<const Upstream> upstream_figures() {
  return all_figures;
}

namespace {

Report introduction(const TraceSource& trace, const ToolConvention& of) {
  Report r;
  r.title = concat("In the words of ", of.about);
  const TraceHeader& h = trace.header();
  r.facts = {{"model", h.model_id.empty() ? "not named" : h.model_id},
             {counts_only(trace) ? "counts" : "tokens",
              counts_only(trace) ? concat(trace.count_steps(), " steps") : concat(trace.tokens())},
             {"MoE layers", concat(h.layers.size())}};
  r.warnings = trace.warnings();
  return r;
}

Table table(const Rows& rows) {
  TableBuilder t("convention", "Their figures and ours", "");
  t.key("their name", "", rows.name).key("layer", "", rows.layer);
  t.column("their value").meaning("by their definition").digits(4).values(rows.theirs);
  t.key("our id", "", rows.id);
  t.column("our value").meaning("by ours").digits(4).values(rows.ours);
  t.key("how theirs differs", "", rows.difference);
  return t.take();
}

}  // namespace

Report in_convention(const TraceSource& trace, std::string_view name, const AnalyzeOptions& o) {
  std::vector<std::string> names;
  for (const ToolConvention& c : all_conventions)
    names.emplace_back(c.name);
  const auto* found = std::ranges::find(all_conventions, name, &ToolConvention::name);
  if (found == std::end(all_conventions))
    no_such("convention", name, names);
  const auto measured = measure(trace, metrics_of(name), o);
  const auto value = [&](std::string_view id) {
    return std::ranges::find(measured, id, &MetricValue::id);
  };
  const Shape shape(trace);
  Rows rows;
  Report r = introduction(trace, *found);
  for (const Upstream& u : all_figures) {
    if (u.convention != name)
      continue;
    const auto theirs = value(u.id);
    const auto ours = value(u.our_id);
    if (theirs == measured.end() || ours == measured.end()) {
      r.warnings.push_back(
          concat("'", u.name, "' is left out: the trace lacks part of what it needs (",
                 find_definition(theirs == measured.end() ? u.id : u.our_id)->needs, ")"));
    } else {
      append(rows, u, reduced(*theirs, u.reduction, shape), reduced(*ours, u.our_reduction, shape),
             shape);
    }
  }
  r.tables.push_back(table(rows));
  return r;
}

}  // namespace moe
