// moe: the table of verbs, and the one place where an Error is caught. The program is installed as moe-train, moe-trace and
// moe-report too: the name it is called by picks the verb.
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <new>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/terminal.h"
#include "apps/version.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

#define COMMAND(name, about, examples) Command name##_command;
#include "apps/commands.def"
#undef COMMAND

const Registry<Command>& commands() {
  static const Registry<Command> all("command", {
#define COMMAND(name, about, examples) {#name, about, examples, name##_command},
#include "apps/commands.def"
#undef COMMAND
  });
  return all;
}

namespace {

std::string examples_text(std::string_view examples) {
  std::string out = "examples:";
  for (const std::string& e : split(examples, '|')) out += "\n  moe " + e;
  return out;
}

int say(const Error& e) {
  const Style style = Style::of(stderr);
  fmt::print(stderr, "{}moe:{} {}\n", style.red, style.plain, e.what());
  if (!e.safe().empty()) fmt::print(stderr, "  safe: {}\n", e.safe());
  if (!e.hint().empty()) fmt::print(stderr, "  try:  {}\n", e.hint());
  return int(e.code());
}

int run(int argc, char** argv) {
  CLI::App app("Mixture-of-Experts research: train, trace, report", "moe");
  app.require_subcommand(0, 1);
  app.set_help_flag("-h,--help", "show this help");
  bool version = false, json = false;
  app.add_flag("--version", version, "versions and how it was built");
  app.add_flag("--json", json, "with --version: as JSON");
  app.footer("moe VERB --help explains a verb and shows examples; moe list shows what can be chosen.");
  std::vector<std::pair<CLI::App*, Run>> ready;
  for (const auto& entry : commands().entries()) {
    CLI::App* sub = app.add_subcommand(std::string(entry.name), std::string(entry.about));
    sub->set_help_flag("-h,--help", "show this help");
    sub->footer(examples_text(entry.examples));
    ready.emplace_back(sub, entry.make(*sub));
  }
  std::vector<std::string> words = arguments(argc, argv, app);
  try {
    std::ranges::reverse(words);  // as CLI11 wants them
    app.parse(words);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e, std::cout, std::cerr);
  } catch (const CLI::ParseError& e) {
    throw usage_error(e, app);
  }
  if (version) {
    fmt::print("{}", json ? version_json() : version_text());
    return 0;
  }
  for (auto& [sub, go] : ready)
    if (sub->parsed()) return go();
  fmt::print("{}", app.help());
  return argc > 1 ? 2 : 0;
}

}  // namespace
}  // namespace moe

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is a failed write, not a death
  try {
    const int code = moe::run(argc, argv);
    return std::fflush(stdout) == 0 || code != 0 ? code : int(moe::Exit::io);
  } catch (const moe::Error& e) {
    return moe::say(e);
  } catch (const std::bad_alloc&) {
    return moe::say(moe::Error(moe::Exit::memory, "out of memory").hint("fewer tokens a step, or a smaller model; --dry-run says what is needed"));
  } catch (const std::filesystem::filesystem_error& e) {
    return moe::say(moe::Error(moe::Exit::io, e.what()));
  } catch (const std::system_error& e) {  // fmt::print to a closed pipe or a full disk
    if (e.code() == std::errc::broken_pipe) return 0;
    return moe::say(moe::Error(moe::Exit::io, std::string("cannot write the result: ") + e.what()));
  } catch (const std::exception& e) {
    return moe::say(moe::Error(moe::Exit::bug, std::string("internal error: ") + e.what()).hint("this is a bug in moe; please report it with the command line"));
  }
}
