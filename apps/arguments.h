// The command line around CLI11: the program's name as a verb, --config files with unknown keys
// refused, usage errors in one sentence with the nearest name, and the resolved options for
// provenance.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "apps/command.h"
#include "apps/command_line.h"
#include "lib/core/error.h"

namespace CLI {
class ParseError;
}  // namespace CLI

namespace moe {

// argv without its first word; "moe-train ..." becomes "train ...". The options of a --config file
// are added where the command line and the environment do not give them.
std::vector<std::string> arguments(int argc, char** argv, CLI::App&);

// What CLI11 has to say, as one sentence of ours; exit code 2.
Error usage_error(const CLI::ParseError&, const CLI::App&);

// Every option of a verb with its final value, as JSON text: {"steps":"2000",...}. For run.json,
// checkpoints, traces.
std::string options_json(const CommandLine& verb);

// What a verb runs once it is parsed: `verb` of its options, whose field `options` holds them all
// as that JSON text.
template <class Options>
Run run_with(CommandLine& cli, std::shared_ptr<Options> options, int (*verb)(const Options&)) {
  return [options, cli, verb] {
    options->options = options_json(cli);
    return verb(*options);
  };
}

// The command line as it was typed, quoted where needed; set once by arguments().
const std::string& command_line();

}  // namespace moe
