// Scores of experts read back from a trace, beside the same numbers taken from the layers
// themselves.
#include <catch2/catch.hpp>

#include <cmath>
#include <filesystem>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/edit/expert_scores.h"
#include "lib/model/config.h"
#include "lib/run/recorder.h"

using namespace moe;

TEST_CASE("load and REAP of a trace are those of the layers") {
  const auto backend = make_reference<float>();
  Decoder<float> model(model_config("custom:vocabulary=11,hidden=8,heads=2,layers=2,width=5,"
                                    "experts=4,context=16,dense_layers=1,router={softmax:k=2}"),
                       *backend);
  Decoder<float> other(model_config("nano"), *backend);
  model.initialise(4);
  Batch batch;
  batch.start = {0, 5, 12};
  batch.domain = {0, 0};
  for (int t = 0; t < 12; ++t)
    batch.token.push_back(t * 7 % 11);
  const auto path =
      std::filesystem::temp_directory_path() /
      ("moe-scores-" +
       std::to_string(
           Rng(std::uint64_t(
                   std::filesystem::file_time_type::clock::now().time_since_epoch().count()))
               .next()) +
       ".moetrace.h5");
  TraceFields fields = trace_fields(model);
  fields.out_norm = true;
  fields.prediction = false;
  TraceHeader header = trace_header(model);
  header.domains = {"one"};
  TraceWriter writer(path, header, {.fields = fields});
  BatchRows rows(batch, 0, -1);
  std::vector<double> count(4);
  std::vector<double> reap(4);
  Decoder<float>::Tape tape;
  model.infer({.batch = batch}, tape, [&](int n, const MoeTape<float>& t, View<const float> x) {
    rows.layer(n, t, fields);
    const Matrix<float> out = model.moe_layers()[0]->outputs_of_all(x);
    for (Index i = 0; i < 12; ++i) {
      for (Index j = 0; j < 2; ++j) {
        const int e = t.routing.expert(i, j);
        double sum = 0;
        for (const float v : out.row(e * 12 + i))
          sum += double(v) * v;
        count[std::size_t(e)] += 1;
        reap[std::size_t(e)] += t.routing.weight(i, j) * std::sqrt(sum);
      }
    }
  });
  writer.step({.step = 0, .phase = Phase::eval});
  rows.append(writer);
  writer.finish();
  const TraceReader trace(path);
  const ExpertScores load = expert_scores(model, trace, ExpertScore::load);
  const ExpertScores score = expert_scores(model, trace, ExpertScore::reap);
  REQUIRE(load.size() == 1);
  for (std::size_t e = 0; e < 4; ++e) {
    CHECK(load[0][e] == Approx(count[e] / 24));
    // weights are stored as f16
    CHECK(score[0][e] == Approx(count[e] > 0 ? reap[e] / count[e] : 0).epsilon(2e-3));
  }
  CHECK(lowest(model, score, 1)[0].layer == 1);
  CHECK_THROWS_WITH(expert_scores(other, trace, ExpertScore::load),
                    "the trace has 1 MoE layers and the model 2");
  std::filesystem::remove(path);
}
