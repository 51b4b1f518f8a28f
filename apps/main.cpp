// moe: the table of verbs, and the one place where an Error is caught. The program is installed as
// moe-train, moe-trace and moe-report too: the name it is called by picks the verb.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <new>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/help.h"
#include "apps/ranks.h"
#include "apps/terminal.h"
#include "apps/version.h"
#include "lib/core/error.h"
#include "lib/core/pages.h"
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
  for (const std::string& e : split(examples, '|'))
    out += "\n  moe " + e;
  return out;
}

// Where input was refused: what says more of a file that is there, but not the verb that failed.
std::string hint_of_input(std::string_view sentence) {
  const auto says = [&](const char* part) {
    return sentence.find(part) != sentence.npos;
  };
  const bool absent = says("there is no ") || says("No such file");
  const bool show = !absent && !command_line().starts_with("moe show");
  const bool verify = !absent && !command_line().starts_with("moe verify");
  return concat("check the path", show ? "; moe show PATH says what a file or folder is" : "",
                verify ? "; moe verify PATH says what is wrong with it" : "");
}

// Lines that are to be copied stay lines; nothing else in them moves the cursor.
std::string printable_lines(const std::string& text) {
  std::string out;
  for (std::size_t from = 0; from <= text.size();) {
    const std::size_t end = std::min(text.find('\n', from), text.size());
    out += concat(from > 0 ? "\n" : "", in_one_line(text.substr(from, end - from)));
    from = end + 1;
  }
  return out;
}

// A way out where whoever threw knew none.
std::string hint_of(const Error& e) {
  if (!e.hint().empty())
    return e.hint();
  switch (e.code()) {
    case Exit::usage:
      return "moe VERB --help, or moe list for what can be chosen";
    case Exit::input:
      return hint_of_input(e.what());
    case Exit::io:
      return "check the folder, its permissions and the free space";
    default:
      return "";
  }
}

void say_only(const Error& e) {
  const Style style = Style::of(stderr);
  write_stderr(concat(style.red, "moe:", style.plain, " ", rank_prefix(), in_one_line(e.what()),
                      reached_by_rank(e.what()), "\n"));
  if (!e.safe().empty())
    write_stderr(concat("  safe: ", in_one_line(e.safe()), "\n"));
  if (const std::string hint = hint_of(e); !hint.empty())
    write_stderr(concat("  try:  ", printable_lines(hint), "\n"));
  std::fflush(stderr);
}

int say(const Error& e) {
  if (says_error(e.what()))
    say_only(e);
  abort_ranks(int(e.code()));
  return int(e.code());
}

// What was printed may still sit in the buffer: a full disk shows itself here. A reader that left
// (| head) is no trouble.
int flushed(int code) {
  if (std::fflush(stdout) == 0 || errno == EPIPE)
    return code;
  throw Error(Exit::io, concat("cannot write the result: ", std::strerror(errno)))
      .hint("free space, or another place for the output");
}

int show_version(bool json) {
  if (speaks_for_all())
    fmt::print("{}", json ? version_json() : version_text());
  return 0;
}

void refuse_ranks_of(const std::string& verb) {
  if (verb != "train" && verb != "trace" && verb != "eval")
    refuse_ranks("moe " + verb);
}

int run(int argc, char** argv) {
  CLI::App app("Mixture-of-Experts research: train, trace, report", "moe");
  app.formatter(std::make_shared<Help>());  // before the verbs, which inherit it
  app.require_subcommand(0, 1);
  app.set_help_flag("-h,--help", "show this help");
  bool version = false;
  bool json = false;
  CLI::Option* asks = app.add_flag("--version", version, "versions and how it was built");
  app.add_flag("--json", json, "with --version: as JSON")->needs(asks);
  app.footer(
      "moe VERB --help explains a verb and shows examples; moe list shows what can be chosen.");
  std::vector<std::pair<CLI::App*, Run>> ready;
  for (const auto& entry : commands().entries()) {
    CLI::App* sub = app.add_subcommand(std::string(entry.name), std::string(entry.about));
    sub->set_help_flag("-h,--help", "show this help");
    sub->footer(examples_text(entry.examples));
    CommandLine line(*sub);
    ready.emplace_back(sub, entry.make(line));
  }
  std::vector<std::string> words = arguments(argc, argv, app);
  try {
    std::ranges::reverse(words);  // as CLI11 wants them
    app.parse(words);
  } catch (const CLI::CallForHelp& e) {
    return speaks_for_all() ? app.exit(e, std::cout, std::cerr) : 0;
  } catch (const CLI::ParseError& e) {
    throw usage_error(e, app);
  }
  if (version)
    return show_version(json);
  for (auto& [sub, go] : ready) {
    if (sub->parsed()) {
      refuse_ranks_of(sub->get_name());
      return go();
    }
  }
  fmt::print("{}", app.help());
  return argc > 1 ? 2 : 0;
}

}  // namespace
}  // namespace moe

int main(int argc, char** argv) {
  moe::keep_pages_of_passes();
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is a failed write, not a death
  std::signal(SIGXFSZ, SIG_IGN);  // so is a file that has grown to the limit of its size
  moe::catch_cut_files();
  try {
    const int code = moe::flushed(moe::run(argc, argv));
    moe::finish_ranks();
    return code;
  } catch (const moe::Error& e) {
    return moe::say(e);
  } catch (const std::bad_alloc&) {
    return moe::say(
        moe::Error(moe::Exit::memory, "out of memory")
            .hint("fewer tokens a step, or a smaller model; --dry-run says what is needed"));
  } catch (const std::filesystem::filesystem_error& e) {
    return moe::say(moe::Error(moe::Exit::io, e.what()));
  } catch (const std::system_error& e) {  // fmt::print to a closed pipe or a full disk
    if (e.code() == std::errc::broken_pipe) {
      moe::abort_ranks(0);
      return 0;
    }
    if (e.code() == std::errc::resource_unavailable_try_again) {  // of std::thread
      return moe::say(moe::Error(moe::Exit::memory,
                                 "a thread cannot be started: the limit of this user, or of the "
                                 "memory, is reached")
                          .hint("--threads 1, or a higher ulimit -u"));
    }
    return moe::say(moe::Error(moe::Exit::io, std::string("cannot write the result: ") + e.what()));
  } catch (const std::exception& e) {
    return moe::say(moe::Error(moe::Exit::bug, std::string("internal error: ") + e.what())
                        .hint("this is a bug in moe; please report it with the command line"));
  }
}
