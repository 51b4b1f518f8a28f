// Token ids from files: every format gives the same ids, nothing is lost or added, and what is no
// id is refused where it stands.
#include <catch2/catch.hpp>
#include <cstring>

#include "datasets/ids.h"
#include "tests/datasets/fixture.h"

using namespace moe;

namespace {

template <class T>
std::string npy(const std::string& type, const std::string& shape, const std::vector<T>& values,
                const std::string& order = "False") {
  std::string head =
      "{'descr': '" + type + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
  head += std::string((64 - (10 + head.size() + 1) % 64) % 64, ' ') + "\n";
  std::string out = "\x93NUMPY";
  out += char(1);
  out += char(0);
  out += char(head.size() & 255);
  out += char(head.size() >> 8);
  out += head;
  return out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::vector<int> all(const Corpus& corpus, int domain, std::vector<int>* targets = nullptr) {
  std::vector<int> ids;
  Index piece = 0;
  while (const auto batch = valid_batch(corpus, domain, piece, 4, 64)) {
    ids.insert(ids.end(), batch->token.begin(), batch->token.end());
    if (targets)
      targets->insert(targets->end(), batch->target.begin(), batch->target.end());
    piece += batch->sequences();
  }
  return ids;
}
std::vector<int> read(const std::string& spec) {
  const auto tokenizer = make_tokenizer("bytes");
  return all(Corpus({spec + ",whole=1,split=valid"}, *tokenizer, 0), 0);
}

}  // namespace

TEST_CASE("the same ids from every format") {
  const Folder folder;
  std::vector<int> want;
  for (int i = 0; i < 700; ++i)
    want.push_back(i * 91 % 60000);
  const auto as = [&]<class T>(T) {
    return std::vector<T>(want.begin(), want.end());
  };
  write("u2.npy", npy("<u2", "(700,)", as(std::uint16_t())));
  write("u4.npy", npy("<u4", "(700,)", as(std::uint32_t())));
  write("i4.npy", npy("<i4", "(7, 100)", as(std::int32_t())));
  write("i8.npy", npy("<i8", "(700,)", as(std::int64_t())));
  std::string text;
  std::string list = "[";
  for (const int id : want) {
    text += std::to_string(id) + "\n";
    list += std::to_string(id) + ",";
  }
  list.back() = ']';
  write("t.txt", text);
  write("t.jsonl", list + "\n\n");
  write("odd.ids", "{\"input_ids\":" + list + "}");
  for (const char* spec :
       {"tokens:path=u2.npy", "tokens:path=u4.npy", "tokens:path=i4.npy", "tokens:path=i8.npy",
        "tokens:path=t.txt", "tokens:path=t.jsonl", "tokens:path=odd.ids,format=jsonl"}) {
    CAPTURE(spec);
    CHECK(read(spec) == want);
  }
}

TEST_CASE("ids are cut into splits without loss, and nothing follows the end of a sequence") {
  const Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"tokens:path=ids.jsonl"}, *tokenizer, 1);
  CHECK(corpus.info().domains == std::vector<std::string>{"prose", "code"});
  CHECK(corpus.info().vocabulary == 97);
  CHECK(corpus.info().train_tokens[0] + corpus.info().valid_tokens[0] == 200 * 5);
  CHECK(corpus.info().train_tokens[1] + corpus.info().valid_tokens[1] == 400 * 5);
  CHECK(corpus.info().valid_tokens[0] > 0);
  std::vector<int> target;
  const std::vector<int> ids = all(
      Corpus({"tokens:path=ids.jsonl,domain=one,whole=1,split=valid"}, *tokenizer, 1), 0, &target);
  REQUIRE(ids.size() == 600 * 5);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const bool end = i % 5 == 4;  // 8 is the last id of every line
    CHECK((end ? ids[i] == 8 && target[i] == -1
               : (target[i] == -1 && i % 64 == 63) || target[i] == ids[i + 1]));
  }
  CHECK(Corpus({"tokens:path=ids.txt", "zipf"}, *tokenizer, 1).info().vocabulary == 512);
  CHECK(Corpus({"tokens:path=ids.jsonl", "zipf"}, *tokenizer, 1).info().vocabulary == 320);
  CHECK(for_vocabulary({"tokens:path=a", "zipf", "tokens:path=b,vocabulary=7"}, 50) ==
        std::vector<std::string>{"tokens:path=a,vocabulary=50", "zipf",
                                 "tokens:path=b,vocabulary=7"});
}

TEST_CASE("what is no id of the vocabulary is refused where it stands") {
  const Folder folder;
  write("a.txt", "1 2 9 3");
  write("b.txt", "1 x");
  write("c.txt", "");
  write("d.txt", "1 -1");
  write("a.jsonl", "[1]\n{\"input_ids\":[3,9]}\n");
  write("b.jsonl", "[1\n");
  write("c.jsonl", "{\"ids\":[1]}\n");
  write("d.jsonl", "[1.5]\n");
  write("e.jsonl", "[99999999999999999999]\n");
  write("a.npy", npy<std::uint16_t>("<u2", "(2, 2)", {1, 2, 3, 9}));
  write("b.npy", npy<std::int32_t>("<i4", "(2,)", {1, -5}));
  write("c.npy", npy<std::uint16_t>("<u2", "(3,)", {1, 2}));
  write("d.npy", npy<float>("<f4", "(1,)", {1}));
  write("e.npy", npy<std::uint16_t>("<u2", "(2, 1)", {1, 2}, "True"));
  write("f.npy", npy<std::uint16_t>("<u2", "(4611686018427387904, 4)", {1}));
  write("g.npy", "\x93NUMPY");
  write("h.npy", npy<std::uint64_t>("<u8", "(1,)", {~std::uint64_t(0)}));
  const auto says = [](const std::string& file, const std::string& part) {
    const std::string what = refusal_of("tokens:path=" + file + ",vocabulary=9");
    INFO(what);
    CHECK(what.starts_with("3: '" + file + "' "));
    CHECK(what.find(part) != what.npos);
    CHECK(what.find("[no hint]") == what.npos);
  };
  says("a.txt", "the id '9' at position 2, which is not from 0 to 8");
  says("b.txt", "'x' at position 1");
  says("c.txt", "holds no ids");
  says("d.txt", "'-1' at position 1");
  says("a.jsonl", "the id 9 at line 2, position 1");
  says("b.jsonl", "line 1 is not JSON");
  says("c.jsonl", "line 1 has no input_ids");
  says("d.jsonl", "1.5 at line 1, position 0");
  says("e.jsonl", "line 1, position 0");
  says("a.npy", "the id 9 at row 1, position 1");
  says("b.npy", "the id -5 at position 1");
  says("c.npy", "4 bytes behind its header");
  says("d.npy", "the type '<f4'");
  says("e.npy", "column by column");
  says("f.npy", "bytes behind its header");
  says("g.npy", "is not a NumPy file");
  says("h.npy", "18446744073709551615 at position 0, above 2^63 - 1");
  says("none.npy", "does not exist");
  CHECK(refusal_of("tokens").starts_with("2: the dataset tokens was given no path"));
}

TEST_CASE("ids that no vocabulary holds are refused without one, too") {
  const Folder folder;
  write("large.npy", npy<std::uint32_t>("<u4", "(2,)", {5, 0x80000000u}));
  write("largest.npy", npy<std::int64_t>("<i8", "(1,)", {2147483647}));
  write("negative.npy", npy<std::int16_t>("<i2", "(1,)", {-1}));
  write("nan.npy", npy<double>("<f8", "(1,)", {0.0 / 0.0}));
  write("cube.npy", npy<std::uint16_t>("<u2", "(1, 1, 1)", {1}));
  write("large.jsonl", "[2147483647]\n");
  write("nan.jsonl", "[1]\n[NaN]\n");
  write("utf8.jsonl", "{\"input_ids\": [1], \"domain\": \"\xff\"}\n");
  write("large.txt", "1 4294967296");
  write("nan.txt", "1 nan");
  const auto says = [](const std::string& file, const std::string& part) {
    const std::string what = refusal_of("tokens:path=" + file);
    INFO(what);
    CHECK(what.starts_with("3: '" + file + "' "));
    CHECK(what.find(part) != what.npos);
    CHECK(what.find("[no hint]") == what.npos);
  };
  says("large.npy", "has 2147483648 at position 1, which is not a token id");
  says("largest.npy", "has 2147483647 at position 0");
  says("negative.npy", "has -1 at position 0");
  says("nan.npy", "the type '<f8'");
  says("cube.npy", "has 3 dimensions");
  says("large.jsonl", "has 2147483647 at line 1, position 0");
  says("nan.jsonl", "line 2 is not JSON");
  says("utf8.jsonl", "line 1 is not JSON");
  says("large.txt", "has '4294967296' at position 1");
  says("nan.txt", "has 'nan' at position 1");
}

namespace {

// What follows is one document a line: pieces of `length` ids.
std::vector<Batch> pieces(const std::string& path, int length) {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"tokens:path=" + path + ",whole=1,split=valid"}, *tokenizer, 0);
  std::vector<Batch> out;
  while (const auto batch = valid_batch(corpus, 0, Index(out.size()), 1, length))
    out.push_back(*batch);
  return out;
}

}  // namespace

TEST_CASE("padding of JSON lines has no loss and comes behind the ids") {
  const Folder folder;
  write("pad.jsonl",
        "{\"input_ids\": [5, 6, 7, 0, 0], \"attention_mask\": [1, 1, 1, 0, 0], \"id\": \"a\"}\n"
        "{\"input_ids\": [0, 0, 0, 8, 9], \"attention_mask\": [0, 0, 0, 1, 1]}\n"
        "{\"input_ids\": [1, 2, 3, 4, 5], \"position_ids\": [0, 1, 2, 3, 4]}\n");
  const auto batches = pieces("pad.jsonl", 5);
  REQUIRE(batches.size() == 3);
  CHECK(batches[0].token == std::vector<int>{5, 6, 7, 0, 0});
  CHECK(batches[0].target == std::vector<int>{6, 7, -1, -1, -1});
  CHECK(batches[0].valid == std::vector<std::uint8_t>{1, 1, 1, 0, 0});
  CHECK(batches[1].token == std::vector<int>{8, 9, 0, 0, 0});
  CHECK(batches[1].target == std::vector<int>{9, -1, -1, -1, -1});
  CHECK(batches[1].valid == std::vector<std::uint8_t>{1, 1, 0, 0, 0});
  CHECK(batches[2].target == std::vector<int>{2, 3, 4, 5, -1});
  CHECK(batches[2].valid.empty());
  // one batch of all: what one piece says holds for its rows alone
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"tokens:path=pad.jsonl,whole=1,split=valid"}, *tokenizer, 0);
  const auto all_rows = valid_batch(corpus, 0, 0, 3, 5);
  REQUIRE(all_rows);
  CHECK(all_rows->valid == std::vector<std::uint8_t>{1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1});
}

TEST_CASE("ids whose label is -100 are read and not predicted") {
  const Folder folder;
  write("labels.jsonl", "{\"input_ids\": [1, 2, 3, 4], \"labels\": [-100, -100, 3, 4]}\n");
  const auto batches = pieces("labels.jsonl", 4);
  REQUIRE(batches.size() == 1);
  CHECK(batches[0].target == std::vector<int>{-1, 3, 4, -1});
  CHECK(batches[0].valid.empty());
}

TEST_CASE("keys of JSON lines that mean something else are refused by name") {
  const Folder folder;
  const auto refused = [&](const std::string& keys, const std::string& says) {
    write("x.jsonl", "{\"input_ids\": [1, 2, 3], " + keys + "}\n");
    CAPTURE(keys);
    CHECK_THROWS_WITH(pieces("x.jsonl", 3), Catch::Contains(says));
  };
  refused("\"attention_mask\": [1, 2, 1]", "has 2 in attention_mask");
  refused("\"attention_mask\": [1, 1]", "attention_mask that is not a list of as many");
  refused("\"labels\": [1, 2, 4]", "the label 4 for the id 3 at position 2");
  refused("\"position_ids\": [0, 1, 0]", "the position 0 where 2 comes next");
  refused("\"token_type_ids\": [0, 1, 0]", "token_type_ids");
  refused("\"loss_mask\": [1, 1, 0]", "the key 'loss_mask', which is not supported");
}

TEST_CASE("binary ids are called binary, without their bytes") {
  const Folder folder;
  write("ids.bin", std::string("\1\0\2\0\3\0", 6));
  write("ids.npz", std::string("PK\3\4\0\0", 6));
  CHECK_THROWS_WITH(pieces("ids.bin", 3), Catch::Contains("is binary and not text"));
  CHECK_THROWS_WITH(pieces("ids.npz", 3), Catch::Contains("is a NumPy archive"));
}
