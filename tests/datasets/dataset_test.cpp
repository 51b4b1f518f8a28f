// What every dataset owes, for each example spec of datasets.def, and what a corpus of several
// owes.
#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "tests/datasets/fixture.h"

using namespace moe;

namespace {

std::vector<std::string> examples() {
  std::vector<std::string> out;
  for (const auto& entry : datasets().entries()) {
    for (const std::string& spec : split(entry.examples, ' '))
      out.push_back(spec);
  }
  return out;
}

bool same(const Batch& a, const Batch& b) {
  const auto same_signals = [](const Signal& s, const Signal& t) {
    return s.modality == t.modality && s.row == t.row && s.value == t.value;
  };
  return a.token == b.token && a.target == b.target && a.start == b.start && a.domain == b.domain &&
         a.modality == b.modality && a.question == b.question &&
         std::ranges::equal(a.signal, b.signal, same_signals);
}

std::vector<int> all_valid(const Corpus& corpus, int domain, int sequences, int length) {
  std::vector<int> ids;
  Index piece = 0;
  while (const auto batch = valid_batch(corpus, domain, piece, sequences, length)) {
    ids.insert(ids.end(), batch->token.begin(), batch->token.end());
    piece += batch->sequences();
  }
  return ids;
}

}  // namespace

TEST_CASE("every dataset gives the same tokens again from its spec, the seed and the cursor") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  REQUIRE(examples().size() >= datasets().entries().size());
  for (const std::string& spec : examples()) {
    CAPTURE(spec);
    const Corpus one({spec}, *tokenizer, 5);
    const Corpus other({spec}, *tokenizer, 6);
    const Corpus again(one.specs(), *tokenizer, 5);  // from what a checkpoint keeps
    CHECK(again.specs() == one.specs());
    CHECK(again.info().notes == one.info().notes);
    for (const std::uint64_t cursor : {7, 0, 3})
      CHECK(same(one.train(cursor, 5, 64), again.train(cursor, 5, 64)));
    CHECK_FALSE(same(one.train(0, 5, 64), one.train(1, 5, 64)));
    CHECK_FALSE(same(one.train(0, 5, 64), other.train(0, 5, 64)));
    for (int d = 0; d < int(one.info().domains.size()); ++d)
    // the split is not the seed's affair
    {
      CHECK(all_valid(one, d, 3, 64) == all_valid(other, d, 3, 64));
    }
  }
}

TEST_CASE(
    "every batch has the shape that was asked for, ids below the vocabulary, and targets that "
    "follow") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  for (const std::string& spec : examples()) {
    CAPTURE(spec);
    const Corpus corpus({spec}, *tokenizer, 1);
    if (!corpus.info().valid_pieces.empty())
      continue;  // each pair, each sample has its own length: sources_test.cpp, samples_test.cpp
    const Batch batch = corpus.train(2, 6, 33);
    REQUIRE(batch.tokens() == 6 * 33);
    REQUIRE(batch.target.size() == batch.token.size());
    REQUIRE(batch.domain.size() == 6);
    for (Index t = 0; t < batch.tokens(); ++t) {
      const auto i = std::size_t(t);
      REQUIRE((batch.token[i] >= 0 && batch.token[i] < corpus.info().vocabulary));
      REQUIRE((batch.target[i] >= -1 && batch.target[i] < corpus.info().vocabulary));
      if ((t + 1) % 33 != 0 && batch.target[i] != -1)
        REQUIRE(batch.target[i] == batch.token[i + 1]);
    }
  }
}

TEST_CASE("validation pieces cover the valid split once, in order, whatever their shape") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  for (const std::string& spec : examples()) {
    CAPTURE(spec);
    const Corpus corpus({spec}, *tokenizer, 1);
    std::size_t all = 0;
    for (int d = 0; d < int(corpus.info().domains.size()); ++d) {
      const auto ids = all_valid(corpus, d, 4, 128);
      CHECK(Index(ids.size()) == corpus.info().valid_tokens[std::size_t(d)]);
      all += ids.size();
      CHECK(ids == all_valid(corpus, d, 1, 101));
      if (!corpus.info().valid_pieces.empty())
        continue;
      const Index pieces = (Index(ids.size()) + 127) / 128;
      CHECK_FALSE(valid_batch(corpus, d, pieces, 4, 128));
      const auto last = valid_batch(corpus, d, pieces - 1, 4, 128);
      REQUIRE(last);
      CHECK(last->target.back() == -1);
    }
    CHECK(all > 0);
  }
}

TEST_CASE("a short last piece keeps its length and the pieces before it") {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"zipf:valid=250"}, *tokenizer, 1);
  const auto batch = valid_batch(corpus, 0, 0, 8, 100);
  REQUIRE(batch);
  CHECK(batch->start == std::vector<Index>{0, 100, 200, 250});
  CHECK(batch->target[99] == batch->token[100]);
  CHECK(batch->target[249] == -1);
}

TEST_CASE("domains of several datasets stand side by side and are drawn equally often") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"text:path=corpus", "arithmetic", "clusters", "clusters:seed=1"}, *tokenizer,
                      9);
  CHECK(corpus.info().domains == std::vector<std::string>{"chinese", "code", "english",
                                                          "arithmetic", "clusters", "clusters-2"});
  CHECK(corpus.info().vocabulary == 320);
  std::map<int, int> seen;
  std::set<std::vector<int>> orders;
  for (std::uint64_t cursor = 0; cursor < 60; ++cursor) {
    const Batch batch = corpus.train(cursor, 6, 8);
    for (const int d : batch.domain)
      ++seen[d];
    orders.insert(batch.domain);
  }
  for (int d = 0; d < 6; ++d)
    CHECK(seen[d] == 60);
  CHECK(orders.size() > 30);  // in turn, yet not always in the same turn
  for (int d = 0; d < 3; ++d)
    CHECK(corpus.info().train_tokens[std::size_t(d)] > 0);
  CHECK(corpus.info().train_tokens[3] == kEndless);
  CHECK(corpus.planted_labels(corpus.train(0, 6, 8)).empty());  // not every dataset has one
}

TEST_CASE("split= is read by the corpus") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  CHECK(Corpus({"text:path=corpus"}, *tokenizer, 0).split() == Split::train);
  CHECK(Corpus({"text:path=corpus,split=valid", "zipf:split=valid"}, *tokenizer, 0).split() ==
        Split::valid);
  CHECK(refusal([&] {
          Corpus({"text:path=corpus,split=valid", "zipf"}, *tokenizer, 0);
        }) ==
        "2: 'zipf' asks for another split than "
        "'text:split=valid,path=corpus,glob=*,domain=,limit=none,binary=0'");
  CHECK(refusal_of("zipf:split=test") == "2: zipf: split=test is not known");
  CHECK(refusal([&] { Corpus({}, *tokenizer, 0); }) == "2: no data was named");
  CHECK(refusal_of("txt:path=corpus") == "2: no dataset named 'txt'");
  CHECK(refusal_of("zipf:vocab=3") == "2: zipf has no option 'vocab'");
}
