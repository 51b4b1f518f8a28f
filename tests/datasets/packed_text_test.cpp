// Text from compressed files and from JSON lines: domains, limits, copies, and what is refused.
#include <catch2/catch.hpp>

#include "datasets/text_domains.h"
#include "tests/datasets/fixture.h"
#include "tests/packed_bytes.h"

using namespace moe;

namespace {

DatasetInfo info_of(const std::string& spec) {
  const auto tokenizer = make_tokenizer("bytes");
  return Corpus({spec}, *tokenizer, 0).info();
}

// Domains of a spec with their texts laid end to end.
std::vector<std::pair<std::string, std::string>> texts_of(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> out;
  Spec spec(text);
  text_domains(text_options(spec), [&](DomainText&& domain) {
    out.emplace_back(domain.name, "");
    for (const Document& d : domain.documents)
      out.back().second += d.text;
  });
  return out;
}

std::string line_of(const std::string& text, const std::string& set) {
  return "{\"text\": \"" + text + "\", \"meta\": {\"set\": \"" + set + "\"}, \"id\": 7}\n";
}

using Texts = std::vector<std::pair<std::string, std::string>>;

}  // namespace

TEST_CASE("compressed files are domains of the name without both endings") {
  Folder folder;
  write("packed/a.txt.gz", test::two_lines_gz());
  write("packed/b.zst", test::two_lines_zst());
  write("packed/c.txt", "plain\n");
  const std::string lines = "first line\nsecond line\n";
  CHECK(texts_of("text:path=packed") == Texts{{"a", lines}, {"b", lines}, {"c", "plain\n"}});
  CHECK(texts_of("text:path=packed/a.txt.gz") == Texts{{"a", lines}});
}

TEST_CASE("a limit ends the reading of a compressed file, and the rest is left out") {
  Folder folder;
  write("many.zst", test::many_lines_zst());
  CHECK(texts_of("text:path=many.zst,limit=1k")[0].second.size() == 1000);
  CHECK(info_of("text:path=many.zst,limit=1k").notes ==
        std::vector<std::string>{"cut at limit: many"});
  CHECK(texts_of("text:path=many.zst,limit=3000000")[0].second.size() == 3'000'000);
  CHECK(info_of("text:path=many.zst,limit=3000000").notes.empty());
}

TEST_CASE("binary takes a compressed file as it is") {
  Folder folder;
  write("a.gz", test::two_lines_gz());
  CHECK(texts_of("text:path=a.gz,binary=1") == Texts{{"a", test::two_lines_gz()}});
}

TEST_CASE("a compressed file that is cut off is refused, alone and in a folder") {
  Folder folder;
  write("packed/a.gz", test::two_lines_gz().substr(0, 20));
  write("packed/b.txt", "plain\n");
  for (const char* spec : {"text:path=packed", "text:path=packed/a.gz"})
    CHECK_THAT(refusal_of(spec), Catch::StartsWith("3: ") && Catch::Contains("is cut off"));
}

TEST_CASE("JSON lines give the texts of a key, each a document") {
  Folder folder;
  write("set.jsonl", line_of("one", "a") + "\n" + line_of("two\\n", "b") + line_of("three", "a"));
  CHECK(texts_of("text:path=set.jsonl,field=text") == Texts{{"set", "onetwo\nthree"}});
  CHECK(texts_of("text:path=set.jsonl,field=text,domain=meta.set") ==
        Texts{{"a", "onethree"}, {"b", "two\n"}});
  CHECK(texts_of("text:path=set.jsonl,field=meta.set,domain=id") == Texts{{"7", "ab"}});
  write("dots.jsonl", "{\"a.b\": \"near\", \"a\": {\"b\": \"far\"}}\n");
  CHECK(texts_of("text:path=dots.jsonl,field=a.b") == Texts{{"dots", "near"}});
}

TEST_CASE("JSON lines of a folder are domains by file, or by key over all files") {
  Folder folder;
  write("sets/one.jsonl", line_of("x", "a"));
  write("sets/two.jsonl", line_of("y", "a") + line_of("z", "b"));
  CHECK(texts_of("text:path=sets,field=text") == Texts{{"one", "x"}, {"two", "yz"}});
  CHECK(texts_of("text:path=sets,field=text,domain=meta.set") == Texts{{"a", "xy"}, {"b", "z"}});
}

TEST_CASE("limits count for each domain of JSON lines and cut no character") {
  Folder folder;
  write("set.jsonl", line_of("abcdef", "a") + line_of("床前明月", "b") + line_of("ghijkl", "a"));
  CHECK(texts_of("text:path=set.jsonl,field=text,domain=meta.set,limit=8") ==
        Texts{{"a", "abcdefgh"}, {"b", "床前"}});
  CHECK(texts_of("text:path=set.jsonl,field=text,limit=6") == Texts{{"set", "abcdef"}});
}

TEST_CASE("what is left out of JSON lines is told as texts") {
  Folder folder;
  const std::string text(400, 'x');
  write("set.jsonl", line_of(text, "a") + line_of(text, "a") + line_of("", "a"));
  CHECK(info_of("text:path=set.jsonl,field=text").notes ==
        std::vector<std::string>{"left out, the same as another text: set (1 text)",
                                 "left out, empty: set (1 text)"});
}

TEST_CASE("JSON lines that are read as plain text are told") {
  Folder folder;
  write("set.jsonl", numbered("{\"text\": \"x\"}", 100));
  CHECK(info_of("text:path=set.jsonl").notes ==
        std::vector<std::string>{
            "read as it stands, JSON and all (field=KEY reads the texts of JSON lines): set"});
}

TEST_CASE("lines without a text, a domain or an object are refused by their number") {
  Folder folder;
  const auto said = [](const std::string& lines, const std::string& options) {
    write("set.jsonl", lines);
    return refusal_of("text:path=set.jsonl,field=text" + options);
  };
  const std::string good = line_of("x", "a");
  CHECK(said(good + "{\"body\": \"x\"}\n", "") == "3: 'set.jsonl' line 2 has no text at 'text'");
  CHECK(said(good + "{\"text\": 5}\n", "") == "3: 'set.jsonl' line 2 has no text at 'text'");
  CHECK(said("[1]\n", "") == "3: 'set.jsonl' line 1 has no text at 'text'");
  CHECK(said("{\"text\": \"\\ud800\"}\n", "") == "3: 'set.jsonl' line 1 is not JSON");
  CHECK_THAT(said(good + "{\"text\": \"y\"}\n", ",domain=meta.set"),
             Catch::StartsWith("3: 'set.jsonl' line 2 names no domain at 'meta.set'"));
  CHECK_THAT(said(good, ",domain=text.set"), Catch::Contains("names no domain"));
  CHECK(said("", "") == "3: 'set.jsonl' holds no line");
  CHECK(said("\n", "") == "3: 'set.jsonl' holds no line");
  CHECK_THAT(said(line_of("", "a"), ""), Catch::Contains("its text is empty"));
  CHECK_THAT(said(good, ",binary=1"), Catch::StartsWith("2: "));
}

TEST_CASE("a key that names thousands of domains is refused") {
  Folder folder;
  std::string lines;
  for (int i = 0; i < 4097; ++i)
    lines += line_of("x", std::to_string(i));
  write("set.jsonl", lines);
  CHECK_THAT(refusal_of("text:path=set.jsonl,field=text,domain=meta.set"),
             Catch::Contains("line 4097") && Catch::Contains("4096"));
}

TEST_CASE("what training reads of texts is their train split, and of ids nothing") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  const std::vector<std::string> specs = {"text:path=corpus/english.txt", "tokens:path=ids.txt"};
  Index bytes = 0;
  Index stretches = 0;
  each_training_text(specs, [&](std::string_view text) {
    bytes += Index(text.size());
    ++stretches;
  });
  const Corpus corpus({specs[0]}, *tokenizer, 0);
  CHECK(bytes + stretches == corpus.info().train_tokens[0]);  // a boundary before each stretch
}
