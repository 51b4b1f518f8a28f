// The datasets that are made up keep what they promise: planted labels, held-out problems,
// frequencies, entropy.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <regex>
#include <set>

#include "tests/datasets/fixture.h"

using namespace moe;

namespace {

std::vector<int> train_ids(const Corpus& corpus, int pieces, int length) {
  std::vector<int> ids;
  for (int cursor = 0; cursor < pieces; ++cursor) {
    const Batch b = corpus.train(std::uint64_t(cursor), 1, length);
    ids.insert(ids.end(), b.token.begin(), b.token.end());
  }
  return ids;
}

std::vector<int> valid_ids(const Corpus& corpus) {
  const auto batch = valid_batch(corpus, 0, 0, 1, int(corpus.info().valid_tokens[0]));
  REQUIRE(batch);
  return batch->token;
}

double noted_entropy(const Corpus& corpus) {
  std::smatch found;
  REQUIRE(
      std::regex_search(corpus.info().notes.at(0), found, std::regex("entropy ([0-9.]+) nats")));
  return std::stod(found[1]);
}

}  // namespace

TEST_CASE(
    "clusters: the labels partition the vocabulary, and sequences stay in a cluster as often as "
    "they should") {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"clusters:clusters=5,vocabulary=52,stay=0.9"}, *tokenizer, 3);
  Batch every;
  for (int id = 0; id < 54; ++id)
    every.token.push_back(id);
  every.start = {0, 54};
  every.domain = {0};
  const auto cluster = corpus.planted_labels(every);
  std::map<int, int> sizes;
  for (int id = 0; id < 52; ++id)
    ++sizes[cluster.at(std::size_t(id))];
  CHECK(sizes == std::map<int, int>{{0, 11}, {1, 11}, {2, 10}, {3, 10}, {4, 10}});
  CHECK(cluster[52] == -1);
  CHECK(cluster[53] == -1);

  const auto ids = valid_ids(corpus);
  std::map<int, int> often;
  int stayed = 0;
  for (std::size_t i = 1; i < ids.size(); ++i) {
    ++often[cluster[std::size_t(ids[i])]];
    stayed += cluster[std::size_t(ids[i])] == cluster[std::size_t(ids[i - 1])];
  }
  const double steps = double(ids.size() - 1);
  CHECK(stayed / steps == Approx(0.9).margin(0.01));
  for (int c = 0; c < 5; ++c)
    CHECK(often[c] / steps == Approx(0.2).margin(0.03));
  const Batch batch = corpus.train(0, 3, 20);
  const auto labels = corpus.planted_labels(batch);
  REQUIRE(labels.size() == 60);
  for (std::size_t i = 0; i < 60; ++i)
    CHECK(labels[i] == cluster[std::size_t(batch.token[i])]);
}

TEST_CASE("clusters: what is planted depends on the spec's seed, not on the run's") {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus a({"clusters"}, *tokenizer, 1);
  const Corpus b({"clusters"}, *tokenizer, 2);
  const Corpus c({"clusters:seed=1"}, *tokenizer, 1);
  const Batch batch = a.train(0, 1, 256);
  CHECK(a.planted_labels(batch) == b.planted_labels(batch));
  CHECK(a.planted_labels(batch) != c.planted_labels(batch));
}

TEST_CASE(
    "clusters: pairs counted in training text predict the validation text at the entropy that is "
    "noted") {
  const auto tokenizer = make_tokenizer("bytes");
  for (const std::string spec : {"clusters:vocabulary=32,clusters=4,stay=0.9",
                                 "clusters:vocabulary=20,clusters=1,stay=0.5"}) {
    const Corpus corpus({spec}, *tokenizer, 1);
    std::vector<std::vector<double>> pairs(32, std::vector<double>(32, 0.05));
    const auto ids = train_ids(corpus, 1, 400000);
    const auto valid = valid_ids(corpus);
    for (std::size_t i = 1; i < ids.size(); ++i)
      pairs[std::size_t(ids[i - 1])][std::size_t(ids[i])] += 1;
    double loss = 0;
    for (std::size_t i = 1; i < valid.size(); ++i) {
      const auto& row = pairs[std::size_t(valid[i - 1])];
      loss -= std::log(row[std::size_t(valid[i])] / std::accumulate(row.begin(), row.end(), 0.0));
    }
    CHECK(loss / double(valid.size() - 1) == Approx(noted_entropy(corpus)).margin(0.03));
  }
}

TEST_CASE("arithmetic: every line is right, and no problem is in both splits") {
  const auto tokenizer = make_tokenizer("bytes");
  const std::regex line_form("(-?\\d+)([+*-])(\\d+)=(-?\\d+)");
  for (const std::string spec : {"arithmetic:digits=1", "arithmetic:digits=2,operations=+-*"}) {
    const Corpus corpus({spec}, *tokenizer, 1);
    const auto problems = [&](const std::vector<int>& ids) {
      std::set<std::string> out;
      auto lines = split(tokenizer->decode(ids), '\n');
      REQUIRE(lines.size() > 100);
      lines.pop_back();
      lines.erase(lines.begin());  // cut ones
      for (const std::string& line : lines) {
        std::smatch m;
        CAPTURE(line);
        REQUIRE(std::regex_match(line, m, line_form));
        const long a = std::stol(m[1]);
        const long b = std::stol(m[3]);
        const long result = std::stol(m[4]);
        REQUIRE(result == (m[2] == "+" ? a + b : m[2] == "-" ? a - b : a * b));
        out.insert(line);
      }
      return out;
    };
    const auto train = problems(train_ids(corpus, 1, 60000));
    const auto valid = problems(valid_ids(corpus));
    CHECK(train.size() > 80);
    CHECK(valid.size() > 5);
    for (const std::string& p : valid)
      CHECK(train.count(p) == 0);
  }
}

TEST_CASE("zipf: frequencies fall as the power law, and the entropy is that of the tokens") {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"zipf:vocabulary=50,alpha=1.2"}, *tokenizer, 1);
  const auto ids = train_ids(corpus, 1, 200000);
  std::vector<double> count(50);
  for (const int id : ids)
    count[std::size_t(id)] += 1;
  CHECK(count[0] / count[1] == Approx(std::pow(2, 1.2)).epsilon(0.05));
  CHECK(count[1] / count[9] == Approx(std::pow(5, 1.2)).epsilon(0.05));
  double entropy = 0;
  for (const double c : count)
    entropy -= c / 200000 * std::log(c / 200000);
  CHECK(entropy == Approx(noted_entropy(corpus)).margin(0.01));
  CHECK(Corpus({"zipf:vocabulary=1000"}, *tokenizer, 1).info().vocabulary == 1000);
}

TEST_CASE("generated data refuses what cannot be") {
  CHECK(refusal_of("clusters:clusters=9,vocabulary=8") ==
        "2: clusters: clusters=9 is more than vocabulary=8");
  CHECK(refusal_of("clusters:stay=1.5") == "2: clusters: stay=1.5 is a probability, at most 1");
  CHECK(refusal_of("arithmetic:operations=/") == "2: arithmetic: operations=/ is not known");
  CHECK(refusal_of("arithmetic:digits=10") == "2: arithmetic: digits=10 must be at most 9");
  CHECK(refusal_of("zipf:alpha=-1") == "2: zipf: alpha=-1 must be at least 0 [no hint]");
  CHECK(refusal_of("zipf:valid=0") == "2: zipf: valid=0 must be at least 1 [no hint]");
}
