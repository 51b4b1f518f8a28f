// --help as a page: what a verb does, how it is called, its options in columns that fit the
// terminal, examples.
#pragma once
#include <CLI/CLI.hpp>

namespace moe {

// A line of a table of options: "-o, --output FILE", and what it does with its default.
struct HelpRow {
  std::string name, text;
};
HelpRow help_row(const CLI::Option&);
std::string usage_line(const CLI::App&);  // "usage: moe trace MODEL -o FILE [options]"

class Help : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App*, std::string name, CLI::AppFormatMode) const override;
};

}  // namespace moe
