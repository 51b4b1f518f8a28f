// Text from files: the split into train and valid, what is sampled from it, which files are taken,
// and what is refused.
#include <catch2/catch.hpp>
#include <set>

#include "datasets/stream.h"
#include "tests/datasets/fixture.h"
#include "tests/skip.h"

using namespace moe;

namespace {

const TokenIds& ids_of(const Piece& piece) {
  return piece.token;
}

std::set<std::string> whole_lines(const std::string& text) {
  auto lines = split(text, '\n');
  if (lines.size() < 3)
    return {};
  return {lines.begin() + 1, lines.end() - 1};
}

bool inside_character(const std::string& text, Index at) {
  return at < Index(text.size()) && (text[std::size_t(at)] & 0xC0) == 0x80;
}

// Bytes as a string of 't' and 'v'; fails if a byte is in no split or in both.
std::string assignment(const std::vector<Document>& documents) {
  std::string out;
  Index document = -1;
  Index at = 0;
  for (const Stretch& s : split_blocks(documents)) {
    if (s.document != document) {
      REQUIRE((document < 0 || at == Index(documents[std::size_t(document)].text.size())));
      document = s.document;
      at = 0;
    }
    REQUIRE(s.first == at);
    REQUIRE(s.last > s.first);
    CHECK_FALSE(inside_character(documents[std::size_t(document)].text, s.first));
    out.append(std::size_t(s.last - s.first), s.split == Split::valid ? 'v' : 't');
    at = s.last;
  }
  return out;
}

// A tokenizer whose ids say where they stand: 1, 2, 3, ... over everything it ever encoded.
class Counting final : public Tokenizer {
 public:
  std::string id() const override {
    return "counting";
  }
  int vocabulary() const override {
    return 1 << 24;
  }
  int boundary() const override {
    return 0;
  }
  Encoded encode(std::string_view text, const EncodeOptions&) const override {
    Encoded out;
    out.ids.resize(text.size());
    for (int& id : out.ids)
      id = ++last_;
    return out;
  }
  std::string decode(const std::vector<int>&, bool) const override {
    return {};
  }
  SpecialIds special() const override {
    return {};
  }
  std::vector<std::string> pieces() const override {
    return {};
  }
  std::string tokenizer_json() const override {
    return {};
  }
  std::string tokenizer_config_json() const override {
    return {};
  }
  int last() const {
    return last_;
  }

 private:
  mutable int last_ = 0;
};

}  // namespace

TEST_CASE("blocks give every byte to one split, a tenth of them to valid, and cut no character") {
  for (const std::string line : {"a line of text", "床前明月光,疑是地上霜", ""}) {
    std::vector<Document> documents;
    for (int lines : {3, 40, 900, 1, 20000, 17}) {
      documents.push_back(
          {line.empty() ? std::string(std::size_t(lines) * 20, 'x') : numbered(line, lines)});
    }
    const std::string where = assignment(documents);
    std::size_t bytes = 0;
    for (const auto& d : documents)
      bytes += d.text.size();
    REQUIRE(where.size() == bytes);
    CHECK(double(std::ranges::count(where, 'v')) / double(bytes) == Approx(0.1).margin(0.02));
  }
}

TEST_CASE("a small text still has both splits, down to 161 bytes") {
  for (int size = 1; size < 6000; size += size < 300 ? 1 : 97) {
    const std::string where = assignment({{std::string(std::size_t(size), 'x')}});
    REQUIRE(where.find('t') != where.npos);
    // the first block ends with the document if 32 bytes or fewer remain
    REQUIRE((where.find('v') != where.npos) == (size > 160));
  }
}

TEST_CASE("more text moves nothing from one split to the other") {
  const std::string text = numbered("some words to read", 9000);
  const std::string all = assignment({{text}});
  for (const std::size_t limit : {100, 161, 1000, 5000, 20001, 99999})
    CHECK(assignment({{text.substr(0, limit), false}}) == all.substr(0, limit));
}

TEST_CASE("train and valid text are disjoint and together the whole") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"text:path=corpus/english.txt"}, *tokenizer, 3);
  std::string valid_text;
  Index piece = 0;
  while (const auto batch = valid_batch(corpus, 0, piece++, 1, 512))
    valid_text += tokenizer->decode(batch->token);
  const auto valid = whole_lines(valid_text);
  std::set<std::string> train;
  for (std::uint64_t cursor = 0; cursor < 4000; ++cursor)
    train.merge(whole_lines(tokenizer->decode(corpus.train(cursor, 1, 512).token)));
  REQUIRE(valid.size() > 500);
  std::set<std::string> both;
  std::set<std::string> every = whole_lines("\n" + numbered("the house number", 9000) + "\n");
  for (const auto& line : valid) {
    if (train.count(line))
      both.insert(line);
  }
  CHECK(both.empty());
  std::size_t missing = 0;
  for (const auto& line : every)
    missing += !train.count(line) && !valid.count(line);
  CHECK(missing <= 4);  // the ends of the streams were cut off by whole_lines
}

TEST_CASE(
    "every token is counted once in a split, and training sees each of its tokens equally often") {
  const Counting tokenizer;
  Spec spec("text");
  StreamDataset data(spec, tokenizer, SpecialText::own);
  data.add({.name = "a",
            .documents = {{std::string(90000, 'x')}, {std::string(700, 'x')}},
            .first_binary = {}},
           tokenizer);
  data.add({.name = "b", .documents = {{std::string(3000, 'x')}}, .first_binary = {}}, tokenizer);
  std::vector<int> seen(std::size_t(tokenizer.last()) + 1, 0);
  std::vector<int> kept(seen);
  for (int d = 0; d < 2; ++d) {
    Index number = 0;
    while (const auto piece = data.valid_piece(d, 77, number++)) {
      for (const int id : ids_of(*piece))
        ++kept[std::size_t(id)];
    }
  }
  Rng rng(1);
  const Index size = data.info().train_tokens[1];
  const int pieces = 4000;
  for (int i = 0; i < pieces; ++i) {
    const Piece piece = data.train_piece(1, 100, rng);
    const TokenIds& token = ids_of(piece);
    const std::vector<int>& target = piece.target;
    for (const int id : token)
      ++seen[std::size_t(id)];
    for (int j = 0; j + 1 < 100; ++j) {
      REQUIRE(
          (target[std::size_t(j)] == token[std::size_t(j) + 1] || target[std::size_t(j)] == -1));
    }
  }
  CHECK(data.info().train_tokens[0] + data.info().valid_tokens[0] > 90700);
  const double expected = pieces * 100.0 / double(size);
  for (int id = 90701; id <= tokenizer.last(); ++id) {
    const auto i = std::size_t(id);
    REQUIRE((kept[i] == 0) == (seen[i] > 0));
    REQUIRE(kept[i] <= 1);
    if (seen[i])
      REQUIRE(seen[i] == Approx(expected).epsilon(0.5));
  }
  CHECK(tokenizer.last() > 0xFFFF);  // ids beyond 16 bits went through
  Index valid = 0;
  Index boundaries = 0;
  for (int id = 1; id <= 90700; ++id)
    valid += kept[std::size_t(id)];
  for (const Stretch& s : split_blocks({{std::string(90000, 'x')}, {std::string(700, 'x')}}))
    boundaries += s.split == Split::valid;
  CHECK(valid + boundaries == data.info().valid_tokens[0]);
}

TEST_CASE("a document begins with a boundary, and what follows a cut is not asked for") {
  const auto tokenizer = make_tokenizer("bytes");
  Spec spec("text");
  StreamDataset data(spec, *tokenizer, SpecialText::own);
  data.add({.name = "a", .documents = {{"ab"}, {"cd", false}, {"ef"}}, .first_binary = {}},
           *tokenizer);
  CHECK(data.info().train_tokens[0] == 9);
  CHECK(data.info().valid_tokens[0] == 0);
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(seed);
    const Piece piece = data.train_piece(0, 8, rng);
    const TokenIds& token = ids_of(piece);
    const std::vector<int>& target = piece.target;
    for (std::size_t i = 0; i < 8; ++i) {
      if (token[i] == 'd')
        CHECK(target[i] == -1);
      if (token[i] == 'b' || token[i] == 'f')
        CHECK(target[i] == 256);
      if (token[i] == 'e')
        CHECK(target[i] == 'f');
    }
  }
  Rng rng(0);
  CHECK(refusal([&] { data.train_piece(0, 9, rng); }) ==
        "3: domain 'a' has 9 training tokens, too few for a piece of 9");
  CHECK_FALSE(data.valid_piece(0, 8, 0));
}

TEST_CASE("files and sub-folders of a folder are the domains") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  const auto domains = [&](const std::string& spec) {
    return Corpus({spec}, *tokenizer, 0).info().domains;
  };
  using Names = std::vector<std::string>;
  CHECK(domains("text:path=corpus") == Names{"chinese", "code", "english"});
  CHECK(domains("text:path=corpus/") == Names{"chinese", "code", "english"});
  CHECK(domains("text:path=corpus,glob=*.txt") == Names{"chinese", "english"});
  CHECK(domains("text:path=corpus,glob={*.h,e*}") == Names{"code", "english"});
  CHECK(domains("text:path=corpus,glob=deep/*") == Names{"code"});
  CHECK(domains("text:path=corpus/english.txt") == Names{"english"});
  CHECK(domains("text:path=corpus,domain=all") == Names{"all"});
  CHECK(domains("text:path=corpus/english.txt,domain=drama") == Names{"drama"});
  const auto whole = Corpus({"text:path=corpus,domain=all"}, *tokenizer, 0).info();
  const auto parts = Corpus({"text:path=corpus"}, *tokenizer, 0).info();
  const auto tokens = [](const DatasetInfo& i) {
    Index sum = 0;
    for (std::size_t d = 0; d < i.domains.size(); ++d)
      sum += i.train_tokens[d] + i.valid_tokens[d];
    return sum;
  };
  // but for boundaries
  CHECK(double(tokens(whole)) == Approx(double(tokens(parts))).epsilon(1e-3));
  write("corpus/english.md", numbered("another", 100));
  CHECK(domains("text:path=corpus") == Names{"chinese", "code", "english.md", "english.txt"});
  const auto info = Corpus({"text:path=corpus/code"}, *tokenizer, 0).info();
  CHECK(info.domains == Names{"a", "deep"});
}

TEST_CASE("empty files, copies and files that are not text are left out of a folder and told") {
  Folder folder;
  write("corpus/code/copy.h", numbered("int f(); //", 3000));
  write("corpus/code/none.h", "");
  write("corpus/logo.png", std::string("\x89PNG\r\n\x1a\n\0\0\0", 11));
  fs::create_symlink("a.h", "corpus/code/link.h");
  fs::create_symlink("nowhere", "corpus/code/dangling.h");
  const auto tokenizer = make_tokenizer("bytes");
  const auto info = Corpus({"text:path=corpus,limit=90000"}, *tokenizer, 0).info();
  CHECK(info.domains == std::vector<std::string>{"chinese", "code", "english"});
  CHECK(info.notes ==
        std::vector<std::string>{
            "cut at limit: chinese, english", "left out, the same as another file: code (2 files)",
            "left out, empty: code (1 file)",
            "left out, not text: logo (1 file), as 'corpus/logo.png' has a NUL byte at offset 8"});
  CHECK(Corpus({"text:path=corpus,binary=1"}, *tokenizer, 0).info().domains.size() == 4);
}

TEST_CASE("input that cannot be used is refused in one sentence") {
  Folder folder;
  CHECK(refusal_of("text") == "2: the dataset text was given no path");
  CHECK(refusal_of("text:path=nowhere") == "3: 'nowhere' does not exist");
  CHECK(refusal_of("text:path=/dev/null") == "3: '/dev/null' is neither a file nor a folder");
  CHECK(refusal_of("text:path=corpus,glob=*.rs") == "3: no file of 'corpus' matches glob=*.rs");
  CHECK(refusal_of("text:path=corpus/english.txt,glob=*.rs") ==
        "3: no file of 'corpus/english.txt' matches glob=*.rs");
  CHECK(refusal_of("text:path=corpus,domain=all,glob=*.rs") ==
        "3: no file of 'corpus' matches glob=*.rs");
  CHECK(refusal_of("text:path=corpus,limit=lots") == "2: limit 'lots' is not a size");
  CHECK(refusal_of("text:path=corpus,limit=0") == "2: limit=0 leaves no text");
  CHECK(refusal_of("text:path=corpus/chinese.txt,limit=2") ==
        "2: limit=2 leaves no whole character of 'corpus/chinese.txt'");
  CHECK(refusal_of("text:path=corpus,binary=maybe") ==
        "2: text: binary=maybe must be 0 or 1 [no hint]");
  fs::create_directory("bare");
  CHECK(refusal_of("text:path=bare") == "3: folder 'bare' holds no file");
  write("bare/a", "");
  write("bare/b", "");
  CHECK(refusal_of("text:path=bare") == "3: 'bare' holds no text: its 2 files are empty");
  CHECK(refusal_of("text:path=bare/a") == "3: 'bare/a' holds no text: its file is empty");
  write("program", std::string("text, then\0", 11));
  CHECK(refusal_of("text:path=program") == "3: 'program' has a NUL byte at offset 10");
  CHECK(refusal_of("text:path=program,binary=1") == "");
  write("latin", std::string(30, '\xE9') + std::string(70, 'a'));
  CHECK(refusal_of("text:path=latin") ==
        "3: 'latin' is not UTF-8 text: 30 % of its 100 bytes are no part of a printable character");
  write("short", "too short to be split");
  CHECK(refusal_of("text:path=short") == "");
  CHECK(refusal_of("text:path=short,split=valid").substr(0, 21) == "3: split=valid of tex");
  CHECK(refusal_of("system:root=bare") ==
        "3: no text was found below 'bare/' where a Debian machine has it "
        "(/usr/share/common-licenses, /usr/include, ...)");
  CHECK(refusal_of("system:limit=1k") ==
        "2: limit=1k is less than the 16384 bytes that a domain of system needs");
}

TEST_CASE("a file that may not be read is an error of input and output") {
  Folder folder;
  fs::permissions("corpus/english.txt", fs::perms::none);
  if (std::ifstream("corpus/english.txt"))
    return test::skip("this user may read everything");
  CHECK(refusal_of("text:path=corpus") ==
        "4: 'corpus/english.txt' cannot be read: Permission denied");
}

TEST_CASE("system takes what a machine has, each kind of text a domain, in an order of its own") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  for (int i = 0; i < 40; ++i) {
    write(concat("root/usr/include/lib", i, ".h"), numbered(concat("int f", i, "();"), 400));
    write(concat("root/usr/include/c++/12/vector", i), numbered(concat("class v", i, ";"), 100));
  }
  for (int i = 1; i <= 6; ++i)
    write(concat("root/usr/share/common-licenses/GPL-", i), numbered(concat("freedom ", i), 2000));
  fs::create_symlink("GPL-3", "root/usr/share/common-licenses/GPL");
  write("root/usr/lib/python3.11/os.py", "pass\n");  // too little
  const Corpus corpus({"system:root=root,limit=64k"}, *tokenizer, 0);
  CHECK(corpus.info().domains == std::vector<std::string>{"licences", "c", "cpp"});
  const Index c = corpus.info().train_tokens[1] + corpus.info().valid_tokens[1];
  CHECK((c > 64000 && c < 64200));
  std::set<std::string> libraries;
  for (std::uint64_t cursor = 0; cursor < 3000; ++cursor) {
    const Batch batch = corpus.train(cursor, 1, 64);
    if (batch.domain[0] != 1)
      continue;
    for (const std::string& line : whole_lines(tokenizer->decode(batch.token))) {
      REQUIRE(line.find("class") == line.npos);  // C++ is another domain
      if (line.starts_with("int f"))
        libraries.insert(line.substr(0, line.find('(')));
    }
  }
  CHECK(libraries.size() >= 16);  // no file gives more than a sixteenth
}

TEST_CASE("the shared texts give their domains and about a tenth to valid") {
  const fs::path data = test::shared("data");
  if (!fs::exists(data))
    return test::skip("no " + data.string());
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"text:path={" + data.string() + "},glob=*.txt"}, *tokenizer, 0);
  CHECK(corpus.info().domains ==
        std::vector<std::string>{"chinese-tang", "english-shakespeare", "math-gsm8k"});
  for (std::size_t d = 0; d < 3; ++d) {
    const double all = double(corpus.info().train_tokens[d] + corpus.info().valid_tokens[d]);
    CHECK(all > 1.1e6);
    CHECK(double(corpus.info().valid_tokens[d]) / all == Approx(0.1).margin(0.02));
  }
}
