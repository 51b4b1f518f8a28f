// Encoder-decoders in f64: gradients of both stacks against central differences, decoding in pieces
// against one pass, padding of the source, positions, places of experts, refusals.
#include <catch2/catch.hpp>
#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/mixers/relative_bias.h"
#include "lib/router/capacity.h"
#include "lib/router/router.h"
#include "tests/model/differences.h"

using namespace moe;

namespace {

constexpr int vocabulary = 11;
const std::string least =
    "custom:vocabulary=11,hidden=8,heads=2,kv_heads=2,width=5,experts=4,context=16,layers=4,"
    "encoder_layers=2,";
const std::string t5 =
    "mixer={plain_attention:buckets=6,distance=5},attention_scale=1,activation=relu,tied=1,"
    "logit_divisor=2.8,moe_every=2,router={softmax:k=1,norm=0},start_token=0,pad_token=0,"
    "route_padding=1,";
const std::string nllb =
    "mixer={plain_attention:buckets=0},sinusoidal=1,norm=layer_bias,qkv_bias=1,o_bias=1,"
    "dense_bias=1,expert_bias=1,activation=gelu,tied=1,embedding_scale=2.5,moe_every=2,"
    "decoder_width=6,pad_token=1,start_token=2,";

Batch rows(std::vector<Index> start, int seed) {
  Batch b;
  b.start = std::move(start);
  for (Index t = 0; t < b.start.back(); ++t) {
    b.token.push_back(int(2 + (t * 7 + seed) % (vocabulary - 2)));
    b.target.push_back(int((t * 5 + 3) % vocabulary));
  }
  return b;
}

// Two sources, the second shorter; `padding` rows more at the end of it.
Batch pairs(Index padding = 0) {
  Batch b = rows({0, 4, 9}, 1);
  b.target[2] = -1;
  Batch source = rows({0, 6, 10 + padding}, 4);
  source.target.clear();
  if (padding > 0) {
    source.valid.assign(std::size_t(10 + padding), 1);
    for (Index t = 10; t < 10 + padding; ++t) {
      source.valid[std::size_t(t)] = 0;
      source.token[std::size_t(t)] = 1;
    }
  }
  b.source = std::make_shared<const Batch>(std::move(source));
  return b;
}

using Changes = std::vector<std::pair<std::string, std::string>>;

// `fields` over `least`, and what is changed of them.
ModelConfig config_of(const std::string& fields, const Changes& changes = {}) {
  Spec spec(least + fields);
  for (const auto& [key, value] : changes)
    spec.set(key, value);
  return model_config(spec.given_text());
}

struct World {
  explicit World(const std::string& fields, const Changes& changes = {})
      : backend(make_reference<double>()), model(config_of(fields, changes), *backend) {
    Rng rng(3);
    for (auto* p : model.parameters()) {
      const double centre = p->name().ends_with("norm") ? 1 : 0;
      for (double& v : p->mutate().flat())
        v = centre + 0.4 * rng.normal();
    }
  }
  Matrix<double> logits(const Batch& batch) {
    Decoder<double>::Tape tape;
    model.infer({.batch = batch}, tape);
    Array<double> z(*backend, batch.tokens(), vocabulary);
    model.logits(tape.normed.view(), z.view());
    return z.to_host();
  }

  std::unique_ptr<Backend<double>> backend;
  Decoder<double> model;
};

void check_parameter(World& w, Parameter<double>& p, const Batch& batch,
                     const Decoder<double>::Tape& tape) {
  INFO(p.name());
  const test::Compared c = test::compare_with_differences(w.model, p, 9, batch, tape);
  // the softmax does not see what is added to all scores of a query
  const bool unseen = p.name().ends_with(".k_bias");
  CHECK((c.largest > 1e-9) == !unseen);
}

double apart(const Matrix<double>& a, const Matrix<double>& b) {
  double most = a.size() == b.size() ? 0 : INFINITY;
  for (Index i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, std::abs(a.data()[i] - b.data()[i]));
  return most;
}

}  // namespace

TEST_CASE("gradients of an encoder and its decoder agree with central differences") {
  struct Model {
    std::string fields;
    Changes changes;
  };
  for (const auto& [fields, changes] : std::vector<Model>{
           {t5 + "capacity={count:tokens=2},balance={switch:coef=0.3;z:coef=0.1}", {}},
           {nllb + "router={softmax:k=2,norm=1,scale=0.8},capacity={count:tokens=3,scope=batch}",
            {}},
           {t5,
            {{"moe_every", "1"},
             {"layers", "3"},
             {"encoder_layers", "1"},
             {"mixer", "plain_attention;plain_attention;short_conv"},
             {"tied", "0"},
             {"encoder_embedding", "1"}}}}) {
    INFO(fields);
    World w(fields, changes);
    for (const Index padding : {0, 3}) {
      const Batch batch = pairs(padding);
      Decoder<double>::Tape tape;
      test::loss_of(w.model, batch, tape);
      w.model.want_grads();
      w.model.clear_grads();
      w.model.backward({.batch = batch, .training = true}, tape);
      for (Parameter<double>* p : w.model.parameters())
        check_parameter(w, *p, batch, tape);
    }
  }
}

TEST_CASE("an encoder-decoder that decodes in pieces gives the logits of one pass") {
  for (const std::string& fields : {t5, nllb + "router={softmax:k=2,norm=1}"}) {
    INFO(fields);
    World w(fields);
    const Batch all = pairs(2);
    const Matrix<double> whole = w.logits(all);
    DecoderState state;
    Index done = 0;
    for (const Index n : {2, 1, 1}) {  // of the first sequence; the second has one row more
      Batch part;
      for (const Index q : {0, 1}) {
        const Index from = all.start[std::size_t(q)] + done;
        const Index rows_now = n + (q == 1 && done + n == 4);
        for (Index t = from; t < from + rows_now; ++t)
          part.token.push_back(all.token[std::size_t(t)]);
        part.start.push_back(part.tokens());
      }
      part.past = {done, done};
      if (done == 0)
        part.source = all.source;
      Decoder<double>::Tape tape;
      Matrix<double> last;
      w.model.infer({.batch = part}, tape, {}, &state, &last);
      done += n;
      for (const Index q : {0, 1}) {
        const Index row = all.start[std::size_t(q)] + done - 1 + (q == 1 && done == 4);
        for (Index v = 0; v < vocabulary; ++v)
          REQUIRE(std::abs(last(q, v) - whole(row, v)) <= 1e-10);
      }
    }
    Batch alone;
    alone.token = {2};
    alone.start = {0, 1};
    Decoder<double>::Tape tape;
    CHECK_THROWS_WITH(w.model.infer({.batch = alone}, tape),
                      "a model with an encoder of 2 layers reads a source for each sequence, and "
                      "none was given");
  }
}

TEST_CASE("padding of a source changes nothing, also where it is routed and full experts drop it") {
  for (const std::string& fields :
       {t5 + "capacity={count:tokens=2}", nllb + "router={softmax:k=2,norm=1}"}) {
    World w(fields);
    CHECK(apart(w.logits(pairs(0)), w.logits(pairs(4))) <= 1e-12);
  }
  // places of a whole batch: padding that is routed takes some
  World w(t5 + "capacity={count:tokens=3,scope=batch}");
  CHECK(apart(w.logits(pairs(0)), w.logits(pairs(4))) <= 1e-12);  // it stands behind the others
}

TEST_CASE("what follows a token in the source is seen, what follows in the decoder is not") {
  World w(t5);
  const Batch batch = pairs();
  const Matrix<double> before = w.logits(batch);
  Batch other = batch;
  other.token[3] = 5 - other.token[3] % 3;  // the last of the first sequence
  const Matrix<double> after = w.logits(other);
  for (Index t = 0; t < 3; ++t) {
    for (Index v = 0; v < vocabulary; ++v)
      CHECK(before(t, v) == after(t, v));
  }
  Batch source = *batch.source;
  source.token[5] = source.token[5] == 3 ? 4 : 3;
  other = batch;
  other.source = std::make_shared<const Batch>(source);
  const Matrix<double> moved = w.logits(other);
  CHECK(std::abs(moved(0, 0) - before(0, 0)) > 1e-6);
  for (Index t = 4; t < 9; ++t)  // the other sequence
    CHECK(moved(t, 0) == before(t, 0));
}

TEST_CASE("distances fall into the buckets of T5") {
  const BucketRule both{32, 128, true};
  const BucketRule before{32, 128, false};
  // what transformers' T5Attention._relative_position_bucket gives
  const std::vector<std::pair<Index, std::pair<int, int>>> expected = {
      {0, {0, 0}},      {-1, {1, 1}},    {-7, {7, 7}},    {-8, {8, 8}},    {-15, {9, 15}},
      {-16, {10, 16}},  {-20, {10, 17}}, {-31, {11, 21}}, {-64, {14, 26}}, {-127, {15, 31}},
      {-500, {15, 31}}, {1, {17, 0}},    {8, {24, 0}},    {40, {28, 0}},   {400, {31, 0}}};
  for (const auto& [apart_by, buckets] : expected) {
    INFO(apart_by);
    CHECK(bucket_of(both, apart_by) == buckets.first);
    CHECK(bucket_of(before, apart_by) == buckets.second);
  }
}

TEST_CASE(
    "places are counted in each sequence or in the batch, and a share of all rows in their place") {
  const auto router = make_router("softmax:k=1", 2);
  Batch batch = rows({0, 3, 7}, 0);
  RouterInput in{.scores = {Matrix<double>(7, 2)}, .batch = batch};
  for (Index t = 0; t < 7; ++t)
    in.scores[0](t, 0) = 1 + double((t * 3) % 7);  // all want the first; the surest are 2, 4, 6
  const auto kept = [&](const char* spec, bool training) {
    in.training = training;
    Routing r = router->route(in);
    make_capacity(spec)->apply(r, in, *router);
    std::vector<Index> out;
    for (Index t = 0; t < 7; ++t) {
      if (r.computed()(t, 0) >= 0)
        out.push_back(t);
    }
    return out;
  };
  CHECK(kept("count:tokens=2", false) == std::vector<Index>{0, 1, 3, 4});
  CHECK(kept("count:tokens=3,scope=batch", false) == std::vector<Index>{0, 1, 2});
  CHECK(kept("count:tokens=3,scope=batch,order=prob", false) == std::vector<Index>{2, 4, 6});
  CHECK(kept("count:tokens=3,scope=batch,eval_fraction=0.2", false) == std::vector<Index>{0, 1});
  CHECK(kept("count:tokens=3,scope=batch,eval_fraction=0.2", true) == std::vector<Index>{0, 1, 2});
}

TEST_CASE("an encoder-decoder that cannot be is refused in a sentence") {
  const auto refused = [](const Changes& changes, const std::string& sentence) {
    CHECK_THROWS_WITH(config_of(t5, changes), Catch::Contains(sentence));
  };
  refused({{"mixer", "attention"}},
          "layer 0 is of the encoder, where a token sees those behind it too");
  refused({{"encoder_layers", "4"}}, "encoder_layers=4 leaves the decoder none of the 4 layers");
  refused({{"norm_after", "1"}}, "a decoder with an encoder has three");
  refused({{"gate_residual", "1"}}, "encoder and decoder have different tokens");
  refused({{"balance", "concat:coef=0.1"}}, "encoder and decoder have different tokens");
  refused({{"start_token", "11"}}, "start_token or pad_token is 11 and the vocabulary has 11");
  refused({{"mixer", "plain_attention:buckets=2,distance=5"}}, "leave no bucket");
  refused({{"mixer", "plain_attention:buckets=8,distance=5;plain_attention:buckets=8,distance=9"}},
          "shares those of layer 0");
}
