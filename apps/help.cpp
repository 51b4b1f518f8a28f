#include "apps/help.h"

#include <algorithm>

#include "analysis/report/utf8.h"
#include "apps/command.h"
#include "apps/terminal.h"
#include "lib/core/text.h"

namespace moe {
namespace {

using drawing::columns;

// What stands for a value: N and X for numbers, or the word that the option was given.
std::string placeholder(const CLI::Option& o) {
  if (o.get_expected_max() == 0)
    return "";
  const std::string type = o.get_type_name();
  return type == "INT" || type == "UINT" ? "N"
         : type == "FLOAT"               ? "X"
         : type == "TEXT"                ? "TEXT"
                                         : type;
}

std::string upper(std::string s) {
  std::ranges::transform(s, s.begin(),
                         [](char c) { return c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c; });
  return s;
}

}  // namespace

HelpRow help_row(const CLI::Option& o) {
  HelpRow r;
  if (!o.nonpositional())
    r.name = upper(o.get_name(true, false));
  for (const std::string& s : o.nonpositional() ? o.get_snames() : std::vector<std::string>{})
    r.name += concat(r.name.empty() ? "" : ", ", "-", s);
  for (const std::string& s : o.nonpositional() ? o.get_lnames() : std::vector<std::string>{})
    r.name += concat(r.name.empty() ? "" : ", ", "--", s);
  if (const std::string value = placeholder(o); o.nonpositional() && !value.empty())
    r.name += " " + value;
  r.text = o.get_description();
  std::vector<std::string> more;
  if (!o.get_default_str().empty())
    more.push_back(concat("default ", o.get_default_str()));
  if (!o.get_envname().empty())
    more.push_back(concat("environment ", o.get_envname()));
  if (!more.empty())
    r.text += concat(" [", join(more, "; "), "]");
  return r;
}

namespace {

class Page {
 public:
  Page() : width_(std::clamp(terminal_width(stdout), 40, 110)), style_(Style::of(stdout)) {}
  void line(const std::string& s = "") {
    text_ += s + "\n";
  }
  void paragraph(const std::string& s) {
    for (const std::string& l : drawing::wrap(s, width_))
      line(l);
  }
  // Names left, what they mean right of them; under them where there is no room.
  void table(const std::string& title, const std::vector<HelpRow>& rows) {
    if (rows.empty())
      return;
    line();
    line(style_.bold + title + style_.plain);
    int left = 0;
    for (const HelpRow& r : rows)
      left = std::max(left, std::min(columns(r.name), width_ / 3));
    for (const HelpRow& r : rows) {
      const bool beside = columns(r.name) <= left;
      if (!beside)
        line("  " + r.name);
      std::string mark = beside ? "  " + drawing::padded(r.name, left, false)
                                : std::string(std::size_t(left) + 2, ' ');
      for (const std::string& l : drawing::wrap(r.text, width_ - left - 4)) {
        line(mark + "  " + l);
        mark = std::string(std::size_t(left) + 2, ' ');
      }
    }
  }
  std::string take() {
    return std::move(text_);
  }

 private:
  int width_;
  Style style_;
  std::string text_;
};

std::string path_of(const CLI::App& app) {  // "moe bench layer"
  return app.get_parent() ? concat(path_of(*app.get_parent()), " ", app.get_name()) : "moe";
}

}  // namespace

std::string usage_line(const CLI::App& app) {
  if (!app.get_parent())
    return "usage: moe VERB [options]";
  std::string out = concat("usage: ", path_of(app));
  if (!app.get_subcommands([](const CLI::App*) { return true; }).empty())
    return out + " SUBJECT [options]";
  for (const CLI::Option* o : app.get_options()) {
    const std::string word = o->nonpositional()
                                 ? concat("--", o->get_lnames().front(), " ", placeholder(*o))
                                 : upper(o->get_name(true, false));
    if (o->get_required())
      out += " " + word;
    else if (!o->nonpositional())
      out += concat(" [", word, "]");
  }
  return out + " [options]";
}

std::string Help::make_help(const CLI::App* app, std::string /*name*/, CLI::AppFormatMode) const {
  Page page;
  page.paragraph(concat(path_of(*app), ": ", app->get_description()));
  page.line();
  page.paragraph(usage_line(*app));
  std::vector<HelpRow> rows;
  for (const CLI::App* sub : app->get_subcommands([](const CLI::App*) { return true; }))
    rows.push_back({sub->get_name(), sub->get_description()});
  page.table(app->get_parent() ? "subjects" : "verbs", rows);
  rows.clear();
  for (const CLI::Option* o : app->get_options()) {
    if (!o->nonpositional())
      rows.push_back(help_row(*o));
  }
  page.table("arguments", rows);
  for (const std::string& group : app->get_groups()) {
    if (group.empty())  // former names of options
      continue;
    rows.clear();
    for (const CLI::Option* o : app->get_options(
             [&](const CLI::Option* p) { return p->get_group() == group && p->nonpositional(); })) {
      rows.push_back(help_row(*o));
    }
    page.table(group == "Options" ? "options" : group, rows);
  }
  page.line();
  for (const std::string& l : split(app->get_footer(), '\n'))
    page.line(l);
  return page.take();
}

}  // namespace moe
