// Data for encoder-decoders: span corruption and pairs.
#include <catch2/catch.hpp>
#include <set>

#include "datasets/denoise.h"
#include "tests/datasets/fixture.h"

using namespace moe;

namespace {

constexpr int first_sentinel = 320;  // behind the ids of the tokenizer `bytes`
constexpr int boundary = 256;

// Sentinels of the source, each with the span that the target has for it, in place.
std::vector<int> put_back(const std::vector<int>& source, const std::vector<int>& target) {
  std::vector<int> out;
  for (const int id : source) {
    if (id < first_sentinel) {
      out.push_back(id);
      continue;
    }
    auto at = std::ranges::find(target, id);
    REQUIRE(at != target.end());
    for (++at; at != target.end() && *at < first_sentinel && *at != boundary; ++at)
      out.push_back(*at);
  }
  return out;
}

std::vector<int> of(const std::vector<int>& all, const std::vector<Index>& start, Index q) {
  return {all.begin() + start[std::size_t(q)], all.begin() + start[std::size_t(q) + 1]};
}

}  // namespace

TEST_CASE("what denoise takes out of a source is what its decoder writes") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus plain({"text:path=corpus/english.txt"}, *tokenizer, 3);
  const Corpus corpus(with_task({"text:path=corpus/english.txt"}, "denoise:span=4"), *tokenizer, 3);
  REQUIRE(corpus.has_sources());
  CHECK_FALSE(plain.has_sources());
  CHECK(corpus.info().vocabulary == 320 + 32);
  CHECK(corpus.specs()[0].find("task={denoise:density=0.15,span=4,sentinels=32}") !=
        std::string::npos);
  const Batch text = plain.train(1, 5, 200);
  const Batch batch = corpus.train(1, 5, 200);
  REQUIRE(batch.source);
  REQUIRE(batch.source->sequences() == 5);
  double spans = 0;
  for (Index q = 0; q < 5; ++q) {
    const std::vector<int> source = of(batch.source->token, batch.source->start, q);
    const std::vector<int> read = of(batch.token, batch.start, q);
    const std::vector<int> target = of(batch.target, batch.start, q);
    CHECK(put_back(source, target) == of(text.token, text.start, q));
    CHECK(read.front() == boundary);
    CHECK(target.back() == boundary);
    CHECK(std::vector<int>(read.begin() + 1, read.end()) ==
          std::vector<int>(target.begin(), target.end() - 1));
    const auto sentinels =
        std::ranges::count_if(source, [](int id) { return id >= first_sentinel; });
    CHECK(Index(target.size()) == 30 + sentinels + 1);  // 15 % of 200
    spans += double(sentinels);
  }
  CHECK(spans / 5 == Approx(30.0 / 4).margin(0.6));
  // validation pieces lose the same whatever the seed
  const Corpus other(corpus.specs(), *tokenizer, 9);
  CHECK(valid_batch(corpus, 0, 0, 3, 90)->target == valid_batch(other, 0, 0, 3, 90)->target);
  CHECK(valid_batch(corpus, 0, 0, 3, 90)->source->token ==
        valid_batch(other, 0, 0, 3, 90)->source->token);
  CHECK(corpus.train(0, 3, 90).target != other.train(0, 3, 90).target);
  Corpus begun(corpus.specs(), *tokenizer, 3);
  begun.begin_with(7);
  const Batch first = begun.train(1, 5, 200);
  CHECK(first.token[std::size_t(first.start[2])] == 7);
  CHECK(first.target == batch.target);
}

TEST_CASE("spans fall everywhere, and short texts have one") {
  const Denoise task("denoise:density=0.3,span=2,sentinels=5");
  Rng rng(1);
  const TokenIds sentinels{320, 321, 322, 323, 324};
  std::set<std::size_t> first_places;
  for (int n = 0; n < 200; ++n) {
    TokenIds ids;
    for (int t = 0; t < 20; ++t)
      ids.push_back(t);
    const Piece piece = task.apply({.token = ids}, sentinels, boundary, rng);
    CHECK(put_back(piece.source, piece.target) == ids);
    const auto first = std::ranges::find(piece.source, first_sentinel);
    first_places.insert(std::size_t(first - piece.source.begin()));
  }
  CHECK(first_places.size() > 6);
  const Piece two = task.apply({.token = TokenIds{7, 8}}, sentinels, boundary, rng);
  CHECK(two.source == TokenIds{7, first_sentinel});
  CHECK(two.target == std::vector<int>{first_sentinel, 8, boundary});
  const Piece padded = task.apply({.token = TokenIds{7, 8, 0}, .target = {}, .valid = {1, 1, 0}},
                                  sentinels, boundary, rng);
  CHECK(padded.source == two.source);
}

TEST_CASE("pairs are read line by line, a tenth of them for validation, copies together") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"pairs:path=pairs.tsv"}, *tokenizer, 1);
  REQUIRE(corpus.has_sources());
  CHECK(corpus.info().domains == std::vector<std::string>{"pairs"});
  const Index valid = corpus.info().valid_pieces.at(0);
  CHECK(valid > 20);
  CHECK(valid < 70);
  std::set<std::string> seen;
  for (Index n = 0; n < valid; ++n) {
    const auto batch = valid_batch(corpus, 0, n, 1, 64);
    REQUIRE(batch);
    const std::string source = tokenizer->decode(batch->source->token);
    const std::string target = tokenizer->decode(batch->target);
    CHECK(source.substr(source.rfind(' ')) == target.substr(target.rfind(' ')));
    CHECK(source.starts_with("the house number "));
    CHECK(batch->token.front() == boundary);
    CHECK(batch->target.back() == boundary);
    seen.insert(source);
  }
  CHECK(Index(seen.size()) == valid);
  CHECK_FALSE(valid_batch(corpus, 0, valid, 1, 64));
  for (std::uint64_t n = 0; n < 20; ++n) {
    const Batch batch = corpus.train(n, 8, 64);
    for (Index q = 0; q < 8; ++q)
      CHECK_FALSE(
          seen.contains(tokenizer->decode(of(batch.source->token, batch.source->start, q))));
  }
  const Batch cut = corpus.train(0, 4, 10);
  CHECK(cut.tokens() == 40);
  CHECK(cut.source->tokens() == 40);
  CHECK(cut.target.back() != boundary);
}

TEST_CASE("data that an encoder cannot use are refused") {
  Folder folder;
  write("bad.tsv", "one\ttwo\nno tab here\n");
  write("three.tsv", "a\tb\tc\n");
  write("none.tsv", "\n\n");
  CHECK(refusal_of("pairs:path=bad.tsv") ==
        "3: 'bad.tsv', line 2 is not two texts with a tab between");
  CHECK(refusal_of("pairs:path=three.tsv") ==
        "3: 'three.tsv', line 1 is not two texts with a tab between");
  CHECK(refusal_of("pairs:path=none.tsv") == "3: 'none.tsv' holds no pair");
  CHECK(refusal_of("pairs") == "2: the dataset pairs was given no path");
  CHECK(refusal_of("pairs:path=absent.tsv") == "3: 'absent.tsv' does not exist");
  CHECK(refusal_of("text:path=corpus,task={denoise:density=1}") ==
        "2: denoise: density=1 takes out everything");
  CHECK(refusal_of("text:path=corpus,task=noise") == "2: no task named 'noise'");
  CHECK(refusal_of("pairs:path=pairs.tsv,task=denoise") ==
        "2: 'pairs:path=pairs.tsv,task=denoise' has sources of its own, and its task would make "
        "others");
  const auto tokenizer = make_tokenizer("bytes");
  CHECK(refusal([&] {
          Corpus({"zipf", "pairs:path=pairs.tsv"}, *tokenizer, 0);
        }) == "2: some data have a source for an encoder and others have none");
}
