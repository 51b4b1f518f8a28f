// Files of the repository, and their text as tokens.
#include "tests/structure/source.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>

namespace structure {
namespace {

namespace fs = std::filesystem;

bool starts_word(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80);
}
bool in_word(char c) {
  return starts_word(c) || std::isdigit(static_cast<unsigned char>(c));
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : s_(source) {}

  std::vector<Token> all() {
    while (at_ < s_.size())
      next();
    return std::move(out_);
  }

 private:
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < s_.size() ? s_[at_ + ahead] : '\0';
  }

  void next() {
    const char c = peek();
    if (c == '\n' || std::isspace(static_cast<unsigned char>(c))) {
      advance(1);
    } else if (s_.substr(at_).starts_with("//")) {
      skip_line();
    } else if (s_.substr(at_).starts_with("/*")) {
      advance(std::min(s_.find("*/", at_ + 2), s_.size() - 2) + 2 - at_);
    } else if (c == '#') {
      skip_line();
    } else if (c == '"' || c == '\'') {
      quoted(c);
    } else if (starts_word(c)) {
      word();
    } else if (std::isdigit(static_cast<unsigned char>(c)) ||
               (c == '.' && std::isdigit(static_cast<unsigned char>(peek(1))))) {
      number();
    } else {
      mark();
    }
  }

  void advance(std::size_t count) {
    const std::size_t end = std::min(s_.size(), at_ + count);
    line_ +=
        int(std::count(s_.begin() + std::ptrdiff_t(at_), s_.begin() + std::ptrdiff_t(end), '\n'));
    at_ = end;
  }

  // To the end of the line, and of those that follow a backslash at its end.
  void skip_line() {
    for (; at_ < s_.size() && peek() != '\n'; advance(1)) {
      if (peek() == '\\' && peek(1) == '\n')
        advance(1);
    }
  }

  void add(Kind kind, std::string text, int line) {
    out_.push_back({kind, std::move(text), line});
  }

  void quoted(char quote) {
    const int line = line_;
    advance(1);
    while (at_ < s_.size() && peek() != quote)
      advance(peek() == '\\' ? 2 : 1);
    advance(1);
    add(Kind::text, std::string(2, quote), line);
  }

  // R"mark( ... )mark"
  void raw() {
    const int line = line_;
    const std::size_t open = s_.find('(', at_);
    const std::string close = ")" + std::string(s_.substr(at_ + 1, open - at_ - 1)) + "\"";
    const std::size_t end = s_.find(close, open);
    advance(end == s_.npos ? s_.size() : end + close.size() - at_);
    add(Kind::text, "\"\"", line);
  }

  void word() {
    std::size_t length = 1;
    while (in_word(peek(length)))
      ++length;
    const std::string text(s_.substr(at_, length));
    const char quote = peek(length);
    const bool prefix = text == "u8" || text == "u" || text == "U" || text == "L";
    if (quote == '"' && text.ends_with('R') && text.size() <= 3) {
      advance(length);
      raw();
    } else if ((quote == '"' || quote == '\'') && prefix) {
      advance(length);
      quoted(quote);
    } else {
      add(Kind::word, text, line_);
      advance(length);
    }
  }

  void number() {
    std::size_t length = 1;
    const auto goes_on = [&] {
      const char c = peek(length);
      const char before = char(std::tolower(static_cast<unsigned char>(peek(length - 1))));
      if (c == '+' || c == '-')
        return before == 'e' || before == 'p';
      return in_word(c) || c == '.' || (c == '\'' && in_word(peek(length + 1)));
    };
    while (goes_on())
      ++length;
    add(Kind::number, std::string(s_.substr(at_, length)), line_);
    advance(length);
  }

  void mark() {
    static constexpr std::array<std::string_view, 27> marks = {
        "<<<", "<<=", ">>=", "<=>", "...", "->*", "::", "->", "++", "--", "<<", "<=", ">=", "==",
        "!=",  "&&",  "||",  "+=",  "-=",  "*=",  "/=", "%=", "&=", "|=", "^=", ".*", "##"};
    std::size_t length = 1;
    for (const std::string_view m : marks) {
      if (s_.substr(at_).starts_with(m)) {
        length = m.size();
        break;
      }
    }
    add(Kind::mark, std::string(s_.substr(at_, length)), line_);
    advance(length);
  }

  std::string_view s_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> out_;
};

}  // namespace

std::vector<Token> tokens_of(std::string_view source) {
  return Lexer(source).all();
}

const fs::path& root() {
  static const fs::path path = MOE_SOURCE_DIR;
  return path;
}

std::string folder_of(const std::string& path) {
  const auto first = path.find('/');
  if (first == path.npos)
    return "";
  if (!path.starts_with("lib/"))
    return path.substr(0, first);
  return path.substr(0, path.find('/', first + 1));
}

std::string File::text() const {
  std::string out;
  for (const std::string& line : lines)
    out += line + "\n";
  return out;
}

std::vector<File> files(const std::vector<std::string>& folders) {
  static const std::vector<std::string> endings = {".h", ".cpp", ".cu", ".cuh", ".inl", ".def"};
  std::vector<File> out;
  for (const std::string& folder : folders) {
    for (const auto& entry : fs::recursive_directory_iterator(root() / folder)) {
      if (std::ranges::count(endings, entry.path().extension().string()) == 0)
        continue;
      const std::string name = fs::relative(entry.path(), root()).generic_string();
      out.push_back({name, folder_of(name), {}});
      std::ifstream in(entry.path());
      for (std::string line; std::getline(in, line);)
        out.back().lines.push_back(line);
    }
  }
  std::ranges::sort(out, {}, &File::name);
  return out;
}

int columns(std::string_view line) {
  return int(std::ranges::count_if(line, [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace structure
