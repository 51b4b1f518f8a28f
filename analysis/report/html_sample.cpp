// The text with every token on the colour of its first expert. The page holds the choices of all
// layers (two base-36 letters a token and layer) and its script swaps the classes; without a script
// the first layer stands.
#include "analysis/report/page.h"

#include <fmt/format.h>

#include <algorithm>

#include "analysis/report/colour.h"
#include "analysis/report/utf8.h"
#include "lib/core/text.h"

namespace moe::drawing {
namespace {

int expert_of(const TokenSample& s, std::size_t layer, std::size_t token) {
  if (layer >= s.expert.size() || token >= s.expert[layer].size())
    return -1;
  return s.expert[layer][token];
}

std::string letters(int expert) {  // 0..1295 in base 36; "--" = none
  static constexpr std::string_view digits = "0123456789abcdefghijklmnopqrstuvwxyz";
  if (expert < 0 || expert >= 36 * 36)
    return "--";
  return {digits[std::size_t(expert / 36)], digits[std::size_t(expert % 36)]};
}

std::string shown(const std::string& bytes) {
  std::string out;
  if (bytes.empty())
    return "<s>∅</s>";
  for (const char c : html(bytes))
    out += c == '\n' ? "<s>↵</s>\n" : std::string(1, c);
  return out;
}

// inside: what stands on the colour, as HTML.
std::string span(const TokenSample& s, const Piece& p, const std::string& inside) {
  const int first = expert_of(s, 0, p.first);
  std::string title = p.count > 1 ? "experts " : "expert ";
  for (std::size_t i = 0; i < p.count; ++i) {
    const int e = expert_of(s, 0, p.first + i);
    title += concat(i ? ", " : "", e < 0 ? "none" : concat(e));
  }
  const std::string many = p.count > 1 ? fmt::format(" data-n={}", p.count) : "";
  return fmt::format("<span class=\"{}\"{} title=\"{}\">{}</span>",
                     first < 0 ? "no" : fmt::format("e{}", first % expert_colours), many, title,
                     inside);
}

// Tokens first..end of the sample, as the page's script takes them.
std::string codes(const TokenSample& s, std::size_t first, std::size_t end) {
  std::string out;
  for (std::size_t l = 0; l < s.expert.size(); ++l) {
    if (l)
      out += ' ';
    for (std::size_t i = first; i < end; ++i)
      out += letters(expert_of(s, l, i));
  }
  return out;
}

std::string words(const TokenSample& s, std::size_t first, std::size_t end) {
  if (first == end)
    return "";
  std::string out = concat("<p class=tokens data-layers=\"", codes(s, first, end), "\">");
  const auto at = [&](std::size_t i) {
    return s.piece.begin() + std::ptrdiff_t(i);
  };
  for (Piece p : whole_characters({at(first), at(end)})) {
    p.first += first;
    out += span(s, p, shown(p.text));
  }
  return out + "</p>\n";
}

std::string picture(const TokenSample& s, const SamplePicture& p) {
  std::string out = fmt::format(
      "<figure class=picture><div class=tokens style=\"grid-template-columns:repeat({},1fr);"
      "width:min(100%,{}rem)\" data-layers=\"{}\">",
      p.columns, std::min(28, std::max(6, 2 * p.columns)), codes(s, p.first, p.end()));
  for (std::size_t i = p.first; i < p.end(); ++i)
    out += span(s, {i, 1, ""}, "");
  return out + fmt::format("</div><figcaption class=note>{}, {} × {}</figcaption></figure>",
                           html(p.modality), p.rows, p.columns);
}

// Each picture beside the text behind it.
std::string text(const TokenSample& s) {
  std::string out = concat("<h3>", html(s.domain), "</h3>");
  const std::size_t before = s.pictures.empty() ? s.piece.size() : s.pictures[0].first;
  out += words(s, 0, before);
  for (std::size_t i = 0; i < s.pictures.size(); ++i) {
    const std::size_t end = i + 1 < s.pictures.size() ? s.pictures[i + 1].first : s.piece.size();
    out += concat("<div class=pictured>", picture(s, s.pictures[i]),
                  words(s, s.pictures[i].end(), end), "</div>\n");
  }
  return out;
}

constexpr const char* picture_style =
    "<style>.pictured{display:flex;flex-wrap:wrap;gap:1.2rem;align-items:flex-start}"
    ".pictured>p{flex:1 1 16rem}.picture{margin:0 0 1rem;flex:0 1 auto;min-width:7rem}"
    ".picture .tokens{display:grid;gap:1px;margin:.2rem 0 .3rem;line-height:1}"
    ".picture .tokens span{aspect-ratio:1;padding:0;box-shadow:none;border-radius:1px}"
    ".picture .tokens .no{background:var(--wash)}.picture figcaption{font-weight:400}"
    "</style>\n";

bool has_pictures(const Report& report) {
  return std::ranges::any_of(report.samples,
                             [](const TokenSample& s) { return !s.pictures.empty(); });
}

}  // namespace

int experts_in(const Report& report) {
  int most = 0;
  for (const TokenSample& s : report.samples) {
    for (const auto& layer : s.expert) {
      for (const int e : layer)
        most = std::max(most, e + 1);
    }
  }
  return most;
}

std::string sample_section(const Report& report) {
  if (report.samples.empty())
    return "";
  std::size_t layers = 0;
  for (const TokenSample& s : report.samples)
    layers = std::max(layers, s.expert.size());
  const int experts = experts_in(report);
  std::string out =
      "<section id=sample><h2>Text</h2><p class=reading>Every token on the colour of the expert "
      "that it chose first. Bytes of one "
      "character stand together, in the colour of the first byte. Choose an expert to see only its "
      "tokens.";
  if (has_pictures(report)) {
    out +=
        " The rows of a picture or a sound stand in their places: each is the patch, or the "
        "stretch of time, that it was made of.";
  }
  out += concat("</p>\n", has_pictures(report) ? picture_style : "", "<div class=bar>");
  out += "<label>Layer <select id=layer>";
  for (std::size_t l = 0; l < layers; ++l) {
    out += fmt::format("<option value={}>{}</option>", l,
                       l < report.layers.size() ? report.layers[l] : int(l));
  }
  out += "</select></label><div class=experts role=group aria-label=Experts>";
  for (int e = 0; e < std::min(experts, expert_colours); ++e) {
    std::string name = concat(e);
    if (e + expert_colours < experts)
      name += "+";
    out += fmt::format(
        "<button type=button class=e{} data-e={} aria-pressed=false title=\"expert "
        "{}\">{}</button>",
        e, e, name, name);
  }
  out += "</div></div>\n";
  if (experts > expert_colours) {
    out += fmt::format(
        "<p class=note>{} experts share {} colours: e and e + {} look the same; point at a token "
        "to read its id.</p>",
        experts, expert_colours, expert_colours);
  }
  for (const TokenSample& s : report.samples)
    out += text(s);
  return out + "</section>\n";
}

}  // namespace moe::drawing
