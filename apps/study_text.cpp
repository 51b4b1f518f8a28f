#include "apps/study_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analysis/report/cells.h"
#include "analysis/report/utf8.h"
#include "lib/core/text.h"

namespace moe {
namespace {

using statistics::Estimate;

constexpr int least_width = 40;

std::string colour_of(Answer a, const Style& style) {
  return a == Answer::open ? style.yellow : style.bold;
}

std::string figure(double v) {
  if (std::isinf(v))
    return v > 0 ? "inf" : "-inf";
  return std::isnan(v) ? "-" : fmt::format("{:.4g}", v);
}

std::string interval(const Estimate& e) {
  if (std::isnan(e.low) || e.low == e.high)
    return "";
  return fmt::format("[{:.4g}, {:.4g}]", e.low, e.high);
}

// One row of the table of a measure: arm, mean, interval, difference, interval, mark.
struct Row {
  std::vector<std::string> cells;
};

std::vector<Row> rows_of(const Study& s, const Measured& m, const std::vector<ArmComparison>& all) {
  std::vector<Row> out;
  out.push_back({{"", m.unit.empty() ? "mean" : m.unit, "95 %",
                  concat(m.is_time ? "x " : "- ", s.baseline), "95 %", ""}});
  for (const ArmComparison& c : all) {
    const bool base = c.arm == s.baseline;
    out.push_back({{c.arm, figure(c.value.n > 0 ? c.value.value : NAN), interval(c.value),
                    base ? "" : figure(c.difference.value), base ? "" : interval(c.difference),
                    c.stands_out ? "*" : ""}});
  }
  return out;
}

// The widths of a table's columns, some of which are left out.
struct Layout {
  std::vector<int> wide;
  std::vector<bool> shown;

  int total() const {
    int sum = 0;
    for (std::size_t c = 0; c < wide.size(); ++c)
      sum += shown[c] ? wide[c] + 2 : 0;
    return sum;
  }
};

// Columns that fit: the interval of the mean goes first, then that of the difference.
Layout layout_of(const std::vector<Row>& rows, int width) {
  constexpr std::size_t droppable[] = {2, 4};
  constexpr std::size_t baseline = 3;  // headed by the name of an arm
  Layout out{std::vector<int>(rows[0].cells.size(), 0),
             std::vector<bool>(rows[0].cells.size(), true)};
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < rows[r].cells.size(); ++c) {
      if (r > 0 || c != baseline)
        out.wide[c] = std::max(out.wide[c], drawing::columns(rows[r].cells[c]));
    }
  }
  out.wide[baseline] =
      std::max(out.wide[baseline], std::min(14, drawing::columns(rows[0].cells[baseline])));
  for (const std::size_t c : droppable) {
    if (out.total() > width)
      out.shown[c] = false;
  }
  return out;
}

std::string drawn(std::vector<Row> rows, int width, const Style& style) {
  for (Row& r : rows)
    r.cells[0] = drawing::clip(r.cells[0], std::max(12, width / 3), false);
  const Layout layout = layout_of(rows, width);
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line = "  ";
    for (std::size_t c = 0; c < layout.wide.size(); ++c) {
      if (!layout.shown[c])
        continue;
      const int wide = layout.wide[c];
      line += drawing::padded(drawing::clip(rows[r].cells[c], wide, false), wide, c > 0) + "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += r == 0 ? concat(style.dim, line, style.plain, "\n") : line + "\n";
  }
  return out;
}

std::string wrapped(const std::string& text, int width, int indent) {
  std::string out;
  for (const std::string& line : drawing::wrap(text, std::max(20, width - indent)))
    out += std::string(std::size_t(out.empty() ? 0 : indent), ' ') + line + "\n";
  return out;
}

int lines_of(const std::string& text) {
  return int(std::ranges::count(text, '\n'));
}

std::string verdict_lines(const ClaimVerdict& v, int width, const Style& style) {
  const std::string text = wrapped(concat("“", v.claim.says, "” ", v.sentence), width - 2, 2);
  return concat("\n", colour_of(v.answer, style),
                v.answer == Answer::holds   ? "✓ "
                : v.answer == Answer::fails ? "✗ "
                                            : "? ",
                style.plain, text);
}

// The measures by how much they are wanted: the picture's, those of claims, the others.
std::vector<std::size_t> in_order(const Study& s, const Outcome& o) {
  std::vector<std::size_t> out;
  for (std::size_t m = 0; m < o.measures.size(); ++m)
    out.push_back(m);
  const auto rank = [&](std::size_t m) {
    const std::string& name = o.measures[m].name;
    const bool claimed = std::ranges::any_of(o.verdicts, [&](const ClaimVerdict& v) {
      return v.claim.holds.find(name + "[") != std::string::npos;
    });
    return name == s.picture ? 0 : claimed ? 1 : 2;
  };
  std::ranges::stable_sort(out, {}, rank);
  return out;
}

// What failed, and what to be careful about.
std::string cautions(const Outcome& o, int width, const Style& style) {
  std::string out;
  if (!o.failed.empty()) {
    out += concat("\n", style.red, o.failed.size(), " failed", style.plain, ", such as ",
                  wrapped(concat(o.failed[0].name, ": ", o.failed[0].why), width, 2));
  }
  for (const std::string& w : o.warnings)
    out += concat("\n", style.yellow, "! ", style.plain, wrapped(w, width - 2, 2));
  return out;
}

bool any_stands_out(const Outcome& o) {
  return std::ranges::any_of(o.comparisons, [](const std::vector<ArmComparison>& arms) {
    return std::ranges::any_of(arms, &ArmComparison::stands_out);
  });
}

}  // namespace

std::string study_text(const Study& s, const Outcome& o, int width, const Style& style) {
  width = std::max(width, least_width);
  std::string out = concat(style.bold, wrapped(s.question, width, 0), style.plain);
  for (const ClaimVerdict& v : o.verdicts)
    out += verdict_lines(v, width, style);
  std::string tail;
  if (any_stands_out(o))
    tail += concat(
        "\n", wrapped(concat("* differs from ", s.baseline, " (Holm's p below 0.05)"), width, 2));
  tail += cautions(o, width, style);
  constexpr int lines_of_rest = 5;  // where tables do not fit, and the files written
  std::vector<std::string> left;
  for (const std::size_t m : in_order(s, o)) {
    const Measured& measure = o.measures[m];
    const std::string table =
        concat("\n", style.bold, measure.title, style.plain, ", ", measure.repetitions.size(),
               measure.is_time ? " rounds" : " seeds", "\n",
               drawn(rows_of(s, measure, o.comparisons[m]), width, style));
    if (lines_of(out) + lines_of(table) + lines_of(tail) + lines_of_rest > most_study_lines)
      left.push_back(measure.title);
    else
      out += table;
  }
  if (!left.empty())
    out += "\n" + wrapped(concat("In study.html as well: ", join(left)), width, 2);
  return out + tail;
}

}  // namespace moe
