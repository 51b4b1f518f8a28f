// Lines, words and JSON lines: nothing is lost at the edges of the buffer, lines are numbered as an
// editor numbers them, and what is too long or is not JSON is refused where it stands.
#include <nlohmann/json.hpp>

#include "lib/files/lines.h"
#include "tests/files/scratch.h"

using namespace moe;
using moe::test::refusal;
using moe::test::Scratch;

namespace {

using Strings = std::vector<std::string>;

Strings lines_of(const std::filesystem::path& path) {
  LineReader reader(path);
  Strings out;
  std::string line;
  while (reader.next(line))
    out.push_back(line);
  CHECK(reader.number() == Index(out.size()));
  return out;
}
Strings words_of(const std::filesystem::path& path) {
  WordReader reader(path);
  Strings out;
  std::string word;
  while (reader.next(word))
    out.push_back(word);
  return out;
}
std::vector<nlohmann::json> values_of(const std::filesystem::path& path) {
  JsonLineReader reader(path, "[1, 2]");
  std::vector<nlohmann::json> out;
  nlohmann::json value;
  while (reader.next(value))
    out.push_back(value);
  return out;
}

}  // namespace

TEST_CASE("lines end with any line end, and the last one needs none") {
  const Scratch folder;
  const auto lines = [&](const std::string& text) {
    folder.put("a.txt", text);
    return lines_of(folder / "a.txt");
  };
  CHECK(lines("").empty());
  CHECK(lines("a") == Strings{"a"});
  CHECK(lines("a\nb\n") == Strings{"a", "b"});
  CHECK(lines("a\r\nb\r\n") == Strings{"a", "b"});
  CHECK(lines("\n\na\n") == Strings{"", "", "a"});
  CHECK(lines(std::string("a\0b\n", 4)) == Strings{std::string("a\0b", 3)});
}

TEST_CASE("lines and words that cross the reader's buffer are whole") {
  const Scratch folder;
  Strings want;
  std::string text;
  for (int i = 0; i < 40'000; ++i) {
    want.push_back(std::to_string(i * 37));
    text += want.back() + "\n";
  }
  folder.put("a.txt", text);
  CHECK(lines_of(folder / "a.txt") == want);
  CHECK(words_of(folder / "a.txt") == want);
}

TEST_CASE("a line longer than its limit is refused by number") {
  const Scratch folder;
  folder.put("a.txt", "short\n" + std::string(1000, 'x') + "\n");
  LineReader reader(folder / "a.txt", 999);
  std::string line;
  REQUIRE(reader.next(line));
  const std::string what = refusal([&] { reader.next(line); });
  CHECK(what == "3: '" + (folder / "a.txt").native() + "' line 2 has more than 999 bytes");
  LineReader enough(folder / "a.txt", 1000);
  REQUIRE(enough.next(line));
  REQUIRE(enough.next(line));
  CHECK(line.size() == 1000);
}

TEST_CASE("words stand between any blanks, and of an endless one the beginning is given") {
  const Scratch folder;
  folder.put("a.txt", " 1\t2\n\n3\r\n-4 " + std::string(100'000, '5') + " 6");
  CHECK(words_of(folder / "a.txt") == Strings{"1", "2", "3", "-4", std::string(256, '5'), "6"});
  folder.put("b.txt", " \n ");
  CHECK(words_of(folder / "b.txt").empty());
}

TEST_CASE("JSON lines: a value a line, empty lines left out but counted") {
  const Scratch folder;
  folder.put("a.jsonl", "[1]\n\n  \r\n{\"a\": 2}\r\n3");
  const auto values = values_of(folder / "a.jsonl");
  REQUIRE(values.size() == 3);
  CHECK(values[0] == nlohmann::json::array({1}));
  CHECK(values[1]["a"] == 2);
  CHECK(values[2] == 3);
}

TEST_CASE("what is not JSON is refused by its line") {
  const Scratch folder;
  for (const std::string bad :
       {"[1", "[NaN]", "[Infinity]", "[-]", "{\"a\": \"\xff\"}", "[1] 2", "\xef\xbb", "{1: 2}"}) {
    CAPTURE(bad);
    folder.put("a.jsonl", "[1]\n\n" + bad + "\n");
    CHECK(refusal([&] { values_of(folder / "a.jsonl"); }) ==
          "3: '" + (folder / "a.jsonl").native() + "' line 3 is not JSON");
  }
  // deep nesting takes no stack
  folder.put("deep.jsonl", std::string(200'000, '[') + "\n");
  CHECK(refusal([&] { values_of(folder / "deep.jsonl"); }).find("line 1 is not JSON") !=
        std::string::npos);
}

TEST_CASE("a reader's own refusal names file and line, and shows a right one") {
  const Scratch folder;
  folder.put("a.jsonl", "[1]\n[2]\n");
  JsonLineReader reader(folder / "a.jsonl", "[1, 2]");
  nlohmann::json value;
  REQUIRE(reader.next(value));
  REQUIRE(reader.next(value));
  CHECK(reader.number() == 2);
  try {
    reader.refuse("has too few numbers");
  } catch (const Error& e) {
    CHECK(std::string(e.what()) ==
          "'" + (folder / "a.jsonl").native() + "' line 2 has too few numbers");
    CHECK(e.hint() == "[1, 2]");
  }
}
