#include "apps/manual.h"

#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/help.h"
#include "apps/version.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// Text of a paragraph: no line of it can be taken for a request.
std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else if (c == '\'')
      out += "\\(aq";
    else if (c == '`')
      out += "\\(ga";
    else
      out += c;
  }
  return out.starts_with('.') ? "\\&" + out : out;
}

std::string head(const std::string& name, const std::string& about) {
  return concat(".TH ", name, " 1 \"\" \"moe ", roff(version_short()),
                "\" \"moe\"\n.ad l\n.SH NAME\n", roff(name), " \\- ", roff(about), "\n");
}

std::string section(const std::string& title) {
  return concat(".SH ", title, "\n");
}

std::string item(const std::string& name, const std::string& text) {
  return concat(".TP\n.B ", roff(name), "\n", roff(text), "\n");
}

std::string examples_of(const std::string& verb) {
  std::string out;
  for (const std::string& e : split(commands().at(verb).examples, '|'))
    out += concat(".PP\n.nf\n.RS\nmoe ", roff(e), "\n.RE\n.fi\n");
  return out;
}

std::string options_of(const CLI::App& app) {
  std::string out;
  for (const CLI::Option* o : app.get_options()) {
    if (o->nonpositional() && o->get_group().empty())
      continue;  // former names
    const HelpRow row = help_row(*o);
    out += item(row.name, row.text);
  }
  return out;
}

std::string verb_page(const CLI::App& verb) {
  const std::string name = verb.get_name();
  std::string out = head("moe-" + name, verb.get_description());
  out += section("SYNOPSIS") +
         concat(".B ", roff(usage_line(verb).substr(std::string_view("usage: ").size())), "\n");
  out += section("OPTIONS") + options_of(verb);
  for (const CLI::App* subject : verb.get_subcommands([](const CLI::App*) { return true; })) {
    out += section(concat("OPTIONS OF \"", name, " ", subject->get_name(), "\""));
    out += roff(subject->get_description()) + "\n" + options_of(*subject);
  }
  out += section("EXAMPLES") + examples_of(name);
  return out + section("SEE ALSO") + ".BR moe (1)\n";
}

std::string program_page(const CLI::App& program) {
  std::string out = head("moe", "Mixture-of-Experts research: train, trace, report");
  out += section("SYNOPSIS") + ".B moe\n.I VERB\n.RI [ options ]\n";
  out += section("VERBS");
  for (const CLI::App* verb : program.get_subcommands([](const CLI::App*) { return true; }))
    out += item(verb->get_name(), verb->get_description());
  out += section("FINDING THINGS");
  out +=
      ".PP\n.B moe help\n.I WORD\nfinds verbs, options, names, figures and words of the field, "
      "in English and Chinese.\n.B moe list\nshows what can be chosen,\n.B moe VERB \\-\\-help\n"
      "explains a verb.\n";
  out += section("EXIT STATUS");
  out +=
      "0 done, 1 a check failed, 2 usage, 3 input invalid, 4 disk or permission, 5 memory, 6 not "
      "a number, 7 environment, 70 a bug of moe, 130 or 143 stopped with its state saved.\n";
  out += section("SEE ALSO");
  std::string others;
  for (const auto& e : commands().entries())
    others += concat(others.empty() ? "" : ", ", "\\fBmoe\\-", e.name, "\\fR(1)");
  return out + others + "\n";
}

}  // namespace

std::string manual_page(const CLI::App& app) {
  return app.get_parent() ? verb_page(app) : program_page(app);
}

}  // namespace moe
