// Cells of a line: see lines.h.
#include "lib/import/lines.h"

#include <charconv>

#include "lib/core/text.h"

namespace moe {

void NumberLine::refuse(const std::string& why) const {
  refuse_import(where(), why, "the file as its engine wrote it");
}

std::vector<std::string_view> NumberLine::cells(char separator) const {
  std::vector<std::string_view> out;
  std::string_view rest = text_;
  for (;;) {
    const auto end = rest.find(separator);
    if (separator != ' ' || end != 0)
      out.push_back(rest.substr(0, end));
    if (end == rest.npos)
      break;
    rest.remove_prefix(end + 1);
  }
  if (separator == ' ' && !out.empty() && out.back().empty())
    out.pop_back();
  return out;
}

std::int64_t NumberLine::whole(std::string_view cell) const {
  std::int64_t v = 0;
  const auto [stop, error] = std::from_chars(cell.data(), cell.data() + cell.size(), v);
  if (error != std::errc() || stop != cell.data() + cell.size())
    refuse(concat("has ", in_quotes(cell), " where a whole number should stand"));
  return v;
}

double NumberLine::real(std::string_view cell) const {
  double v = 0;
  const auto [stop, error] = std::from_chars(cell.data(), cell.data() + cell.size(), v);
  if (error != std::errc() || stop != cell.data() + cell.size())
    refuse(concat("has ", in_quotes(cell), " where a number should stand"));
  return v;
}

std::vector<std::int64_t> NumberLine::wholes(char separator) const {
  std::vector<std::int64_t> out;
  for (const std::string_view cell : cells(separator))
    out.push_back(whole(cell));
  return out;
}

void each_line(const ImportFile& f, const std::function<void(NumberLine&)>& take) {
  MappedLines lines(f.path);
  std::string_view text;
  while (lines.next(text)) {
    if (text.find_first_not_of(" \t") == text.npos)
      continue;
    NumberLine line(lines, text);
    take(line);
  }
}

}  // namespace moe
