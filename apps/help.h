// --help as a page: what a verb does, how it is called, its options in columns that fit the
// terminal, examples.
#pragma once
#include <CLI/CLI.hpp>

namespace moe {

class Help : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App*, std::string name, CLI::AppFormatMode) const override;
};

}  // namespace moe
