// moe help WORD: where a word stands in this program, and the command that goes on from there.
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <algorithm>

#include "analysis/report/utf8.h"
#include "apps/command.h"
#include "apps/manual.h"
#include "apps/search.h"
#include "apps/terminal.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

struct Options {
  std::vector<std::string> words;
  bool all = false, manual = false;
};

constexpr std::size_t most_shown = 16;

const CLI::App& program_of(const CommandLine& cli) {
  return *cli.app().get_parent();
}

void put(const Findable& e, int width, const Style& style) {
  fmt::print("{}{}{}  {}{}{}\n", style.bold, e.name, style.plain, style.dim, e.kind, style.plain);
  for (const std::string& l : drawing::wrap(e.about, width - 4))
    fmt::print("    {}\n", l);
  fmt::print("    {}{}{}\n", style.dim, e.command, style.plain);
}

int find(const Options& o, const CommandLine& cli) {
  const std::vector<Findable> all = entries(program_of(cli));
  const std::vector<Findable> hits = found(all, o.words);
  const std::string query = join(o.words, " ");
  if (hits.empty()) {
    const std::string near = nearest_name(all, o.words.back());
    throw Error(Exit::usage, concat("nothing here is about '", query, "'"))
        .hint(near.empty() ? "moe list shows what there is; docs/glossary.md the words"
                           : concat("moe help ", near));
  }
  const std::size_t shown = o.all ? hits.size() : std::min(hits.size(), most_shown);
  const int width = std::clamp(terminal_width(stdout), 40, 110);
  const Style style = Style::of(stdout);
  for (std::size_t i = 0; i < shown; ++i)
    put(hits[i], width, style);
  if (shown < hits.size())
    fmt::print("\n{} more: moe help {} --all\n", hits.size() - shown, query);
  return 0;
}

int manual(const Options& o, const CommandLine& cli) {
  const CLI::App* page = &program_of(cli);
  if (!o.words.empty()) {
    if (o.words.size() > 1 || !commands().find(o.words[0])) {
      throw Error(Exit::usage, "--manual writes the page of one verb, or of the program")
          .hint("moe help train --manual | man -l -");
    }
    const auto named = [&](const CLI::App* verb) {
      return verb->get_name() == o.words[0];
    };
    page = page->get_subcommands(named).front();
  }
  fmt::print("{}", manual_page(*page));
  return 0;
}

}  // namespace

Run help_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("word", o->words,
                 "what to look for: a verb, an option, a name, a figure's id, or a word of the "
                 "field, in English or Chinese");
  cli.add_flag("--all", o->all, "everything that is found, not only what is closest");
  cli.add_flag("--manual", o->manual, "the manual page of a verb, for man -l");
  return [o, cli] {
    return o->manual ? manual(*o, cli) : find(*o, cli);
  };
}

}  // namespace moe
