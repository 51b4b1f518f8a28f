#include "tests/cli/rows.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lib/trace/reader.h"

namespace moe::cli {
namespace {

template <class T>
bool same(const Matrix<T>& a, const Matrix<T>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::ranges::equal(a.flat(), b.flat());
}

}  // namespace

bool same_rows(const std::filesystem::path& part, const std::filesystem::path& whole, bool all) {
  const TraceReader a(part), b(whole);
  if (all ? a.tokens() != b.tokens() : a.tokens() > b.tokens())
    return false;
  constexpr std::uint64_t window = 4096;
  for (std::uint64_t first = 0; first < a.tokens(); first += window) {
    const std::uint64_t count = std::min(window, a.tokens() - first);
    const TraceRows x = a.read(first, count, a.fields());
    const TraceRows y = b.read(first, count, b.fields());
    if (x.token_id != y.token_id || x.position != y.position || x.sequence != y.sequence ||
        x.step != y.step || x.flags != y.flags) {
      return false;
    }
    if (x.layer.size() != y.layer.size() || x.layer.empty())
      return false;
    for (std::size_t l = 0; l < x.layer.size(); ++l) {
      if (!same(x.layer[l].expert, y.layer[l].expert) ||
          !same(x.layer[l].weight, y.layer[l].weight) || x.layer[l].expert.rows() != Index(count)) {
        return false;
      }
    }
  }
  return true;
}

std::vector<std::string> steps_of(const std::filesystem::path& metrics) {
  std::ifstream in(metrics);
  std::vector<std::string> out;
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line);
    out.push_back(std::to_string(j.at("step").get<long>()) +
                  (j.contains("valid_loss") ? " valid" : ""));
  }
  return out;
}

}  // namespace moe::cli
