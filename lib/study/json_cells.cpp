#include "lib/study/json_cells.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "analysis/curves/training_log.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"
#include "lib/files/lines.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
constexpr double none = std::numeric_limits<double>::quiet_NaN();
constexpr Index most_bytes = Index(1) << 30;

double number(const Json& v) {
  if (v.is_number())
    return v.get<double>();
  const bool text = v.is_string();
  if (text && v.get<std::string>() == "inf")
    return std::numeric_limits<double>::infinity();
  if (text && v.get<std::string>() == "-inf")
    return -std::numeric_limits<double>::infinity();
  return none;
}

std::string text_of(const Json& v) {
  return v.is_string() ? v.get<std::string>() : v.dump();
}

bool is_wanted(const Json& column, const CellPlace& place) {
  return (place.column.empty() || column.value("name", "") == place.column) &&
         (place.metric.empty() || column.value("metric", "") == place.metric);
}

// The first column of the table that is meant; null = none.
const Json* column_of(const Json& table, const CellPlace& place) {
  if (!place.table.empty() && table.value("id", "") != place.table)
    return nullptr;
  for (const Json& column : table.at("columns")) {
    if (is_wanted(column, place))
      return &column;
  }
  return nullptr;
}

std::vector<double> values_of(const Json& table, const Json& column, const CellPlace& place) {
  const Json& keys = table.at("columns").at(0).at("values");
  const Json& cells = column.at("values");
  std::vector<double> out;
  for (std::size_t r = 0; r < cells.size(); ++r) {
    if (place.row.empty() || (r < keys.size() && text_of(keys[r]) == place.row))
      out.push_back(number(cells[r]));
  }
  return out;
}

// A figure of one layer's line: a number, or a list by expert.
double of_layer(const Json& v, Reduce experts) {
  if (!v.is_array())
    return number(v);
  std::vector<double> all;
  for (const Json& e : v)
    all.push_back(number(e));
  return reduced(all, experts);
}

double of_line(const Json& line, const std::string& figure, Reduce layers, Reduce experts) {
  if (line.contains(figure))
    return of_layer(line[figure], experts);
  std::vector<double> all;
  if (line.contains("layers")) {
    for (const Json& layer : line["layers"]) {
      if (layer.contains(figure))
        all.push_back(of_layer(layer[figure], experts));
    }
  }
  return reduced(all, layers);
}

struct NoiseSums {
  double trace = 0, square = 0;
  double scale() const {
    return noise_scale(trace, square);
  }
};

// By layer and expert.
double noise_of_experts(const std::vector<Json>& lines, Reduce layers, Reduce experts) {
  std::vector<std::vector<NoiseSums>> sums;
  for (const Json& line : lines) {
    const Json& of_layers = line.at("layers");
    sums.resize(of_layers.size());
    for (std::size_t l = 0; l < sums.size(); ++l) {
      const Json& traces = of_layers[l].at("noise_trace");
      const Json& squares = of_layers[l].at("noise_square");
      sums[l].resize(traces.size());
      for (std::size_t e = 0; e < sums[l].size(); ++e) {
        sums[l][e].trace += number(traces[e]);
        sums[l][e].square += number(squares.at(e));
      }
    }
  }
  std::vector<double> of_layer;
  for (const auto& layer : sums) {
    std::vector<double> of_expert;
    for (const NoiseSums& s : layer)
      of_expert.push_back(s.scale());
    of_layer.push_back(reduced(of_expert, experts));
  }
  return reduced(of_layer, layers);
}

}  // namespace

double reduced(const std::vector<double>& values, Reduce how) {
  std::vector<double> known;
  std::ranges::copy_if(values, std::back_inserter(known), [](double v) { return !std::isnan(v); });
  if (known.empty())
    return none;
  switch (how) {
    case Reduce::most:
      return *std::ranges::max_element(known);
    case Reduce::least:
      return *std::ranges::min_element(known);
    case Reduce::first:
      return known.front();
    case Reduce::last:
      return known.back();
    case Reduce::mean:
      break;
  }
  double sum = 0;
  for (const double v : known)
    sum += v;
  return sum / double(known.size());
}

double number_of(const fs::path& file, const std::string& key) {
  if (!fs::exists(file))
    return none;
  const Json j = read_json(file);
  return j.contains(key) ? number(j[key]) : none;
}

double cell_of(const fs::path& file, const CellPlace& place) {
  const Json report = parse_json(read_file(file, most_bytes), file.string(), {.bytes = most_bytes});
  if (!report.contains("tables")) {
    throw Error(Exit::input, concat(in_quotes(file), " has no tables: it is no result of moe"))
        .hint("--format json -o {dir}/NAME.json");
  }
  std::vector<std::string> names;
  for (const Json& table : report["tables"]) {
    const Json* column = column_of(table, place);
    if (!column) {
      names.push_back(table.value("id", ""));
      continue;
    }
    const std::vector<double> values = values_of(table, *column, place);
    if (values.empty()) {
      throw Error(Exit::usage, concat("no row '", place.row, "' in the table '",
                                      table.value("id", ""), "' of ", in_quotes(file)))
          .hint("the cells of its first column");
    }
    return reduced(values, place.rows);
  }
  throw Error(Exit::usage, concat(in_quotes(file), " has no column ",
                                  place.metric.empty() ? place.column : place.metric,
                                  place.table.empty() ? "" : concat(" in a table ", place.table)))
      .hint(concat("it has the tables ", join(names)));
}

double logged(const fs::path& file, const std::string& figure, Reduce layers, Reduce experts,
              int last) {
  std::vector<double> all;
  LineReader lines(file);
  for (std::string text; lines.next(text);) {
    const Json line = Json::parse(text, nullptr, false);
    if (!line.is_object())
      continue;
    const double v = of_line(line, figure, layers, experts);
    if (!std::isnan(v))
      all.push_back(v);
  }
  if (all.empty()) {
    throw Error(Exit::usage, concat("no line of ", in_quotes(file), " has a figure '", figure, "'"))
        .hint("docs/study.md lists what training logs; some need an option of moe train");
  }
  const std::size_t n = std::min(all.size(), std::size_t(last));
  return reduced({all.end() - std::ptrdiff_t(n), all.end()}, Reduce::mean);
}

bool logs_experts(const fs::path& file) {
  if (!fs::exists(file))
    return true;
  LineReader lines(file);
  for (std::string text; lines.next(text);) {
    const Json line = Json::parse(text, nullptr, false);
    if (line.is_object() && line.contains("layers"))
      return !line["layers"].empty();
  }
  return true;
}

double noise_of(const fs::path& file, bool by_expert, Reduce layers, Reduce experts, int last) {
  std::vector<Json> all;
  LineReader lines(file);
  for (std::string text; lines.next(text);) {
    Json line = Json::parse(text, nullptr, false);
    if (line.is_object() && line.contains("noise_trace"))
      all.push_back(std::move(line));
  }
  if (all.empty()) {
    throw Error(Exit::usage, concat("no line of ", in_quotes(file), " has a gradient noise scale"))
        .hint("--noise-scale --accumulate 4 --lanes 4 in the train command of the study");
  }
  if (last > 0 && all.size() > std::size_t(last))
    all.erase(all.begin(), all.end() - last);
  if (by_expert)
    return noise_of_experts(all, layers, experts);
  NoiseSums sums;
  for (const Json& line : all) {
    sums.trace += number(line.at("noise_trace"));
    sums.square += number(line.at("noise_square"));
  }
  return sums.scale();
}

}  // namespace moe
