// A report as text of some format: pure functions, the same bytes for the same report, so a golden
// file is a test. No renderer knows a metric; what a column means, its unit, its digits and its
// chance value come with the column.
#pragma once
#include <string>
#include <string_view>

#include "analysis/table.h"
#include "lib/core/registry.h"

namespace moe {

struct RenderOptions {
  int width = 80;  // text: terminal columns; below 20 counts as 20
  // text: ANSI colours (the caller reads NO_COLOR and asks whether it is a terminal)
  bool colour = false;
  bool ascii = false;  // text: nothing beyond ASCII is drawn by us (names keep their letters)
  // rows drawn of a table marked detail; 0 = the format's own (text 12, md 24, html 200); csv,
  // json: all
  int rows = 0;
};

using Render = std::string(const Report&, const RenderOptions&);
const Registry<Render>& renderers();  // text, md, csv, json, html

// The format that the ending of a file name asks for: "a/report.htm" -> "html", "x.txt" -> "text";
// "" when it asks for none.
std::string_view format_of(std::string_view path);

}  // namespace moe
