// The shares and sizes that docs/datasets.md states, measured.
#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <sstream>

#include "datasets/stream.h"
#include "tests/datasets/fixture.h"

using namespace moe;

namespace {

// Every id of a corpus's valid split, its domains one behind the other.
std::vector<int> valid_ids(const std::string& spec) {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({spec}, *tokenizer, 0);
  std::vector<int> ids;
  for (int d = 0; d < int(corpus.info().domains.size()); ++d) {
    Index piece = 0;
    while (const auto batch = valid_batch(corpus, d, piece, 8, 1024)) {
      ids.insert(ids.end(), batch->token.begin(), batch->token.end());
      piece += batch->sequences();
    }
  }
  return ids;
}

}  // namespace

TEST_CASE(
    "blocks are an eighth of what lies before, from 128 bytes to 8 KiB, and a tenth is valid") {
  const std::string text(4 << 20, 'x');  // no line ends: blocks end where they are due
  const std::vector<Stretch> stretches = split_blocks(std::vector<Document>{{.text = text}});
  Index valid = 0;
  int seen = 0;
  for (const Stretch& s : stretches) {
    if (s.split != Split::valid)
      continue;
    ++seen;
    valid += s.last - s.first;
    const Index block = std::clamp<Index>(s.first / 8, 128, 8192);
    INFO("from byte " << s.first);
    // two groups may have their valid blocks side by side
    CHECK((s.last - s.first == block || s.last - s.first >= 2 * block || s.last == 4 << 20));
  }
  CHECK(seen > 45);
  CHECK(double(valid) / double(text.size()) == Approx(0.1).epsilon(0.03));
}

TEST_CASE("a file with up to a tenth of odd bytes is text") {
  Folder folder;
  const auto odd = [](int share) {  // in percent
    std::string text;
    for (int i = 0; i < 4000; ++i)
      text += i % 100 < share ? '\xff' : i % 50 == 49 ? '\n' : 'a';
    return text;
  };
  write("mixed/a.txt", odd(9));
  CHECK(refusal_of("text:path=mixed/a.txt").empty());
  write("mixed/b.txt", odd(12));
  CHECK(refusal_of("text:path=mixed/b.txt").find("is not UTF-8 text: 12 %") != std::string::npos);
}

TEST_CASE("a tenth of all problems of arithmetic is kept for validation") {
  const auto tokenizer = make_tokenizer("bytes");
  std::istringstream in(tokenizer->decode(valid_ids("arithmetic:valid=262144")));
  std::set<std::string> problems;
  for (std::string line; std::getline(in, line);) {
    if (line.find('=') != line.npos && line.find('+') < line.find('='))
      problems.insert(line.substr(0, line.find('=')));
  }
  CHECK(problems.size() == Approx(1000).epsilon(0.07));  // of 100 x 100 sums
}

TEST_CASE("four steps in five inside a cluster go to one of three favourites") {
  const std::vector<int> ids = valid_ids("clusters:stay=1,valid=262144");
  std::map<int, std::map<int, int>> next;
  for (std::size_t i = 0; i + 1 < ids.size(); ++i)
    ++next[ids[i]][ids[i + 1]];
  double favoured = 0;
  double all = 0;
  for (const auto& [id, counts] : next) {
    std::vector<int> falling;
    for (const auto& [successor, count] : counts) {
      falling.push_back(count);
      all += count;
    }
    std::ranges::sort(falling, std::greater<>());
    for (std::size_t i = 0; i < std::min<std::size_t>(3, falling.size()); ++i)
      favoured += falling[i];
  }
  // and 3 of the 32 tokens of the cluster in the fifth that goes anywhere
  CHECK(favoured / all == Approx(0.8 + 0.2 * 3 / 32).margin(0.015));
}
