// What a layer decided, as rows of a trace: figures of the scores by hand, flags, positions, and
// each sequence with its own rows.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>

#include "lib/run/packed_rows.h"
#include "lib/run/recorder.h"
#include "lib/trace/reader.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

template <class T>
Matrix<T> matrix(Index rows, Index cols, const std::vector<T>& values) {
  Matrix<T> out(rows, cols);
  REQUIRE(Index(values.size()) == out.size());
  std::ranges::copy(values, out.data());
  return out;
}

// Two sequences of 2 and 1 tokens, 4 experts, 2 choices; the second token is padding.
Batch batch_of_three() {
  return {.token = {7, 9, 256},
          .target = {9, -1, 3},
          .start = {0, 2, 3},
          .domain = {1, -1},
          .past = {},
          .valid = {1, 0, 1}};
}

MoeTape<float> tape_of(const Batch& batch) {
  MoeTape<float> tape(batch);
  tape.routing.expert = matrix<int>(3, 2, {2, 0, 1, 3, 3, -1});
  tape.routing.weight = matrix<double>(3, 2, {0.75, 0.25, 0.5, 0.5, 1, 0});
  tape.routing.kept = matrix<int>(3, 2, {2, -1, 1, 3, 3, -1});
  tape.routing.logits = matrix<double>(3, 4, {0, -1, 2, -1, 0, 0, 0, 0, 1, 2, 3, 4});
  tape.routing.score =
      matrix<double>(3, 4, {0.2, 0.1, 0.6, 0.1, 0.25, 0.25, 0.25, 0.25, 0, 0, 1, 3});
  return tape;
}

struct Recorded {
  TraceRows rows;
  std::vector<TraceSequence> sequences;
};

// The rows, written and read again.
Recorded written(const BatchRows& rows, const TraceFields& fields, int experts) {
  const fs::path file =
      fs::temp_directory_path() / ("moe-recorder-" + std::to_string(::getpid()) + ".h5");
  TraceHeader h;
  h.vocab_size = 320;
  h.domains = {"a", "b"};
  TraceLayer layer;
  layer.experts = experts;
  layer.top_k = 2;
  h.layers = {layer};
  TraceWriter writer(file, h, {.force = true, .fields = fields});
  writer.step({.step = 1, .phase = Phase::eval});
  rows.append(writer);
  writer.finish();
  const TraceReader reader(file);
  Recorded out{reader.read(0, reader.tokens(), fields), reader.sequences()};
  fs::remove(file);
  return out;
}

}  // namespace

TEST_CASE("recorded rows know their modality, and sequences the grid of their picture") {
  Batch batch = batch_of_three();
  const MoeTape<float> tape = tape_of(batch);
  const TraceFields fields{.modality = true};
  BatchRows text(batch, 0, -1);
  text.layer(0, tape, fields);
  CHECK(written(text, fields, 4).rows.modality == std::vector<std::uint8_t>{0, 0, 0});
  batch.modality = {modality::image, modality::image, modality::text};
  batch.grid = {{1, 2}, {}};
  BatchRows rows(batch, 0, -1);
  rows.layer(0, tape, fields);
  PackedRows packed;  // on their way from another rank
  packed.add(rows);
  int batches = 0;
  PackedRows::for_each(packed.bytes(), [&](const std::vector<SequenceRows>& all) {
    REQUIRE(all.size() == 2);
    CHECK(all[0].rows.modality == std::vector<std::uint8_t>{1, 1});
    CHECK(all[0].grid == SignalGrid{1, 2});
    CHECK(all[1].grid == SignalGrid{});
    ++batches;
  });
  CHECK(batches == 1);
  const Recorded r = written(rows, fields, 4);
  CHECK(r.rows.modality == std::vector<std::uint8_t>{1, 1, 0});
  CHECK(r.sequences[0].grid == SignalGrid{1, 2});
  CHECK(r.sequences[1].grid == SignalGrid{});
}

TEST_CASE("a recorded row holds what the router decided and how sure it was") {
  const Batch batch = batch_of_three();
  const MoeTape<float> tape = tape_of(batch);
  const TraceFields fields{.weights = true, .dropped = true, .kept = true, .logits = true};
  BatchRows rows(batch, token_flag::train, 256);
  rows.layer(0, tape, fields);
  const Recorded r = written(rows, fields, 4);
  REQUIRE(r.rows.token_id == std::vector<std::uint32_t>{7, 9, 256});
  CHECK(r.rows.position == std::vector<std::uint32_t>{0, 1, 0});
  CHECK(r.rows.flags[0] == token_flag::train);
  CHECK(r.rows.flags[1] == (token_flag::train | token_flag::padding));
  CHECK(r.rows.flags[2] == (token_flag::train | token_flag::special));
  const LayerRows& l = r.rows.layer[0];
  CHECK(l.expert == tape.routing.expert);
  CHECK(l.kept == tape.routing.kept);
  // chosen and not computed; no choice is no drop
  CHECK(l.dropped == matrix<std::uint8_t>(3, 2, {0, 1, 0, 0, 0, 0}));
  CHECK(l.weight(0, 0) == Approx(0.75).epsilon(1e-3));
  CHECK(l.logits(0, 2) == Approx(2).epsilon(1e-3));
  // -sum p ln p of (0.2, 0.1, 0.6, 0.1), and of (0, 0, 1, 3) scaled to 1
  const double first = -(0.2 * std::log(0.2) + 0.2 * std::log(0.1) + 0.6 * std::log(0.6));
  const double third = -(0.25 * std::log(0.25) + 0.75 * std::log(0.75));
  CHECK(l.entropy[0] == Approx(first).epsilon(2e-3));
  CHECK(l.entropy[2] == Approx(third).epsilon(2e-3));
  // the second choice's lead over the third best, of all that was believed
  CHECK(l.margin[0] == Approx(0.1).epsilon(2e-3));
  CHECK(l.margin[2] == Approx(0.25).epsilon(2e-3));
  CHECK(l.logsumexp[0] == Approx(std::log(1 + 2 * std::exp(-1) + std::exp(2))).epsilon(2e-3));
  CHECK(l.logsumexp[2] ==
        Approx(std::log(std::exp(1) + std::exp(2) + std::exp(3) + std::exp(4))).epsilon(2e-3));
  // padding believes nothing
  CHECK(l.entropy[1] == 0);
  CHECK(l.margin[1] == 0);
  CHECK(l.logsumexp[1] == 0);
}

TEST_CASE("the margin of a choice of all experts is the least score itself") {
  Batch batch;
  batch.token = {1};
  batch.target = {-1};
  batch.start = {0, 1};
  MoeTape<float> tape(batch);
  tape.routing.expert = matrix<int>(1, 2, {1, 0});
  tape.routing.weight = matrix<double>(1, 2, {0.7, 0.3});
  tape.routing.logits = matrix<double>(1, 2, {0, 1});
  tape.routing.score = matrix<double>(1, 2, {0.3, 0.7});
  // what a device believed goes before what the router says
  tape.probability = matrix<double>(1, 2, {0.4, 0.6});
  const TraceFields fields{.weights = true, .dropped = false};
  BatchRows rows(batch, token_flag::prompt, -1);
  rows.layer(0, tape, fields);
  const Recorded r = written(rows, fields, 2);
  CHECK(r.rows.layer[0].margin[0] == Approx(0.4).epsilon(2e-3));
  CHECK(r.rows.flags[0] == token_flag::prompt);
}

TEST_CASE("each sequence of a batch is a sequence of the trace, with its domain") {
  const Batch batch = batch_of_three();
  const TraceFields fields{.weights = true, .dropped = false};
  BatchRows rows(batch, 0, -1);
  rows.layer(0, tape_of(batch), fields);
  const Recorded r = written(rows, fields, 4);
  REQUIRE(r.sequences.size() == 2);
  CHECK(r.sequences[0].start == 0);
  CHECK(r.sequences[0].length == 2);
  CHECK(r.sequences[0].domain == 1);
  CHECK(r.sequences[1].start == 2);
  CHECK(r.sequences[1].length == 1);
  CHECK(r.sequences[1].domain == no_domain);
}

TEST_CASE("positions of a continued sequence go on from its past") {
  Batch batch;
  batch.token = {4, 5};
  batch.start = {0, 2};
  batch.past = {3};
  MoeTape<float> tape(batch);
  tape.routing.expert = matrix<int>(2, 2, {0, 1, 1, 0});
  tape.routing.weight = matrix<double>(2, 2, {0.5, 0.5, 0.5, 0.5});
  Batch prompt = batch;
  prompt.token = {1, 2, 3};
  prompt.start = {0, 3};
  prompt.past = {0};
  MoeTape<float> before(prompt);
  before.routing.expert = matrix<int>(3, 2, {0, 1, 1, 0, 0, 1});
  before.routing.weight = matrix<double>(3, 2, {0.5, 0.5, 0.5, 0.5, 0.5, 0.5});
  const TraceFields fields{
      .weights = true, .dropped = false, .entropy = false, .margin = false, .logsumexp = false};
  const fs::path file =
      fs::temp_directory_path() / ("moe-recorder-" + std::to_string(::getpid()) + ".h5");
  TraceHeader h;
  h.vocab_size = 320;
  TraceLayer layer;
  layer.experts = 2;
  layer.top_k = 2;
  h.layers = {layer};
  TraceWriter writer(file, h, {.force = true, .fields = fields});
  for (const auto& [b, t] : {std::pair(&prompt, &before), std::pair(&batch, &tape)}) {
    BatchRows rows(*b, 0, -1);
    rows.layer(0, *t, fields);
    writer.step({.step = 1, .phase = Phase::decode});
    rows.append(writer);
  }
  writer.finish();
  const TraceReader reader(file);
  CHECK(reader.read(0, 5, fields).position == std::vector<std::uint32_t>{0, 1, 2, 3, 4});
  CHECK(reader.sequences().size() == 1);
  fs::remove(file);
}
