// Ids whose tokenizer is named, and what the texts of special tokens become in text data.
#include <catch2/catch.hpp>

#include "datasets/text_domains.h"
#include "lib/tokenizer/open.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/trainer.h"
#include "tests/datasets/fixture.h"

using namespace moe;

namespace {

// A byte-level tokenizer of at most 300 ids, <|endoftext|> the first of them, in a folder of its
// own.
void make_tokenizer_file(const std::string& folder, const std::string& text) {
  BpeTraining training{.vocabulary = 300, .frequency = 1};
  training.pattern = known_pattern("gpt2");
  BpeTrainer trainer(training);
  trainer.add(text);
  write(folder + "/tokenizer.json", trainer.train([](int) {}));
  write(folder + "/tokenizer_config.json", "{\"eos_token\": \"<|endoftext|>\"}");
}

// How often the first id stands in a text of one domain, its boundaries not counted.
Index special_ids_of(const std::string& spec, const Tokenizer& tokenizer,
                     std::vector<std::string>* notes = nullptr) {
  const Corpus corpus({spec}, tokenizer, 0);
  if (notes)
    *notes = corpus.info().notes;
  Index count = 0;
  for (Index piece = 0;; ++piece) {
    const Batch batch = corpus.valid({{0, piece}}, 64);
    if (batch.sequences() == 0)
      break;
    count += std::ranges::count(batch.token, 0);
  }
  return count;
}

}  // namespace

TEST_CASE("ids of a named tokenizer have its pieces, and one that it does not have is refused") {
  Folder folder;
  make_tokenizer_file("theirs", "the house the mouse");
  make_tokenizer_file("others", "床前明月光");
  const auto bytes = make_tokenizer("bytes");
  write("few.txt", "1 2 3 260 0 5\n");
  const Corpus corpus({"tokens:path=few.txt,pieces=theirs"}, *bytes, 0);
  REQUIRE(corpus.info().pieces);
  CHECK(corpus.info().bare_ids);
  CHECK(corpus.boundary() == 0);
  CHECK(corpus.specs()[0].find("pieces=theirs") != std::string::npos);
  const auto theirs = open_tokenizer("theirs");
  CHECK(corpus.info().pieces->id() == theirs->id());
  CHECK(Corpus({"tokens:path=few.txt"}, *bytes, 0).info().pieces == nullptr);

  write("many.txt", "1 300\n");
  CHECK(refusal_of("tokens:path=many.txt,pieces=theirs") ==
        concat("3: 'many.txt' has the id 300, and the ids of 'theirs' end at ",
               theirs->vocabulary() - 1));
  CHECK_THAT(refusal_of("tokens:path=few.txt,pieces=nowhere"), Catch::StartsWith("3: "));
  const auto mixed = [&](const std::vector<std::string>& specs, const Tokenizer& t) {
    return refusal([&] { Corpus(specs, t, 0); });
  };
  const std::string named = "tokens:path=few.txt,pieces=theirs";
  CHECK_THAT(mixed({named, "tokens:path=few.txt,pieces=others"}, *bytes),
             Catch::StartsWith("2: the data are ids of two tokenizers"));
  CHECK_THAT(mixed({named, "text:path=corpus"}, *bytes), Catch::StartsWith("2: "));
  CHECK(mixed({named, "text:path=corpus"}, *theirs).empty());
  // of some of the ids nobody knows what they stand for
  CHECK(Corpus({named, "tokens:path=few.txt"}, *bytes, 0).info().pieces == nullptr);
}

TEST_CASE("the texts of special tokens become ids or stay text, as was asked for") {
  Folder folder;
  make_tokenizer_file("theirs", "the house the mouse");
  const auto tokenizer = open_tokenizer("theirs");
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += "the house<|endoftext|>the mouse ";
  write("story.txt", text);
  const std::string spec = "text:path=story.txt";
  const Index boundaries = special_ids_of(spec + ",special=text", *tokenizer);
  std::vector<std::string> notes;
  const Index ids = special_ids_of(spec, *tokenizer, &notes);
  CHECK(boundaries > 0);
  CHECK(ids > boundaries + 20);
  CHECK(special_ids_of(spec + ",special=ids", *tokenizer) == ids);
  CHECK(special_ids_of(spec + ",special=own", *tokenizer) == ids);
  REQUIRE(notes.size() == 1);  // a block may end within a token of the text
  CHECK_THAT(notes[0], Catch::StartsWith("the texts of special tokens became their ids") &&
                           Catch::Contains("story (39"));
  special_ids_of(spec + ",special=text", *tokenizer, &notes);
  CHECK(notes.empty());
  CHECK_THAT(refusal_of(spec + ",special=maybe"), Catch::Contains("special=maybe is not known"));
}

TEST_CASE("a choice for all text data leaves ids and what was said otherwise alone") {
  const std::vector<std::string> specs = {"text:path=a", "text:path=b,special=ids", "system",
                                          "tokens:path=c", "clusters"};
  CHECK(with_special(specs, "text") ==
        std::vector<std::string>{"text:path=a,special=text", "text:path=b,special=ids",
                                 "system:special=text", "tokens:path=c", "clusters"});
}
