// C++ source as a list of tokens, and what the rules of this folder ask of it: how many tokens each
// function has, and where commas join statements. It is a lexer with a stack of brackets, not a
// parser: it knows what the sources of this project need to be read right, and the snippets of
// source_test.cpp say what that is.
#pragma once
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace structure {

enum class Kind { word, number, text, mark };  // text: a string or character literal

struct Token {
  Kind kind;
  std::string text;
  int line;  // from 1
};

// Comments and preprocessor lines are left out; of a string literal only its quotes are kept.
std::vector<Token> tokens_of(std::string_view source);

struct Function {
  int line;                 // of its opening brace
  int tokens;               // of its body with both braces; a literal in quotes counts as three
  bool test_case;           // TEST_CASE(...)
  std::size_t first, last;  // the braces, as indices into the tokens
};
// ExpertParameters of functions, in order. Lambdas and local types count to the function around
// them.
std::vector<Function> functions_of(const std::vector<Token>&);

// Lines of the commas that join expressions into one statement ("a = 1, b = 2;", "return a, b;")
// or one value ("x = (a, b);"). The header of a `for` may have them.
std::vector<int> comma_statements(const std::vector<Token>&);

struct File {
  std::string name;    // from the root of the repository: "lib/core/view.h"
  std::string folder;  // the unit of the floors: "lib/core", "analysis", "tests"
  std::vector<std::string> lines;
  std::string text() const;
};
// Every C++ file below these folders of the repository, sorted by name.
std::vector<File> files(const std::vector<std::string>& folders);
std::string folder_of(const std::string& path);
// Characters, not bytes, of a line in UTF-8.
int columns(std::string_view line);

const std::filesystem::path& root();

}  // namespace structure
