#include "analysis/report/figures.h"

#include <fmt/format.h>

#include <cstdlib>
#include <map>

#include "analysis/report/colour.h"
#include "analysis/report/page.h"
#include "lib/core/error.h"

namespace moe {
namespace {

using namespace drawing;

constexpr double column_inches = 3.3;
constexpr double page_inches = 6.9;
constexpr double most_units_of_column = 500;  // wider drawings would have letters too small to read

// The marks of the page's style sheet in its light colours, without variables, which few renderers
// of SVG know.
std::string style() {
  std::string out =
      "text{font-family:Helvetica,Arial,'DejaVu Sans',sans-serif}"
      ".tick,.row{font-size:11px;fill:#555b66}.row{font-size:11.5px;fill:#1b1d22}"
      ".name{font-size:11px;fill:#555b66;font-weight:bold}.grid,.base{stroke:#e3e4e6;fill:none}"
      ".base{stroke:#9a9fa8}.chance{stroke:#8a5a00;stroke-width:1.6;stroke-dasharray:4 3;fill:none}"
      ".error{stroke:#1b1d22;stroke-width:1.2;fill:none}.line{fill:none;stroke-width:2}"
      ".inf{font-size:13px;font-weight:bold;fill:#1b1d22}.none{fill:#f2f3f3}"
      ".vd,.vl{font-size:9.6px;text-anchor:middle}.vd{fill:#10131a}.vl{fill:#f4f5f7}"
      ".mark{stroke:#1b1d22;stroke-width:1.6;fill:none}.band{opacity:.2;stroke:none}"
      ".over{paint-order:stroke;stroke:#fff;stroke-width:3px}"
      ".ribbon{opacity:.5;stroke:none}.ribbon.faded{opacity:.09}"
      ".worst{fill:#1b1d22}";
  for (int i = 0; i < 8; ++i) {
    const std::string colour = hex(series(i, false));
    out += fmt::format(
        "rect.s{0},circle.s{0},path.band.s{0},path.ribbon.s{0}{{fill:{1}}}path.line.s{0}{{stroke:{"
        "1}}}",
        i, colour);
  }
  return out;
}

// A tag as XML wants it: every value of an attribute in quotes.
std::string quoted_tag(std::string_view tag) {
  std::string out;
  bool inside = false;  // of quotes
  for (std::size_t i = 0; i < tag.size(); ++i) {
    const char c = tag[i];
    out += c;
    if (c == '"')
      inside = !inside;
    if (inside || c != '=' || i + 1 == tag.size() || tag[i + 1] == '"')
      continue;
    std::size_t end = i + 1;
    while (end < tag.size() && tag[end] != ' ' && tag[end] != '>' && tag.substr(end, 2) != "/>")
      ++end;
    out += concat("\"", tag.substr(i + 1, end - i - 1), "\"");
    i = end - 1;
  }
  return out;
}

std::string as_xml(std::string_view html) {
  std::string out;
  while (!html.empty()) {
    const auto open = html.find('<');
    out += html.substr(0, open);
    if (open == html.npos)
      break;
    const auto close = html.find('>', open);
    out += quoted_tag(html.substr(open, close - open + 1));
    html.remove_prefix(close + 1);
  }
  return out;
}

struct Drawing {
  double width = 0, height = 0;
  std::string inside;  // XML between the tags of its svg
  bool is_scale = false;
};

// The drawings of a piece of a page.
std::vector<Drawing> drawings_in(const std::string& html) {
  std::vector<Drawing> out;
  for (std::size_t at = 0; (at = html.find("<svg class=", at)) != html.npos;) {
    const std::size_t end = html.find("</svg>", at);
    const std::size_t head = html.find('>', at);
    const std::string tag = html.substr(at, head - at);
    Drawing d{.inside = as_xml(std::string_view(html).substr(head + 1, end - head - 1)),
              .is_scale = tag.find("class=scale") != tag.npos};
    const std::size_t box = tag.find("viewBox=\"0 0 ");
    if (box != tag.npos) {
      char* next = nullptr;
      d.width = std::strtod(tag.c_str() + box + 13, &next);
      d.height = std::strtod(next, nullptr);
    }
    if (d.width > 0 && d.height > 0)
      out.push_back(std::move(d));
    at = end;
  }
  return out;
}

std::string standing_alone(const Drawing& d, const Drawing* scale) {
  const double top = scale ? scale->height + 6 : 0;
  const double height = d.height + top;
  const double inches = d.width <= most_units_of_column ? column_inches : page_inches;
  std::string out = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" "
      "width=\"{:.2f}in\" height=\"{:.2f}in\" viewBox=\"0 0 {:.0f} {:.0f}\">\n<style>{}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
      inches, inches * height / d.width, d.width, height, style());
  if (scale)
    out += concat("<g>", scale->inside, "</g>\n");
  return concat(out, "<g transform=\"translate(0 ", top, ")\">", d.inside, "</g>\n</svg>\n");
}

}  // namespace

std::vector<Figure> figures_of(const Report& report) {
  std::vector<Figure> out;
  std::map<std::string, int> used;
  int number = 0;
  for (const Table& t : report.tables) {
    if (!draws(t))
      continue;
    Drawing scale;
    for (Drawing& d : drawings_in(figure_of(t, concat("f", ++number)))) {
      if (d.is_scale) {
        scale = std::move(d);
        continue;
      }
      const int nth = ++used[t.id];
      out.push_back({concat(t.id, nth > 1 ? concat("-", nth) : ""),
                     standing_alone(d, scale.inside.empty() ? nullptr : &scale)});
    }
  }
  return out;
}

}  // namespace moe
