// Classes of characters and normal forms beside other sources: Python's unicodedata (unicode.txt,
// written by make_unicode.py), and the classes that the reference libraries were seen to match.
#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/tokenizer/normal_forms.h"
#include "lib/tokenizer/unicode.h"
#include "lib/tokenizer/utf8.h"
#include "tests/packed_bytes.h"
#include "tests/skip.h"

using namespace moe;

namespace {

namespace fs = std::filesystem;
constexpr char_class::Bits kCategories = char_class::letter | char_class::number |
                                         char_class::mark | char_class::punctuation |
                                         char_class::symbol;

// The lines of unicode.txt that begin with a word.
std::vector<std::vector<std::string>> lines_of(const std::string& kind) {
  std::ifstream in(fs::path(MOE_SOURCE_DIR) / "tests/tokenizer/unicode.txt");
  std::vector<std::vector<std::string>> out;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word != kind)
      continue;
    out.emplace_back();
    while (words >> word)
      out.back().push_back(word);
  }
  return out;
}

// The class of a general category, by its first letter.
char_class::Bits class_of(const std::string& category) {
  static const std::map<char, char_class::Bits> classes = {{'L', char_class::letter},
                                                           {'N', char_class::number},
                                                           {'M', char_class::mark},
                                                           {'P', char_class::punctuation},
                                                           {'S', char_class::symbol}};
  const auto found = classes.find(category[0]);
  return found == classes.end() ? char_class::Bits(0) : found->second;
}

std::string normal(const std::string& text, NormalForm form) {
  Aligned aligned(text, 0, false);
  aligned.transform(normal_changes(text, form), 0);
  return aligned.text();
}

bool is_in(const std::vector<CodeRange>& ranges, char32_t code) {
  return std::ranges::any_of(ranges,
                             [&](const CodeRange& r) { return r.first <= code && code <= r.last; });
}

}  // namespace

TEST_CASE("characters have the class of their general category") {
  const auto ranges = lines_of("range");
  REQUIRE(ranges.size() > 1500);
  for (const auto& range : ranges) {
    const auto first = char32_t(std::stoul(range.at(0), nullptr, 16));
    const auto last = char32_t(std::stoul(range.at(1), nullptr, 16));
    const std::string& category = range.at(2);
    const auto* property = property_ranges(category);
    REQUIRE(property);
    for (char32_t c = first; c <= last; ++c) {
      if ((classes_of(c) & kCategories) == class_of(category) && is_in(*property, c))
        continue;
      INFO(std::hex << std::uint32_t(c) << " of " << category);
      CHECK((classes_of(c) & kCategories) == class_of(category));
      CHECK(is_in(*property, c));
    }
  }
}

TEST_CASE("normal forms are those of unicodedata") {
  const auto forms = lines_of("form");
  REQUIRE(forms.size() == 600);
  constexpr NormalForm order[] = {NormalForm::nfc, NormalForm::nfd, NormalForm::nfkc,
                                  NormalForm::nfkd};
  for (const auto& line : forms) {
    const std::string text = test::bytes_of_hex(line.at(0));
    for (std::size_t i = 0; i < 4; ++i) {
      const std::string expected = test::bytes_of_hex(line.at(i + 1));
      INFO(line[0] << " in form " << i);
      CHECK(normal(text, order[i]) == expected);
      CHECK_FALSE((is_normal(text, order[i]) && text != expected));
    }
  }
}

TEST_CASE("classes are those that the reference libraries match, over all of Unicode") {
  const auto path = test::shared("golden/tokenizers/unicode-classes.json");
  if (!fs::exists(path))
    return test::skip("no recorded classes at " + path.string());
  std::ifstream in(path);
  const auto classes = nlohmann::json::parse(in).at("classes");
  const std::map<std::string, char_class::Bits> bits = {
      {"L", char_class::letter},     {"N", char_class::number}, {"s", char_class::space},
      {"M", char_class::mark},       {"S", char_class::symbol}, {"Han", char_class::han},
      {"P", char_class::punctuation}};
  for (const auto& [name, bit] : bits) {
    INFO(name);
    std::vector<bool> expected(0x110000);
    const auto list = classes.at(name).get<std::vector<std::uint32_t>>();
    for (std::size_t i = 0; i + 1 < list.size(); i += 2)
      std::fill(expected.begin() + list[i], expected.begin() + list[i + 1] + 1, true);
    int different = 0;
    for (char32_t c = 0; c < 0x110000; ++c)
      different += ((classes_of(c) & bit) != 0) != expected[c];
    CHECK(different == 0);
  }
}
