// Rows that another program made: what of a file comes into batches, and what is refused.
#include <catch2/catch.hpp>

#include "lib/trace/given_rows.h"
#include "tests/datasets/fixture.h"

using namespace moe;

namespace {

// The file of the fixture with one dataset changed or left out.
std::string refused_with(const NamedArray& other, const std::string& without = "") {
  const GoldenFile file("rows.h5");
  std::vector<NamedArray> all;
  for (const std::string& name : file.datasets()) {
    if (name == without || name == other.name)
      continue;
    const auto a = file.reals(name);
    all.push_back({name, {a.dims.begin(), a.dims.end()}, a.values, {}});
  }
  if (!other.name.empty())
    all.push_back(other);
  write_arrays("other.h5", all, {});
  return refusal_of("rows:path=other.h5");
}

}  // namespace

TEST_CASE("given rows come into batches with their places and what is added to them") {
  const Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"rows:path=rows.h5,split=valid"}, *tokenizer, 0);
  CHECK(corpus.info().domains == std::vector<std::string>{"rows"});
  CHECK(corpus.info().modalities);
  CHECK(corpus.split() == Split::valid);
  CHECK(corpus.info().vocabulary == 7 + 71 + 1);
  const Batch all = corpus.valid({{0, 0}, {0, 1}}, 8);
  CHECK(all.start == std::vector<Index>{0, 6, 12});
  CHECK(all.token == std::vector<int>{-1, -1, -1, -1, 7, 8, -1, -1, -1, -1, 13, 14});
  CHECK(all.target[5] == 12);
  CHECK(all.target[0] == -1);
  CHECK(all.modality_of(3) == modality::image);
  CHECK(all.modality_of(4) == modality::text);
  CHECK(all.given.row.size() == 12);
  CHECK(all.given.value.rows() == 12);
  CHECK(all.given.value(6, 1) == float(0.25 * ((24 + 5) % 13) - 1));
  REQUIRE(all.added.size() == 1);
  CHECK(all.added[0].row == std::vector<Index>{0, 1, 2, 3, 6, 7, 8, 9});
  CHECK(all.added[0].value(4, 2) == 0.125f * float(18 % 7));
  CHECK(all.position(1, 3) == 1);
  CHECK(all.position(2, 7) == 1);
  CHECK(all.position(0, 11) == 3);
  const Batch second = corpus.valid({{0, 1}}, 8);
  CHECK(second.given.row == std::vector<Index>{0, 1, 2, 3, 4, 5});
  CHECK(second.added[0].row == std::vector<Index>{0, 1, 2, 3});
  CHECK(second.given.value(0, 1) == all.given.value(6, 1));
  CHECK(refusal([&] {
          corpus.valid({{0, 0}}, 5);
        }) == "3: a sequence of given rows has 6 of them, and a piece 5");
  const Corpus both({"rows:path=rows.h5,train=9"}, *tokenizer, 0);
  CHECK(both.split() == Split::train);
  CHECK(both.info().valid_pieces == std::vector<Index>{3});
  CHECK(both.valid({{0, 0}}, 6).token[4] == 3 + 9 * 6 + 4);
  CHECK(both.train(0, 2, 6).given.value.rows() == 12);
}

TEST_CASE("rows that only stand for pictures leave text to the model") {
  const Folder folder;
  NamedArray features{"image_features", {12, 4, 4}, std::vector<double>(192, 0.5), {}};
  CHECK(refused_with(features, "inputs_embeds").empty());
  const Batch b = read_given_rows(GoldenFile("other.h5"));
  CHECK(b.given.row.size() == 48);
  CHECK(b.given.row[4] == 6);
}

TEST_CASE("files of rows that do not fit together are refused") {
  const Folder folder;
  const auto has = [](const std::string& said, const std::string& words) {
    INFO(said);
    CHECK(said.find(words) != said.npos);
  };
  has(refusal_of("rows"), "the dataset rows was given no path");
  has(refusal_of("rows:path=none.h5"), "none.h5");
  has(refusal_of("rows:path=rows.h5,vocabulary=9"), "has the id");
  has(refusal_of("rows:path=rows.h5,train=12"), "leaves none of 12 sequences");
  has(refused_with({}, "input_ids"), "input_ids");
  has(refused_with({"input_ids", {72}, std::vector<double>(72, 1), {}}),
      "input_ids is 72 and must be sequences x rows");
  has(refused_with({"input_ids", {12, 6}, std::vector<double>(72, 1.5), {}}),
      "input_ids holds 1.5, which is no whole number");
  has(refused_with({"modality", {12, 5}, std::vector<double>(60, 1), {}}),
      "modality is 12 x 5 and must be 12 x 6, as input_ids");
  has(refused_with({"modality", {12, 6}, std::vector<double>(72, 7), {}}),
      "a row has the modality 7");
  has(refused_with({"position_ids", {2, 12, 6}, std::vector<double>(144, 0), {}}),
      "position_ids is 2 x 12 x 6");
  has(refused_with({"position_ids", {1, 6}, std::vector<double>(6, -1), {}}),
      "which is no position");
  has(refused_with({"inputs_embeds", {12, 5}, std::vector<double>(60, 0), {}}), "72 rows of");
  has(refused_with({"deepstack_0", {5, 4}, std::vector<double>(20, 0), {}}),
      "deepstack_0 is 5 x 4 and must be 48 rows of the model's width");
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"rows:path=rows.h5"}, *tokenizer, 0);
  CHECK(refusal([&] { corpus.train(0, 1, 8); }) ==
        "3: none of the given rows are to be trained on");
}
