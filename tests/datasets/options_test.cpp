// Every option of every dataset changes what it gives: batches, validation pieces, names of
// domains, the vocabulary, or a refusal. The options are those of docs/datasets.md, which another
// test holds to the program.
#include <catch2/catch.hpp>
#include <map>

#include "tests/datasets/fixture.h"
#include "tests/page.h"

using namespace moe;
using namespace moe::test;

namespace {

std::string text_of(const Matrix<float>& m) {
  return {reinterpret_cast<const char*>(m.data()), std::size_t(m.size()) * sizeof(float)};
}

// All that a reader of the dataset sees, as text.
std::string seen(const std::string& spec) {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({spec}, *tokenizer, 3);
  std::string out = concat("vocabulary ", corpus.info().vocabulary, "\n");
  for (const std::string& domain : corpus.info().domains)
    out += concat("domain ", domain, "\n");
  const auto add = [&](const Batch& batch) {
    for (const int id : batch.token)
      out += concat(id, ' ');
    for (const Signal& s : batch.signal)
      out += concat(" signal ", s.value.cols(), " ", std::hash<std::string>{}(text_of(s.value)));
    out += '\n';
  };
  for (const std::uint64_t n : {0, 1, 2})
    add(corpus.train(n, 4, 64));
  for (int domain = 0; domain < int(corpus.info().domains.size()); ++domain) {
    for (Index piece = 0; const auto batch = valid_batch(corpus, domain, piece, 1, 64); ++piece)
      add(*batch);
  }
  return out;
}

// An option that is tried with other values than a generated dataset's numbers: the spec without
// it, and values of it that all differ from each other and from leaving it out.
struct Tried {
  std::string base;
  std::vector<std::string> values;
};

void write_files() {
  write("corpus/odd.bin", std::string("\0\1\2 binary", 10) + numbered("odd", 400));
  write("plain/a.txt", numbered("plain", 3000));
  write("more.tsv", "one\teins\ntwo\tzwei\nthree\tdrei\nfour\tvier\n");
}

const std::map<std::string, Tried> of_files = {
    {"text path", {"text", {"corpus", "plain"}}},
    {"text glob", {"text:path=corpus", {"*.txt", "*.h"}}},
    {"text domain", {"text:path=corpus", {"all"}}},
    {"text limit", {"text:path=corpus", {"4k", "8k"}}},
    {"text binary", {"text:path=corpus", {"1"}}},
    {"system limit", {"system:limit=64k", {"128k"}}},
    {"system root", {"system:limit=64k", {"/usr/share"}}},
    {"tokens path", {"tokens", {"ids.txt", "ids.jsonl"}}},
    {"tokens format", {"tokens:path=ids.jsonl", {"text", "npy"}}},
    {"tokens domain", {"tokens:path=ids.txt", {"prose"}}},
    {"tokens vocabulary", {"tokens:path=ids.txt", {"600", "700"}}},
    {"tokens whole", {"tokens:path=ids.jsonl", {"1"}}},
    {"glyphs font", {"glyphs", {"fonts", "fonts/a.hex"}}},
    {"glyphs names", {"glyphs:font=fonts", {"fonts/names.txt"}}},
    {"glyphs codes", {"glyphs:font=fonts", {"41-5a", "61"}}},
    {"glyphs size", {"glyphs:font=fonts", {"24"}}},
    {"glyphs patch", {"glyphs:font=fonts", {"8"}}},
    {"glyphs valid", {"glyphs:font=fonts", {"3"}}},
    {"images path", {"images", {"pictures", "pictures/cats"}}},
    {"images caption", {"images:path=pictures,size=8,patch=4", {"name", "folder"}}},
    {"images apart", {"images:path=pictures,size=8,patch=4", {"folder"}}},
    {"images question", {"images:path=pictures,size=8,patch=4", {"and"}}},
    {"images limit", {"images:path=pictures,size=8,patch=4", {"12"}}},
    {"images size", {"images:path=pictures,patch=4", {"8", "12"}}},
    {"images patch", {"images:path=pictures,size=8", {"4", "2"}}},
    {"sounds path", {"sounds", {"beeps", "beeps/cats"}}},
    {"sounds caption", {"sounds:path=beeps", {"folder"}}},
    {"sounds apart", {"sounds:path=beeps", {"folder"}}},
    {"sounds question", {"sounds:path=beeps", {"and"}}},
    {"sounds limit", {"sounds:path=beeps", {"12"}}},
    {"sounds seconds", {"sounds:path=beeps,join=4", {"0.05"}}},
    {"sounds bands", {"sounds:path=beeps", {"20"}}},
    {"sounds join", {"sounds:path=beeps", {"4"}}},
    {"rows path", {"rows:train=9", {"rows.h5", "rows2.h5"}}},
    {"rows domain", {"rows:path=rows.h5,train=9", {"pictures"}}},
    {"rows vocabulary", {"rows:path=rows.h5,train=9", {"600", "700"}}},
    {"rows train", {"rows:path=rows.h5", {"9", "3"}}},
    {"pairs path", {"pairs", {"pairs.tsv", "more.tsv"}}},
    {"pairs reverse", {"pairs:path=pairs.tsv", {"1"}}},
};

const std::map<std::string, Tried> of_generated = {
    {"clusters clusters", {"clusters", {"4"}}},
    {"clusters vocabulary", {"clusters", {"64"}}},
    {"clusters stay", {"clusters", {"0.5"}}},
    {"clusters seed", {"clusters", {"7"}}},
    {"clusters valid", {"clusters", {"4096"}}},
    {"arithmetic digits", {"arithmetic", {"1"}}},
    {"arithmetic operations", {"arithmetic", {"-", "+-*"}}},
    {"arithmetic seed", {"arithmetic", {"7"}}},
    {"arithmetic valid", {"arithmetic", {"4096"}}},
    {"shapes size", {"shapes", {"24"}}},
    {"shapes patch", {"shapes", {"8"}}},
    {"shapes objects", {"shapes", {"3", "1"}}},
    {"shapes colours", {"shapes", {"5"}}},
    {"shapes forms", {"shapes", {"5"}}},
    {"shapes hold", {"shapes", {"0", "8"}}},
    {"shapes seed", {"shapes", {"7"}}},
    {"shapes valid", {"shapes", {"64"}}},
    {"tones beeps", {"tones:valid=64", {"3", "5"}}},
    {"tones bands", {"tones:valid=64", {"20"}}},
    {"tones join", {"tones:valid=64", {"8"}}},
    {"tones noise", {"tones:valid=64", {"0.1"}}},
    {"tones hold", {"tones:valid=64", {"0", "3"}}},
    {"tones seed", {"tones:valid=64", {"7"}}},
    {"tones valid", {"tones", {"64", "65"}}},
    {"zipf vocabulary", {"zipf", {"300"}}},
    {"zipf alpha", {"zipf", {"0.9"}}},
    {"zipf seed", {"zipf", {"7"}}},
    {"zipf valid", {"zipf", {"4096"}}},
};

const Tried* tried(const std::string& option) {
  for (const auto* options : {&of_files, &of_generated}) {
    if (const auto at = options->find(option); at != options->end())
      return &at->second;
  }
  return nullptr;
}

std::string outcome(const std::string& spec) {
  try {
    return seen(spec);
  } catch (const Error& e) {
    return concat("refused: ", e.what());
  }
}

}  // namespace

TEST_CASE("every option of every dataset changes what it gives") {
  Folder folder;
  write_files();
  for (const Cells& row : table_of("datasets.md", {"dataset", "domains", "options (defaults)"})) {
    const std::string name = code_spans(row.at(0)).at(0);
    for (const std::string& option : code_spans(row.at(2))) {
      if (option.find('=') == option.npos)
        continue;
      const std::string key = key_of(option);
      INFO(name << ' ' << key);
      const Tried* option_tried = tried(concat(name, " ", key));
      REQUIRE(option_tried);
      const std::string& base = option_tried->base;
      const char separator = base.find(':') == base.npos ? ':' : ',';
      std::vector<std::string> found = {outcome(base)};
      for (const std::string& value : option_tried->values) {
        found.push_back(outcome(concat(base, separator, key, "={", value, "}")));
        for (std::size_t i = 0; i + 1 < found.size(); ++i)
          CHECK(found[i] != found.back());
      }
    }
  }
}
