// The coloured text in a terminal: a legend of the colours, then some lines of every domain, broken
// where the text is.
#include "analysis/report/colour.h"
#include "analysis/report/terminal.h"
#include "analysis/report/utf8.h"

namespace moe::drawing {
namespace {

constexpr std::size_t lines_in_all = 48;  // shared by the domains
constexpr std::size_t least_lines = 3;    // of each, however many there are

std::string on_colour(const std::vector<Rgb>& colours, int expert, const std::string& text) {
  if (expert < 0)
    return text;
  const Rgb colour = colours[std::size_t(expert) % colours.size()];
  return concat("\x1b[97;48;5;", xterm(colour), "m", text, "\x1b[0m");
}

// Lines of one domain, with colours between the characters.
class Sheet {
 public:
  Sheet(const Terminal& t, const std::vector<Rgb>& colours, std::size_t most)
      : t_(t), colours_(colours), most_(most) {}

  bool full() const {
    return lines_.size() >= most_;
  }
  // A piece of whole characters; a line feed in it ends the line.
  void add(std::string_view piece, int expert) {
    while (true) {
      const auto end = piece.find('\n');
      put(clean(piece.substr(0, end)), expert);
      if (end == piece.npos)
        return;
      put(t_.ascii ? "\\n" : "↵", expert);
      break_line();
      piece.remove_prefix(end + 1);
    }
  }
  // Cells of a picture as blocks of two columns, as many in a line as fit.
  void add(const SamplePicture& p, const std::vector<int>& expert) {
    if (used_ > 0)
      break_line();
    const int wide = std::min(p.columns, t_.width / 2);
    for (int r = 0; r < p.rows; ++r) {
      for (int c = 0; c < wide; ++c) {
        const std::size_t at = p.first + std::size_t(r) * std::size_t(p.columns) + std::size_t(c);
        const int e = at < expert.size() ? expert[at] : -1;
        put(e < 0 ? (t_.ascii ? ". " : "· ") : "  ", e);
      }
      break_line();
    }
    if (wide < p.columns) {
      put(concat("(", p.columns - wide, " more columns)"), -1);
      break_line();
    }
  }
  Lines take() {
    if (used_ > 0 && !full())
      break_line();
    return std::move(lines_);
  }

 private:
  void put(const std::string& text, int expert) {
    for (const std::string& part : used_ + columns(text) > t_.width && columns(text) > t_.width
                                       ? wrap(text, t_.width)
                                       : std::vector<std::string>{text}) {
      if (used_ + columns(part) > t_.width)
        break_line();
      used_ += columns(part);
      line_ += part.empty() ? "" : on_colour(colours_, expert, part);
    }
  }
  void break_line() {
    if (!full())
      lines_.push_back(line_);
    line_.clear();
    used_ = 0;
  }
  const Terminal& t_;
  const std::vector<Rgb>& colours_;
  std::size_t most_;
  Lines lines_;
  std::string line_;
  int used_ = 0;
};

int experts_of(const Report& report) {
  int most = 1;
  for (const TokenSample& s : report.samples) {
    for (const auto& layer : s.expert) {
      for (const int e : layer)
        most = std::max(most, e + 1);
    }
  }
  return most;
}

// "experts:  0  1  2 ...", every number on its colour.
void put_legend(const Terminal& t, const std::vector<Rgb>& colours, int experts, Lines& out) {
  const int shown = std::min(experts, expert_colours);
  std::string line = "experts";
  int used = columns(line);
  for (int e = 0; e < shown; ++e) {
    const std::string name = concat(" ", e, e + expert_colours < experts ? "+ " : " ");
    if (used + 1 + columns(name) > t.width) {
      out.push_back(line);
      line.clear();
      used = 0;
    }
    line += " " + on_colour(colours, e, name);
    used += 1 + columns(name);
  }
  out.push_back(line);
  if (experts > expert_colours) {
    for (const std::string& s : wrap(concat("+ stands for every ", expert_colours,
                                            "th expert after it, in the same colour"),
                                     t.width))
      out.push_back(t.dim(s));
  }
}

void put_domain(const Terminal& t, const TokenSample& s, const std::vector<Rgb>& colours,
                std::size_t most, Lines& out) {
  const std::size_t layer = s.expert.size() / 2;
  out.emplace_back();
  out.push_back(t.bold(clip(clean(s.domain), t.width, t.ascii)));
  Sheet sheet(t, colours, most);
  std::size_t shown = 0;
  auto picture = s.pictures.begin();
  for (const Piece& p : whole_characters(s.piece)) {
    if (sheet.full())
      break;
    if (p.first < shown)
      continue;  // a place in a picture
    if (picture != s.pictures.end() && p.first == picture->first) {
      sheet.add(*picture, s.expert[layer]);
      shown = picture->end();
      ++picture;
      continue;
    }
    sheet.add(p.text, p.first < s.expert[layer].size() ? s.expert[layer][p.first] : -1);
    shown = p.first + p.count;
  }
  for (std::string& line : sheet.take())
    out.push_back(std::move(line));
  if (shown < s.piece.size()) {
    for (const std::string& line :
         wrap(concat(s.piece.size() - shown, " more tokens: -o report.html"), t.width))
      out.push_back(t.dim(line));
  }
}

}  // namespace

Lines sample_lines(const Terminal& t, const Report& report) {
  Lines out;
  if (!t.colour || report.samples.empty())
    return out;
  const int experts = experts_of(report);
  const std::vector<Rgb> colours = expert_backgrounds(experts).dark;
  put_legend(t, colours, experts, out);
  const std::size_t each = std::max(least_lines, lines_in_all / report.samples.size());
  for (const TokenSample& s : report.samples) {
    if (!s.expert.empty())
      put_domain(t, s, colours, each, out);
  }
  return out;
}

}  // namespace moe::drawing
