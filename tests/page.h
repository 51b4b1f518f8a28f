// Tables of the pages in docs/, for the tests that hold them to the program.
#pragma once
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace moe::test {

using Cells = std::vector<std::string>;

// "| a | b |" -> {"a", "b"}; `\|` is a bar inside a cell.
inline Cells cells_of(const std::string& line) {
  Cells out;
  std::string cell;
  for (std::size_t i = 1; i < line.size(); ++i) {
    if (line[i] != '|' || line[i - 1] == '\\') {
      cell += line[i];
      continue;
    }
    const auto first = cell.find_first_not_of(' ');
    const auto last = cell.find_last_not_of(' ');
    out.push_back(first == cell.npos ? "" : cell.substr(first, last - first + 1));
    cell.clear();
  }
  return out;
}

// The rows of the first table of docs/PAGE whose head starts with these columns; throws where there
// is none.
inline std::vector<Cells> table_of(const std::string& page, const Cells& head) {
  std::ifstream in(std::filesystem::path(MOE_SOURCE_DIR) / "docs" / page);
  std::vector<Cells> out;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    const Cells cells = line.starts_with("|") ? cells_of(line) : Cells{};
    if (inside && cells.empty())
      return out;
    if (inside && !line.starts_with("|--"))
      out.push_back(cells);
    if (cells.size() >= head.size() && std::equal(head.begin(), head.end(), cells.begin()))
      inside = true;
  }
  if (!inside)
    throw std::runtime_error("docs/" + page + " has no table '" + head.at(0) + "'");
  return out;
}

// What stands between backquotes: "`a=1`, `b=2` (needed)" -> {"a=1", "b=2"}.
inline std::vector<std::string> code_spans(const std::string& cell) {
  std::vector<std::string> out;
  std::size_t from = 0;
  while ((from = cell.find('`', from)) != cell.npos) {
    const std::size_t to = cell.find('`', from + 1);
    if (to == cell.npos)
      break;  // a span that goes on in the next line
    out.push_back(cell.substr(from + 1, to - from - 1));
    from = to + 1;
  }
  return out;
}

// The options of a resolved spec: "softmax:k=2,norm=1" -> {"k=2", "norm=1"}.
inline std::vector<std::string> options_of(const std::string& spec) {
  std::vector<std::string> out;
  const std::size_t colon = spec.find(':');
  if (colon == spec.npos)
    return out;
  out.emplace_back();
  int depth = 0;
  for (const char c : spec.substr(colon + 1)) {
    depth += (c == '{') - (c == '}');
    if (c == ',' && depth == 0)
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

inline std::string key_of(const std::string& option) {
  return option.substr(0, option.find('='));
}

}  // namespace moe::test
