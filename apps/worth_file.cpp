#include "apps/worth_file.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "apps/eval_without.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"

namespace moe {
namespace {

constexpr Index most_bytes = Index(1) << 30;

std::vector<double> numbers(const Json& list) {
  std::vector<double> out;
  for (const Json& v : list)
    out.push_back(v.is_number() ? v.get<double>() : NAN);
  return out;
}

const Json& named(const Json& list, const char* key, const std::string& name) {
  for (const Json& one : list) {
    if (one.at(key) == name)
      return one;
  }
  throw Error(Exit::input, concat("it holds no ", name));
}

std::vector<double> bound(const Json& column, const char* name, std::size_t rows) {
  return column.contains(name) ? numbers(column.at(name)) : std::vector<double>(rows, NAN);
}

// Empty where there is none: files of former versions have no halves.
std::vector<double> optional_column(const Json& columns, const char* name) {
  for (const Json& one : columns) {
    if (one.at("name") == name)
      return numbers(one.at("values"));
  }
  return {};
}

MeasuredWorth worth_of(const Json& report) {
  const Json& columns = named(report.at("tables"), "id", "expert_worth").at("columns");
  MeasuredWorth out;
  const auto whole = [&](const char* name) {
    return named(columns, "name", name).at("values").get<std::vector<std::int64_t>>();
  };
  out.layer = whole("layer");
  out.expert = whole("expert");
  const Json& change = named(columns, "name", "change");
  out.change = numbers(change.at("values"));
  out.low = bound(change, "low", out.change.size());
  out.high = bound(change, "high", out.change.size());
  out.first_half = optional_column(columns, first_half_column);
  out.second_half = optional_column(columns, second_half_column);
  if (out.first_half.size() != out.second_half.size())
    throw Error(Exit::input, "its columns are of different lengths");
  for (const std::size_t n : {out.expert.size(), out.change.size(), out.low.size(),
                              std::max(out.first_half.size(), out.layer.size())}) {
    if (n != out.layer.size())
      throw Error(Exit::input, "its columns are of different lengths");
  }
  return out;
}

std::string weights_of(const Json& report) {
  for (const Json& fact : report.at("facts")) {
    if (fact.at("name") == weights_fact)
      return fact.at("value").get<std::string>();
  }
  return "";
}

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw Error(Exit::input, concat(in_quotes(path),
                                  " is no result of moe eval --without-expert "
                                  "each as JSON: ",
                                  why))
      .hint("moe eval RUN --data SPEC --without-expert each -o worth.json");
}

}  // namespace

MeasuredWorth read_worth(const std::string& path, const std::string& weights_xxh3) {
  MeasuredWorth out;
  std::string weights;
  const Json report = read_json(path, {.bytes = most_bytes});
  try {
    out = worth_of(report);
    weights = weights_of(report);
  } catch (const Json::exception&) {
    refuse(path, "parts of it are missing");
  } catch (const Error& e) {
    refuse(path, e.what());
  }
  if (!weights.empty() && !weights_xxh3.empty() && weights != weights_xxh3) {
    throw Error(Exit::input, concat(in_quotes(path), " was measured on the weights ", weights,
                                    ", and the trace is of the weights ", weights_xxh3))
        .hint("a trace and an evaluation of the same checkpoint");
  }
  return out;
}

}  // namespace moe
