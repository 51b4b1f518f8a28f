// Rows of pictures and sounds in a decoder, in f64: gradients against central differences, what a
// row without numbers is, decoding in pieces, refusals.
#include <catch2/catch.hpp>

#include <cmath>
#include <map>

#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/fields.h"
#include "tests/model/differences.h"

using namespace moe;

namespace {

const std::string least =
    "custom:vocabulary=16,hidden=8,heads=2,kv_heads=1,layers=2,width=5,experts=4,context=16,"
    "signal={audio:numbers=2,places=2;image:numbers=5,places=3},";

// Two sequences: three patches and text, two sounds and text.
Batch batch_of() {
  Batch b;
  b.token = {11, 12, 13, 1, 2, 14, 15, 3, 4, 5};
  b.target = {-1, -1, 1, 2, 7, -1, 3, 4, 5, 6};
  b.start = {0, 5, 10};
  b.modality = {1, 1, 1, 0, 0, 3, 3, 0, 0, 0};
  b.signal = {{modality::audio, {5, 6}, Matrix<float>(2, 2)},
              {modality::image, {0, 1, 2}, Matrix<float>(3, 5)}};
  Rng rng(11);
  for (Signal& s : b.signal) {
    for (float& v : s.value.flat())
      v = float(rng.normal());
  }
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
  double loss(const Batch& batch) {
    Decoder<double>::Tape tape;
    return test::loss_of(model, batch, tape);
  }
  std::unique_ptr<Backend<double>> backend;
  Decoder<double> model;
};

}  // namespace

TEST_CASE("gradients of a model that reads signals agree with central differences") {
  for (const std::string fields :
       {"", "projector=mlp2x_gelu", "tied=1,embedding_scale=3",
        "projector=mlp2x_gelu,tied=1,embedding_scale=3", "embedding_norm=1,norm=layer_bias",
        "streams=2,stream_rounds=3", "router={softmax:k=2,experts=text:0-1/image:1-3/audio:2-3}"}) {
    INFO(fields);
    World w(fields);
    const Batch batch = batch_of();
    Decoder<double>::Tape tape;
    test::loss_of(w.model, batch, tape);
    w.model.want_grads();
    w.model.clear_grads();
    w.model.backward({.batch = batch, .training = true}, tape);
    int projectors = 0;
    for (Parameter<double>* p : w.model.parameters()) {
      INFO(p->name());
      const test::Compared c = test::compare_with_differences(w.model, *p, 12, batch, tape);
      CHECK(c.largest > 0);
      projectors += p->name().starts_with("projector.");
    }
    CHECK(projectors == (fields.starts_with("projector=") ? 8 : 2));
  }
}

TEST_CASE("what a picture shows is read, and a model without rows of a kind leaves its part out") {
  World w("");
  Batch batch = batch_of();
  const double before = w.loss(batch);
  batch.signal[1].value(1, 2) += 1;
  CHECK(std::abs(w.loss(batch) - before) > 1e-6);
  batch.signal[1].value = Matrix<float>(3, 5);
  const double blank = w.loss(batch);
  batch.signal.erase(batch.signal.begin() + 1);
  CHECK(w.loss(batch) == blank);  // rows without numbers are those of their places
  // a frozen product has no gradient, and no other's depends on it
  World frozen("");
  for (Parameter<double>* p : frozen.model.parameters()) {
    if (p->name().starts_with("projector."))
      p->freeze();
  }
  const Batch whole = batch_of();
  Decoder<double>::Tape tape;
  test::loss_of(frozen.model, whole, tape);
  frozen.model.want_grads();
  frozen.model.backward({.batch = whole, .training = true}, tape);
  for (Parameter<double>* p : frozen.model.parameters())
    CHECK(p->grad().empty() == p->name().starts_with("projector."));
}

TEST_CASE("two products make of a row what they make of it alone, and nothing of other rows") {
  World w("projector=mlp2x_gelu");
  const Batch batch = batch_of();
  std::map<std::string, std::vector<double>> of;
  for (Parameter<double>* p : w.model.parameters()) {
    if (p->name().starts_with("projector.audio"))
      of[p->name().substr(15)] = {p->mutate().flat().begin(), p->mutate().flat().end()};
  }
  const Matrix<float>& row = batch.signal[0].value;
  SignalProjector<double> own(*w.backend, "x", ProjectorKind::mlp2x_gelu, 8, 2);
  std::vector<ModelParameter<double>> inside;
  own.collect(w.model.config(), inside);
  for (const ModelParameter<double>& p : inside)
    std::ranges::copy(of.at(p.parameter->name().substr(1)), p.parameter->mutate().data);
  Array<double> x = Array<double>::zeros(*w.backend, batch.tokens(), 8);
  SignalProjector<double>::Tape tape;
  own.forward(batch.signal[0], x.view(), tape);
  const Matrix<double> got = x.to_host();
  for (Index t = 0; t < batch.tokens(); ++t) {
    const bool heard = t == 5 || t == 6;
    for (Index i = 0; i < 8; ++i) {
      double want = heard ? of[".2.bias"][std::size_t(i)] : 0;
      for (Index j = 0; heard && j < 8; ++j) {
        double up = of[".0.bias"][std::size_t(j)];
        for (Index n = 0; n < 2; ++n)
          up += of[".0"][std::size_t(2 * j + n)] * double(row(t - 5, n));
        want += of[".2"][std::size_t(8 * i + j)] * up * 0.5 * (1 + std::erf(up / std::sqrt(2.0)));
      }
      CHECK(got(t, i) == Approx(want).margin(1e-12));
    }
  }
}

TEST_CASE("a picture that is read in pieces gives the logits of one pass") {
  const std::string fields = GENERATE(as<std::string>(), "", "projector=mlp2x_gelu");
  World w(fields);
  const Batch all = batch_of();
  Decoder<double>::Tape whole;
  Matrix<double> at_once;
  w.model.infer({.batch = all}, whole, {}, nullptr, &at_once);
  DecoderState state;
  Matrix<double> last;
  for (const auto& [from, to] : {std::pair<Index, Index>{0, 2}, {2, 5}}) {
    Batch part;
    part.past = {from, from};
    part.signal = {{modality::audio, {}, {}}, {modality::image, {}, {}}};
    std::vector<std::vector<float>> rows(2);
    for (const Index q : {0, 1}) {
      for (Index t = q * 5 + from; t < q * 5 + to; ++t) {
        for (std::size_t k = 0; k < 2; ++k) {
          const auto at = std::ranges::find(all.signal[k].row, t);
          if (at == all.signal[k].row.end())
            continue;
          part.signal[k].row.push_back(part.tokens());
          const auto row = all.signal[k].value.row(at - all.signal[k].row.begin());
          rows[k].insert(rows[k].end(), row.begin(), row.end());
        }
        part.token.push_back(all.token[std::size_t(t)]);
        part.modality.push_back(all.modality[std::size_t(t)]);
      }
      part.start.push_back(part.tokens());
    }
    for (std::size_t k = 0; k < 2; ++k) {
      part.signal[k].value =
          Matrix<float>(Index(part.signal[k].row.size()), all.signal[k].value.cols());
      std::ranges::copy(rows[k], part.signal[k].value.data());
    }
    Decoder<double>::Tape tape;
    w.model.infer({.batch = part}, tape, {}, &state, &last);
  }
  for (Index i = 0; i < last.size(); ++i)
    CHECK(std::abs(last.data()[i] - at_once.data()[i]) < 1e-10);
}

TEST_CASE("signals that a model does not read, and models that cannot be, are refused") {
  World w("");
  Batch batch = batch_of();
  batch.signal[1].value = Matrix<float>(3, 4);
  CHECK_THROWS_WITH(w.loss(batch),
                    "rows of 4 numbers of the kind image were given to a model that reads "
                    "image:numbers=5,places=3;audio:numbers=2,places=2");
  batch = batch_of();
  batch.signal[1].row = {0, 1, 10};
  CHECK_THROWS_WITH(w.loss(batch), "3 rows of the kind image do not stand at 3 valid rows of 10");
  const auto refused = [](const std::string& signal, const std::string& sentence) {
    CHECK_THROWS_WITH(model_config("nano:signal={" + signal + "}"), sentence);
  };
  refused("text:numbers=3,places=2", "signal: text comes as ids, not as rows of numbers");
  refused("smell:numbers=3,places=2", "signal: 'smell' is not a modality");
  refused("image:numbers=3,places=2;image:numbers=3,places=2", "signal: image stands there twice");
  refused("image:numbers=3", "image: places=0 must be at least 1");
  refused("image:numbers=3,places=400",
          "the last ids of the vocabulary are those of 400 places of pictures and sounds, and "
          "there are 320 in all");
  refused("image:numbers=3,places=2000000",
          "signal: image:numbers=3,places=2000000 is more than 1000000 of something");
  CHECK_THROWS_WITH(
      model_config("t5-toy:signal={image:numbers=3,places=2}"),
      "signal= brings pictures and sounds into a decoder alone, and encoder_layers is not 0");
  CHECK(model_config("nano:signal={audio:numbers=2,places=3;image:numbers=48,places=16}").signal ==
        SignalShapes{{modality::image, 48, 16}, {modality::audio, 2, 3}});
}
