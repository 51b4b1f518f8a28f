// Rows that were made outside of a decoder, rows that are added behind its layers, and positions in
// time, height and width, in f64: gradients against central differences, text that is turned as
// ever, decoding behind a picture, refusals.
#include <catch2/catch.hpp>

#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/signal/positions.h"
#include "tests/model/differences.h"

using namespace moe;

namespace {

const std::string least =
    "custom:vocabulary=16,hidden=8,heads=2,kv_heads=1,layers=2,width=5,experts=4,context=64,"
    "head_dim=12,";
const std::string axes = "rope_axes=interleaved:2+2+2,";

void draw(Matrix<float>& m, std::uint64_t seed) {
  Rng rng(seed);
  for (float& v : m.flat())
    v = float(rng.normal());
}

Matrix<int> positions_of_both() {
  const RowRun first[] = {{.length = 2}, {true, 0, 1, 4, 6}, {.length = 2}};
  const RowRun second[] = {{.length = 1}, {true, 0, 1, 4, 4}, {.length = 2}};
  const Matrix<int> one = row_positions(first, 2).position;
  const Matrix<int> two = row_positions(second, 2).position;
  Matrix<int> out(3, 17);
  for (Index a = 0; a < 3; ++a) {
    std::ranges::copy(one.row(a), out.row(a).begin());
    std::ranges::copy(two.row(a), out.row(a).begin() + 10);
  }
  return out;
}

// Two sequences: text, a picture of 2 x 3 rows, text; and text, one of 2 x 2, text.
Batch batch_of() {
  Batch b;
  b.token = {1, 2, -1, -1, -1, -1, -1, -1, 3, 4, 5, -1, -1, -1, -1, 6, 7};
  b.target = {-1, -1, -1, -1, -1, -1, -1, 3, 4, 5, -1, -1, -1, -1, 6, 7, 8};
  b.start = {0, 10, 17};
  b.modality.assign(17, modality::text);
  for (const Index t : {2, 3, 4, 5, 6, 7, 11, 12, 13, 14}) {
    b.given.row.push_back(t);
    b.modality[std::size_t(t)] = modality::image;
  }
  b.given.value = Matrix<float>(10, 8);
  draw(b.given.value, 5);
  b.added = {{{2, 3, 4}, Matrix<float>(3, 8)}, {{7, 12}, Matrix<float>(2, 8)}};
  draw(b.added[0].value, 6);
  draw(b.added[1].value, 7);
  b.position = positions_of_both();
  return b;
}

struct World {
  explicit World(const std::string& fields)
      : backend(make_reference<double>()), model(model_config(least + fields), *backend) {
    Rng rng(3);
    for (auto* p : model.parameters()) {
      const double centre = p->name().ends_with("norm") ? 1 : 0;
      for (double& v : p->mutate().flat())
        v = centre + 0.5 * rng.normal();
    }
  }
  Matrix<double> logits(const Batch& batch) {
    Decoder<double>::Tape tape;
    Matrix<double> out;
    model.infer({.batch = batch}, tape, {}, nullptr, &out);
    return out;
  }
  std::unique_ptr<Backend<double>> backend;
  Decoder<double> model;
};

// What of the given rows stands at these rows.
RowValues values_at(const RowValues& all, const std::vector<Index>& rows) {
  RowValues out;
  std::vector<Index> from;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto at = std::ranges::find(all.row, rows[i]);
    if (at == all.row.end())
      continue;
    out.row.push_back(Index(i));
    from.push_back(at - all.row.begin());
  }
  out.value = Matrix<float>(Index(from.size()), all.value.cols());
  for (std::size_t i = 0; i < from.size(); ++i)
    std::ranges::copy(all.value.row(from[i]), out.value.row(Index(i)).begin());
  return out;
}

// Rows from .. to of each of the two sequences.
Batch part_of(const Batch& all, const std::vector<std::pair<Index, Index>>& cut, bool placed) {
  Batch out;
  std::vector<Index> rows;
  for (std::size_t q = 0; q < cut.size(); ++q) {
    for (Index t = all.start[q] + cut[q].first; t < all.start[q] + cut[q].second; ++t)
      rows.push_back(t);
    out.start.push_back(Index(rows.size()));
  }
  for (const Index t : rows)
    out.token.push_back(all.token[std::size_t(t)]);
  out.given = values_at(all.given, rows);
  if (!placed)
    return out;
  out.position = Matrix<int>(3, Index(rows.size()));
  for (Index a = 0; a < 3; ++a) {
    for (std::size_t i = 0; i < rows.size(); ++i)
      out.position(a, Index(i)) = all.position(a, rows[i]);
  }
  return out;
}

}  // namespace

TEST_CASE("gradients with given rows, added rows and three axes agree with central differences") {
  for (const std::string& fields :
       {axes, axes + "tied=1,embedding_scale=3", axes + "qk_norm=head,qkv_bias=1",
        std::string("rope_axes=ernie:2+2+2,rope_interleaved=1,embedding_norm=1,"),
        std::string("rope_axes=sections:1+2+3,router={softmax:k=2,experts=text:0-1/image:1-3},"),
        axes + "rope={yarn:factor=4,original=8}"}) {
    INFO(fields);
    World w(fields);
    const Batch batch = batch_of();
    Decoder<double>::Tape tape;
    test::loss_of(w.model, batch, tape);
    w.model.want_grads();
    w.model.clear_grads();
    w.model.backward({.batch = batch, .training = true}, tape);
    for (Parameter<double>* p : w.model.parameters()) {
      INFO(p->name());
      const test::Compared c = test::compare_with_differences(w.model, *p, 12, batch, tape);
      CHECK(c.tried > 0);
    }
  }
}

TEST_CASE("given rows take the place of embeddings, whatever ids they have") {
  World w(axes);
  Batch batch = batch_of();
  const Matrix<double> before = w.logits(batch);
  for (const Index t : batch.given.row)
    batch.token[std::size_t(t)] = 9;
  CHECK(w.logits(batch) == before);
  batch.given.value(9, 3) += 1;  // of the second sequence
  const Matrix<double> other = w.logits(batch);
  CHECK(std::ranges::equal(other.row(0), before.row(0)));
  CHECK_FALSE(std::ranges::equal(other.row(1), before.row(1)));
  // rows that are the embeddings change nothing
  Batch text;
  text.token = {1, 2, 3, 4};
  text.start = {0, 4};
  const Matrix<double> plain = w.logits(text);
  Parameter<double>& table = *w.model.parameters()[0];
  REQUIRE(table.name() == "embedding");
  text.given.row = {1, 2};
  text.given.value = Matrix<float>(2, 8);
  for (const Index i : {0, 1}) {
    for (Index c = 0; c < 8; ++c) {
      double& v = table.mutate()(i + 2, c);
      v = double(float(v));
      text.given.value(i, c) = float(v);
    }
  }
  Batch bare = text;
  bare.given = {};
  CHECK(w.logits(text) == w.logits(bare));
  CHECK(std::abs(w.logits(bare)(0, 0) - plain(0, 0)) < 1e-5);
}

TEST_CASE("text is turned on three axes as it is on one, to the bit") {
  for (const std::string rule : {"interleaved", "sections", "ernie"}) {
    INFO(rule);
    World three(concat("rope_axes=", rule, ":2+2+2,rope_interleaved=", int(rule == "ernie")));
    World one(concat("rope_interleaved=", int(rule == "ernie")));
    Batch text;
    text.token = {1, 2, 3, 4, 5, 6};
    text.start = {0, 4, 6};
    CHECK(three.logits(text) == one.logits(text));
    text.position = Matrix<int>(3, 6);
    for (Index a = 0; a < 3; ++a) {
      for (Index t = 0; t < 6; ++t)
        text.position(a, t) = int(t < 4 ? t : t - 4);
    }
    CHECK(three.logits(text) == one.logits(text));
    CHECK(one.logits(text) == three.logits(text));  // positions that count the rows say nothing new
    text.position(2, 3) = 9;
    CHECK_FALSE(three.logits(text) == one.logits(part_of(text, {{0, 4}, {0, 2}}, false)));
  }
}

TEST_CASE("text that follows a picture in a state goes on where the picture ends") {
  World w(axes);
  Batch all = batch_of();
  all.added.clear();
  const Matrix<double> whole = w.logits(all);
  DecoderState state;
  Matrix<double> last;
  Decoder<double>::Tape tape;
  const auto read = [&](const Batch& part) {
    w.model.infer({.batch = part}, tape, {}, &state, &last);
  };
  // the picture in two pieces, then text without positions, a row at a time
  read(part_of(all, {{0, 5}, {0, 2}}, true));
  read(part_of(all, {{5, 8}, {2, 5}}, true));
  CHECK(state.next == std::vector<int>{5, 3});
  read(part_of(all, {{8, 9}, {5, 6}}, false));
  read(part_of(all, {{9, 10}, {6, 7}}, false));
  for (Index i = 0; i < whole.size(); ++i)
    CHECK(std::abs(whole.data()[i] - last.data()[i]) < 1e-10);
}

TEST_CASE("rows and positions that do not fit a model are refused") {
  World w(axes);
  Batch batch = batch_of();
  batch.given.value = Matrix<float>(10, 7);
  CHECK_THROWS_WITH(w.logits(batch), "rows of 7 numbers were given to a model of hidden size 8");
  batch = batch_of();
  batch.given.row[9] = 17;
  CHECK_THROWS_WITH(w.logits(batch), Catch::Contains("do not stand at 10 rows, ascending, of 17"));
  batch = batch_of();
  batch.token[0] = -1;
  CHECK_THROWS_WITH(w.logits(batch), "token -1 is outside the vocabulary of 16");
  batch = batch_of();
  batch.added.resize(3);
  CHECK_THROWS_WITH(w.logits(batch), "rows are to be added behind layer 2 and the model has 2");
  World flat("");
  CHECK_THROWS_WITH(flat.logits(batch_of()),
                    Catch::Contains("the model turns by the place of a row alone"));
  World streams("streams=2,");
  batch = batch_of();
  batch.position = {};
  CHECK_THROWS_WITH(streams.logits(batch), Catch::Contains("several streams"));
  const auto refused = [](const std::string& fields, const std::string& sentence) {
    INFO(fields);
    CHECK_THROWS_WITH(model_config(least + fields), Catch::Contains(sentence));
  };
  refused("rope_axes=interleaved:2+2+1", "shares out 5 pairs, and a head turns in 6");
  refused("rope_axes=spiral:2+2+2", "no rule of rope_axes named 'spiral'");
  refused("rope_axes=sections:2+4", "names the pairs of 2 axes and there are three");
  refused("rope_axes=ernie:1+3+2", "height and width take turns");
  refused("rope_axes=sections:2+2+x", "'x' where a number of pairs is expected");
  refused("rope=none,rope_axes=sections:2+2+2", "turns the heads of grouped-query attention");
  refused("mixer=mamba2,rope_axes=sections:2+2+2", "turns the heads of grouped-query attention");
  CHECK(model_config(least + "rope_axes=sections:2+2+2").rope_axes == "sections:2;2;2");
}
