// Specs and shells: what the program and its pages print can be typed as it stands, lists have a
// spelling that no shell takes apart, and what a shell did take apart is noticed.
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/core/text.h"
#include "tests/cli/program.h"
#include "tests/page.h"

namespace moe::cli {

namespace {

using Words = std::vector<std::string>;

// The words that bash makes of a line, in a folder of its own.
std::vector<std::string> words_in_bash(const Folder& f, const std::string& line) {
  std::ofstream(f.path() / "line.sh") << "printf '%s\\n' " << line << "\n";
  std::ifstream in;
  REQUIRE(std::system(
              concat("cd '", f.path().string(), "' && bash line.sh >words 2>/dev/null").c_str()) ==
          0);
  in.open(f.path() / "words");
  std::vector<std::string> out;
  for (std::string word; std::getline(in, word);)
    out.push_back(word);
  return out;
}

// The line without its quotes, at spaces: what it says where no shell reads it.
std::vector<std::string> words_as_written(std::string line) {
  std::erase(line, '\'');
  std::erase(line, '"');
  std::istringstream in(line);
  std::vector<std::string> out;
  for (std::string word; in >> word;)
    out.push_back(word);
  return out;
}

// Calls of the program on a page: lines of its blocks, and code spans.
std::vector<std::string> commands_in(const std::filesystem::path& page) {
  std::ifstream in(page);
  std::vector<std::string> out;
  for (std::string line; std::getline(in, line);) {
    std::vector<std::string> found = {line};
    for (const std::string& span : line.starts_with("```") ? Words{} : test::code_spans(line))
      found.push_back(span);
    for (const std::string& command : found) {
      if (command.starts_with("moe ") && command.find_first_of("|<>&#$()\\") == command.npos &&
          command.find("; ") == command.npos)
        out.push_back(command);
    }
  }
  return out;
}

std::string cells_of_cache(const Folder& f, const std::string& metric) {
  const Result r = f.run("report t.h5 --bootstrap 0 --format json --metric '" + metric + "'");
  INFO(r.err);
  REQUIRE(r.code == 0);
  return nlohmann::json::parse(r.out).at("tables").dump();
}

}  // namespace

TEST_CASE("examples that the program lists are one word each in a shell") {
  const Folder f;
  const Result list = f.run("list --format json");
  REQUIRE(list.code == 0);
  const auto kinds = nlohmann::json::parse(list.out);
  int quoted = 0;
  for (const auto& table : kinds.at("tables")) {
    if (table.at("id") == "commands" || table.at("id") == "conventions")
      continue;  // whole commands; sentences
    for (const auto& column : table.at("columns")) {
      if (column.at("name") != "examples")
        continue;
      for (const auto& cell : column.at("values")) {
        const std::string examples = cell.get<std::string>();
        CAPTURE(examples);
        quoted += examples.find('\'') != examples.npos;
        if (!examples.empty())
          CHECK(words_in_bash(f, examples) == words_as_written(examples));
      }
    }
  }
  CHECK(quoted > 0);
}

TEST_CASE("commands on the pages reach the program as they are written") {
  const Folder f;
  const std::filesystem::path root = MOE_SOURCE_DIR;
  std::vector<std::filesystem::path> pages = {root / "README.md"};
  for (const auto& entry : std::filesystem::directory_iterator(root / "docs")) {
    if (entry.path().extension() == ".md")
      pages.push_back(entry.path());
  }
  std::size_t seen = 0;
  for (const auto& page : pages) {
    for (const std::string& line : commands_in(page)) {
      CAPTURE(page.string(), line);
      ++seen;
      // joined, for words in quotes may hold spaces
      CHECK(join(words_in_bash(f, line), " ") == join(words_as_written(line), " "));
    }
  }
  CHECK(seen > 20);
}

TEST_CASE("a list written with + is the list written with commas or semicolons") {
  const Folder f;
  REQUIRE(f.run("synth uniform --tokens 400 --layers 1 -o t.h5").code == 0);
  CHECK(cells_of_cache(f, "cache:cache_sizes=1+3") == cells_of_cache(f, "cache:cache_sizes={1,3}"));
  CHECK(cells_of_cache(f, "drops:capacity_factors=0.5+1e+0") ==
        cells_of_cache(f, "drops:capacity_factors={0.5,1}"));
  const auto planned = [&](const std::string& fields) {
    const Result r = f.run("train --dry-run --model 'nano:layers=4," + fields + "'");
    INFO(r.err);
    REQUIRE(r.code == 0);
    return r.out;
  };
  CHECK(planned("dense_at=0+2") == planned("dense_at=0;2"));
  CHECK(planned("dense_at=0+2") != planned("dense_at=0"));
  CHECK(planned("experts=8,widths=64x4+32x4") == planned("experts=8,widths=64*4;32*4"));
  CHECK(planned("experts=4,expert_types=ffnx3+zero") ==
        planned("experts=4,expert_types=ffn*3;zero"));
  CHECK(planned("mixer=short_convx3+attention") == planned("mixer={short_conv*3;attention}"));
  CHECK(planned("balance={switch:coef=0.1+z:coef=1e-3}") ==
        planned("balance={switch:coef=0.1;z:coef=1e-3}"));
}

TEST_CASE("specs that a shell took apart are noticed") {
  const Folder f;
  const std::string note = "the shell took it apart";
  const std::string train = "train --dry-run --model nano ";
  CHECK(f.run(train + "--data=system:limit=64k --data=system:limit=128k").err.find(note) !=
        std::string::npos);
  for (const std::string both :
       {"--data=text:path=a --data=text:path=b", "--data=system:limit=64k --data=clusters:seed=1",
        "--data system:limit=64k --data system:limit=128k", "--data text:path=a text:path=b",
        "--data=clusters:seed=1,clusters=4 --data=clusters:seed=2,clusters=8"})
    CHECK(f.run(train + both).err.find(note) == std::string::npos);
  CHECK(f.run(train + "--data system:limit=64k system:limit=128k").err.find(note) !=
        std::string::npos);
  const Result word = f.run(train + "--router softmax:k=1 softmax:k=2");
  CHECK(word.code == 2);
  CHECK(word.err.find("unexpected argument 'softmax:k=2'") != std::string::npos);
  CHECK(word.err.find(note) != std::string::npos);
  const Result open = f.run("train --dry-run --model 'nano:mixer={short_conv'");
  CHECK(open.err.find("single quotes") != std::string::npos);
}

}  // namespace moe::cli
