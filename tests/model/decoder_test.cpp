// Whole tiny models in f64: the gradient of every kind of parameter against central differences,
// decoding with a state against reading all at once, what padding may touch, what training must be
// able to do.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/mixers/attention.h"
#include "lib/router/router.h"
#include "tests/model/differences.h"

using namespace moe;

namespace {

constexpr int vocabulary = 11;
const std::string least = "custom:vocabulary=11,hidden=8,heads=2,width=5,experts=4,context=16,";

Batch batch_of(bool padded) {
  Batch b;
  b.start = {0, 5, 12};
  for (int t = 0; t < 12; ++t) {
    b.token.push_back(t * 7 % vocabulary);
    b.target.push_back((t * 5 + 3) % vocabulary);
  }
  b.target[2] = -1;
  if (padded) {
    b.valid.assign(12, 1);
    b.valid[4] = b.valid[10] = b.valid[11] = 0;
  }
  return b;
}

struct World {
  explicit World(const std::string& fields, double spread = 0.5)
      : backend(make_reference<double>()), model(model_config(least + fields), *backend) {
    Rng rng(3);
    const double norm = model.config().norm == NormKind::rms_plus_one ? 0 : 1;
    for (auto* p : model.parameters()) {
      const double centre = p->name().ends_with("norm") ? norm : 0;
      for (double& v : p->mutate().flat())
        v = centre + spread * rng.normal();
    }
    int i = 0;
    for (auto* m : model.moe_layers()) {
      for (double& v : m->router().correction_bias())
        v = 0.05 * double(i++ % 3);
    }
  }
  std::unique_ptr<Backend<double>> backend;
  Decoder<double> model;
};

// Twelve numbers of a parameter.
void check_parameter(World& w, Parameter<double>& p, const Batch& batch,
                     const Decoder<double>::Tape& tape) {
  const test::Compared c = test::compare_with_differences(w.model, p, 12, batch, tape);
  INFO(p.name());
  CHECK(c.tried >= std::min<Index>(2, p.size()));
  CHECK(c.largest > 0);  // a parameter that nothing depends on would agree with anything
}

// Matrices of Fourier embedding, indexers and scales of layers.
bool is_untrained(const std::string& name) {
  return name.starts_with("fourier_") || name.find(".index_") != name.npos ||
         name.ends_with("layer_scale");
}

void check_gradients(const std::string& fields, bool padded = false) {
  INFO(fields);
  World w(fields);
  const Batch batch = batch_of(padded);
  Decoder<double>::Tape tape;
  test::loss_of(w.model, batch, tape);
  w.model.want_grads();
  w.model.backward({.batch = batch, .training = true}, tape);
  for (Parameter<double>* p : w.model.parameters()) {
    if (p->trained())
      check_parameter(w, *p, batch, tape);
    else
      CHECK((p->grad().empty() && is_untrained(p->name())));
  }
}

}  // namespace

TEST_CASE("the gradient of a whole model agrees with central differences") {
  check_gradients("layers=2,kv_heads=1,balance={switch:coef=0.3;z:coef=0.1}");
  check_gradients(
      "layers=2,kv_heads=1,qk_norm=head,window=3,router={sigmoid:k=2,bias=1,groups=2,topk_groups=1,"
      "scale=2.5},shared_width=5,dense_layers=1,balance={bias;switch:coef=0.1,scope=sequence}",
      true);
  check_gradients("layers=2,qk_norm=full,tied=1,shared_width=3,shared_gate=1,router_bias=1", true);
  check_gradients(
      "layers=4,moe_every=2,activation=gelu,expert_bias=1,router={softmax:k=1,norm=0,jitter=0.1},"
      "capacity={position:factor=1.25}");
  check_gradients("layers=1,kv_heads=1,dense=1,tied=1");
  check_gradients(
      "layers=3,kv_heads=1,gate_residual=1,expert_types=ffn*2;copy;constant,zc_tau=0.5,balance={"
      "switch:coef=0.3}",
      true);
  check_gradients("layers=2,kv_heads=1,widths=5;3*2;1,router={cosine:k=2,dim=3}");
  check_gradients("layers=2,kv_heads=1,router={soft:slots=2},balance=none", true);
  check_gradients(
      "layers=3,kv_heads=1,router={softmax:k=2,norm=0},balance={concat:coef=0.5;z:coef=0.1}", true);
  check_gradients(
      "layers=4,moe_every=2,kv_heads=1,router={sigmoid:k=2},balance={switch:coef=0.3,layers=mean;"
      "concat:coef=0.4}");
}

TEST_CASE("the loss over all layers is one loss, and the mean over layers a share of their sum") {
  const Batch batch = batch_of(true);
  const auto run = [&](const std::string& balance, std::vector<double>& gradient) {
    World w("layers=2,kv_heads=1,router={softmax:k=2,norm=0},balance={" + balance + "}");
    Decoder<double>::Tape tape;
    const double all = test::loss_of(w.model, batch, tape) - tape.loss;
    w.model.want_grads();
    w.model.backward({.batch = batch, .training = true}, tape);
    gradient.clear();
    for (auto* p : w.model.parameters()) {
      if (p->name().find("router") != p->name().npos)
        gradient.insert(gradient.end(), p->grad().flat().begin(), p->grad().flat().end());
    }
    // by hand, from what the layers chose and believed
    std::vector<double> n(4, 0.0);
    std::vector<double> p(4, 0.0);
    double apart = 0;
    double together = 0;
    for (auto& block : tape.block) {
      std::vector<double> mine(4, 0.0);
      std::vector<double> mean(4, 0.0);
      for (const int e : block.moe->routing.expert.flat()) {
        if (e >= 0) {
          n[std::size_t(e)] += 1;
          mine[std::size_t(e)] += 1;
        }
      }
      for (Index t = 0; t < 12; ++t) {
        for (std::size_t e = 0; e < 4; ++e) {
          p[e] += block.moe->probability(t, Index(e));
          mean[e] += block.moe->probability(t, Index(e));
        }
      }
      for (std::size_t e = 0; e < 4; ++e)
        apart += 4 * mine[e] / 18 * mean[e] / 9;
    }
    for (std::size_t e = 0; e < 4; ++e)
      together += 4 * n[e] / 18 * p[e] / 18;
    CHECK(all == Approx(balance.find("concat") != balance.npos ? together
                        : balance.find("mean") != balance.npos ? apart / 2
                                                               : apart)
                     .epsilon(1e-12));
    CHECK(together != Approx(apart));
  };
  std::vector<double> concat, sum, mean, none;
  run("concat:coef=1", concat);
  run("switch:coef=1", sum);
  run("switch:coef=1,layers=mean", mean);
  CHECK(concat != sum);
  World w("layers=2,kv_heads=1,router={softmax:k=2,norm=0}");
  Decoder<double>::Tape tape;
  test::loss_of(w.model, batch, tape);
  w.model.want_grads();
  w.model.backward({.batch = batch, .training = true}, tape);
  for (auto* p : w.model.parameters()) {
    if (p->name().find("router") != p->name().npos)
      none.insert(none.end(), p->grad().flat().begin(), p->grad().flat().end());
  }
  for (std::size_t i = 0; i < none.size(); ++i)
    CHECK(mean[i] - none[i] == Approx((sum[i] - none[i]) / 2).margin(1e-12));
}

TEST_CASE("the gradient of every switch of published models agrees with central differences") {
  check_gradients(
      "layers=2,kv_heads=1,qkv_bias=1,o_bias=1,sinks=1,window=3,full_layers=1,router_bias=1,expert_"
      "bias=1,activation=swiglu_clamped,rope={yarn:factor=4,original=8,truncate=0}",
      true);
  check_gradients(
      "layers=2,norm=layer_bias,output_bias=1,qkv_bias=1,o_bias=1,rope={longrope:original=4,short="
      "1;1.5,long=2;3,long_scale=1.2}");
  check_gradients("layers=2,norm=layer,clip_qkv=0.4,kv_heads=1", true);
  check_gradients(
      "layers=2,q_rank=3,kv_rank=4,nope_dim=2,rope_dim=2,value_dim=3,kv_heads=2,rope_interleaved=1,"
      "qkv_bias=1,attention_scale=0.7,router={sigmoid:k=2,bias=1,groups=2,topk_groups=1},dense_at="
      "1",
      true);
  check_gradients("layers=1,kv_rank=4,nope_dim=2,rope_dim=2,value_dim=1,kv_heads=2,tied=1");
  check_gradients(
      "layers=2,qk_norm=head_after,rotary_dim=2,embedding_scale=3,residual_scale=0.4,logit_divisor="
      "2,attention_scale=0.3,tied=1",
      true);
  check_gradients("layers=2,qk_norm=head,head_dim=6,kv_heads=1,rope={fourier:pairs=2,by_head=1}");
  check_gradients("layers=1,rope={fourier:by_head=0},router={softmax:k=2,groups=2,group_mode=one}",
                  true);
  check_gradients(
      "layers=2,qk_norm=length_after,no_rope_layers=1,chunk=3,stretch_floor=2,stretch_scale=0.3,"
      "rope_interleaved=1,rope={llama3:factor=4,original=16},shared_width=3,weight_on_input=1,"
      "router={sigmoid:k=1,norm=0}");
}

TEST_CASE(
    "the gradient of a model with norms behind its branches agrees with central differences") {
  check_gradients("layers=2,norm_after=1,qk_norm=full,kv_heads=1", true);
  check_gradients("layers=2,norm_after=1,norm=layer_bias,dense=1,residual_scale=0.4");
  check_gradients("layers=2,norm_after=1,mixer={short_conv;attention},dense_at=1");
}

TEST_CASE("the gradient of a model with norms on both sides agrees with central differences") {
  check_gradients("layers=2,norm_both=1,qk_norm=head,kv_heads=1", true);
  check_gradients("layers=2,norm_both=1,norm=layer_bias,dense_at=1,residual_scale=0.4");
  check_gradients("layers=2,moe_norm_after=1,dense_at=0,shared_width=3");
  check_gradients("layers=2,norm=rms_plus_one,qk_norm=head,kv_heads=1", true);
}

TEST_CASE("the gradient of gated attention agrees with central differences") {
  check_gradients("layers=2,attention_gate=full,value_dim=3,kv_heads=1", true);
  check_gradients("layers=2,attention_gate=head,sinks=1,value_scale=0.6,value_dim=5");
  check_gradients("layers=2,attention_gate=query,norm=rms_plus_one,qk_norm=head,qkv_bias=1");
  check_gradients(
      "layers=1,attention_gate=head,q_rank=3,kv_rank=4,nope_dim=2,rope_dim=2,value_dim=3,"
      "kv_heads=2,q_latent_scale=1.7,kv_latent_scale=0.6,stretch_turned=1,stretch_floor=2,"
      "stretch_scale=0.3",
      true);
}

TEST_CASE("the gradient of attention that differs by layer agrees with central differences") {
  check_gradients(
      "layers=3,kv_heads=1,window=3,full_layers=1,mixer={attention:kv_heads=2,sinks=1,rope_theta="
      "50;attention}",
      true);
  check_gradients(
      "layers=2,values_from_keys=1,value_norm=1,qk_norm=head,attention_scale=1,mixer={attention;"
      "attention:head_dim=6,values_from_keys=0,rope={linear:factor=2}}");
}

TEST_CASE("the gradient of a dense feed-forward beside experts agrees with central differences") {
  check_gradients(
      "layers=2,norm_both=1,dense_beside=normed,dense_width=6,expert_scale=1,layer_scale=1,"
      "logit_cap=2,activation=geglu_tanh,rope={proportional:share=0.5}",
      true);
  check_gradients("layers=4,dense_beside=shortcut,dense_at=1;3,dense_width=6", true);
}

TEST_CASE("the gradient of attention to chosen keys agrees with central differences") {
  check_gradients(
      "layers=2,q_rank=3,kv_rank=4,nope_dim=2,rope_dim=2,value_dim=3,kv_heads=2,index_topk=2,"
      "index_heads=2,index_dim=3,index_shared=1",
      true);
}

TEST_CASE("an indexer that may choose every key changes nothing") {
  const std::string latent =
      "layers=2,q_rank=3,kv_rank=4,nope_dim=2,rope_dim=2,value_dim=3,kv_heads=2";
  World all(latent);
  World some(latent + ",index_topk=2,index_heads=2,index_dim=3");
  World every(latent + ",index_topk=7,index_heads=2,index_dim=3");
  const auto loss = [&](World& w) {
    for (auto* p : w.model.parameters()) {
      for (auto* q : all.model.parameters()) {
        if (p->name() == q->name())
          p->set(q->value());
      }
    }
    Decoder<double>::Tape tape;
    return test::loss_of(w.model, batch_of(false), tape);
  };
  CHECK(loss(every) == Approx(loss(all)).epsilon(1e-12));
  CHECK(std::abs(loss(some) - loss(all)) > 1e-4);
}

TEST_CASE("the gradient of a model with several mixers agrees with central differences") {
  check_gradients("layers=2,kv_heads=1,mixer={short_conv}", true);
  check_gradients(
      "layers=3,kv_heads=1,mixer={short_conv:kernel=2,bias=1;attention},dense_layers=1");
  check_gradients("layers=2,mixer={short_conv;attention},rope={fourier:by_head=0}");
}

TEST_CASE("the gradient of a model of layers with one part each agrees with central differences") {
  const std::string layers =
      "layers=4,kv_heads=1,rope=none,mixer={short_conv;none;attention;none},dense_width=5,"
      "activation=relu2,shared_width=3,latent_width=3,";
  check_gradients(layers + "feed={none;moe;none;dense},router={sigmoid:k=2,bias=1,scale=2.5}",
                  true);
  check_gradients(layers + "feed={none;moe},router={sigmoid:k=2,eps=0.1},gate_residual=1");
  check_gradients(
      "layers=2,dense=1,norm=layer_bias,mixer=short_conv,feed={rwkv_channel:version=4,width=5},"
      "embedding_norm=1,halve_every=1,embedding_scale=2");
  check_gradients(
      "layers=2,kv_heads=1,mixer={short_conv;attention},residual_normed=1,attention_alpha=1.5,"
      "attention_beta=0.7,recurrent_alpha=0.8,recurrent_beta=1.2,feed_alpha=0.6,feed_beta=1.1");
}

TEST_CASE("the gradient of several residual streams agrees with central differences") {
  check_gradients("layers=2,kv_heads=1,streams=3,stream_rounds=3,swiglu_limit=0.6,shared_width=3",
                  true);
  check_gradients("layers=3,streams=1,stream_rounds=1,norm=layer_bias,dense_layers=1,tied=1");
  check_gradients("layers=2,streams=2,mixer={short_conv;none},feed={moe;rwkv_channel}");
  check_gradients(
      "layers=3,streams=2,mixer={compressed_attention:window=3;compressed_attention:rate=3,window="
      "2,"
      "rope_dim=2;compressed_attention:rate=2,overlap=1,topk=1,window=2,groups=2,rope_dim=2,"
      "index_dim=2},router={sqrtsoftplus:k=2,bias=1,scale=1.5},table_layers=0+2,"
      "balance={bias;switch:coef=0.1;concat:coef=0.2}",
      true);
}

TEST_CASE("gradients add up over batches and backward frees what only it needed") {
  World w("layers=2,kv_heads=1");
  const Batch batch = batch_of(false);
  w.model.want_grads();
  const auto step = [&](double scale) {
    Decoder<double>::Tape tape;
    w.model.forward({.batch = batch, .loss_scale = scale}, tape);
    w.model.backward({.batch = batch, .loss_scale = scale}, tape);
    CHECK(tape.block[0].normed.empty());
    CHECK(tape.block[1].moe->slots.out.empty());
    CHECK(tape.block[1].moe->routing.expert.rows() == 12);
  };
  step(1);
  std::vector<double> once;
  for (auto* p : w.model.parameters())
    once.insert(once.end(), p->grad().flat().begin(), p->grad().flat().end());
  w.model.clear_grads();
  step(0.25);
  step(0.75);
  std::size_t i = 0;
  for (auto* p : w.model.parameters()) {
    for (const double g : p->grad().flat())
      REQUIRE(g == Approx(once[i++]).margin(1e-13));
  }
}

TEST_CASE("decoding with a state gives the logits of reading everything at once") {
  for (const std::string fields :
       {"",
        "window=3,qk_norm=head,shared_width=4",
        "qk_norm=full,tied=1,router={sigmoid:k=2,bias=1}",
        "dense=1",
        "gate_residual=1,router={softmax:k=2,norm=0}",
        "sinks=1,window=3,full_layers=1,qkv_bias=1,layers=2",
        "kv_rank=4,nope_dim=2,rope_dim=2,value_dim=3,kv_heads=2",
        "chunk=3,no_rope_layers=1,stretch_floor=2,stretch_scale=0.3,layers=2",
        "rope={fourier:pairs=1}",
        "mixer={short_conv}",
        "norm_after=1,qk_norm=full",
        "layers=3,mixer={short_conv:bias=1;attention}",
        "norm_both=1,attention_gate=full,value_dim=3",
        "attention_gate=query,norm=rms_plus_one",
        "norm_both=1,dense_beside=normed,dense_width=6,expert_scale=1,layer_scale=1,logit_cap=2",
        "layers=4,dense_beside=shortcut,dense_at=1;3,dense_width=6,expert_types=ffn*3;copy",
        "q_rank=3,kv_rank=4,nope_dim=2,rope_dim=2,value_dim=3,kv_heads=2,index_topk=2,"
        "index_heads=2,index_dim=3,index_shared=1",
        "values_from_keys=1,value_norm=1,qk_norm=head",
        "layers=3,window=3,full_layers=1,mixer={attention:kv_heads=1,sinks=1;attention}",
        "kv_rank=4,nope_dim=2,rope_dim=2,value_dim=3,kv_heads=2,attention_gate=head,"
        "stretch_turned=1,stretch_floor=2,stretch_scale=0.3",
        "layers=4,rope=none,mixer={mamba2:heads=2,head_dim=3,state=2;none;attention;none},"
        "feed={none;moe},activation=relu2,latent_width=3",
        "layers=2,dense=1,norm=layer_bias,mixer={rwkv4},feed={rwkv_channel:version=4},"
        "embedding_norm=1,halve_every=1",
        "layers=2,mixer={lightning:heads=2,head_dim=2;attention},residual_normed=1,"
        "recurrent_alpha=0.8,feed_beta=1.1"}) {
    World w(fields);
    const Batch all = batch_of(false);
    DecoderState state;
    std::vector<Index> past{0, 0};
    // tokens of each sequence in turn
    for (const auto& [first, second] : {std::pair{3, 2}, {1, 1}, {1, 3}, {0, 1}}) {
      Batch part, whole;
      for (const Index q : {0, 1}) {
        const Index n = q ? second : first;
        const Index from = all.start[std::size_t(q)];
        for (Index t = 0; t < past[std::size_t(q)] + n; ++t) {
          whole.token.push_back(all.token[std::size_t(from + t)]);
          if (t >= past[std::size_t(q)])
            part.token.push_back(all.token[std::size_t(from + t)]);
        }
        whole.start.push_back(whole.tokens());
        part.start.push_back(part.tokens());
      }
      part.past = past;
      Decoder<double>::Tape a, b;
      Matrix<double> stepwise, at_once;
      w.model.infer({.batch = part}, a, {}, &state, &stepwise);
      w.model.infer({.batch = whole}, b, {}, nullptr, &at_once);
      for (Index q = 0; q < 2; ++q) {
        for (Index v = 0; v < vocabulary && (q ? second : first) > 0; ++v)
          REQUIRE(std::abs(stepwise(q, v) - at_once(q, v)) <= 1e-10);
      }
      past[0] += first;
      past[1] += second;
    }
    CHECK(state.start == std::vector<Index>{0, 5, 12});
    Batch wrong;
    wrong.token = {1};
    wrong.start = {0, 1};
    Decoder<double>::Tape t;
    CHECK_THROWS_WITH(w.model.infer({.batch = wrong}, t, {}, &state),
                      "a state of 2 sequences was given a batch of 1");
  }
}

TEST_CASE("one sequence decoded a token at a time has room to grow and the same logits") {
  for (const std::string fields : {"", "kv_rank=4,nope_dim=2,rope_dim=2,value_dim=3,kv_heads=2"}) {
    World w(fields);
    DecoderState state;
    Batch whole;
    whole.start = {0, 0};
    std::vector<Index> moved;  // the lengths at which keys and values got more room
    for (Index t = 0, room = 0; t < 11; ++t) {
      Batch part;
      part.token = {int(t * 7 % vocabulary)};
      part.start = {0, 1};
      part.past = {t};
      whole.token.push_back(part.token[0]);
      whole.start[1] = t + 1;
      Decoder<double>::Tape a, b;
      Matrix<double> stepwise, at_once;
      w.model.infer({.batch = part}, a, {}, &state, &stepwise);
      w.model.infer({.batch = whole}, b, {}, nullptr, &at_once);
      for (Index v = 0; v < vocabulary; ++v)
        REQUIRE(std::abs(stepwise(0, v) - at_once(0, v)) <= 1e-10);
      const Array<double>& keys = static_cast<KeyValues<double>&>(*state.layer[0]).k;
      if (keys.rows() != room) {
        moved.push_back(t + 1);
        room = keys.rows();
      }
    }
    CHECK(moved == std::vector<Index>{1, 2, 3, 5, 9});
  }
}

TEST_CASE("infer and forward agree on the loss, and the best guess is the largest logit") {
  World w("layers=2,kv_heads=1");
  const Batch batch = batch_of(true);
  Decoder<double>::Tape trained, inferred;
  w.model.forward({.batch = batch}, trained);
  std::vector<int> seen;
  w.model.infer({.batch = batch}, inferred,
                [&](int place, const MoeTape<double>& t, View<const double> x) {
                  seen.push_back(place);
                  CHECK(x.rows == 12);
                  CHECK(t.routing.expert == trained.block[std::size_t(place)].moe->routing.expert);
                });
  CHECK(seen == std::vector<int>{0, 1});
  CHECK(inferred.targets == 8);  // 12 less one without target, three padded
  CHECK(trained.loss == Approx(inferred.loss).epsilon(1e-14));
  CHECK(trained.token_loss == inferred.token_loss);
  CHECK(inferred.token_loss(0, 2) == 0);
  CHECK(inferred.token_loss(0, 11) == 0);
  // the last logits of the first sequence, whose last row is padding, are those of row 3
  Batch first = batch;
  Matrix<double> logits;
  Decoder<double>::Tape t;
  w.model.infer({.batch = first}, t, {}, nullptr, &logits);
  CHECK(inferred.predicted(0, 3) ==
        std::ranges::max_element(logits.row(0)) - logits.row(0).begin());
}

TEST_CASE("padding changes nothing for the tokens before it") {
  World w("layers=2,kv_heads=1,shared_width=4");
  Batch plain = batch_of(false);
  Batch padded;
  padded.start = {0};
  for (const Index q : {0, 1}) {
    for (Index t = plain.start[std::size_t(q)]; t < plain.start[std::size_t(q) + 1]; ++t) {
      padded.token.push_back(plain.token[std::size_t(t)]);
      padded.target.push_back(plain.target[std::size_t(t)]);
      padded.valid.push_back(1);
    }
    for (int i = 0; i < 2; ++i) {
      padded.token.push_back(1);
      padded.target.push_back(1);
      padded.valid.push_back(0);
    }
    padded.start.push_back(padded.tokens());
  }
  Decoder<double>::Tape a, b;
  w.model.infer({.batch = plain}, a);
  w.model.infer({.batch = padded}, b);
  CHECK(a.targets == b.targets);
  CHECK(a.loss == Approx(b.loss).epsilon(1e-14));
  padded.valid[5] = 0;
  padded.valid[6] = 1;
  CHECK_THROWS_WITH(w.model.infer({.batch = padded}, b), "row 6 follows padding inside sequence 0");
  plain.token[3] = vocabulary;
  CHECK_THROWS_WITH(w.model.infer({.batch = plain}, a), "token 11 is outside the vocabulary of 11");
}

TEST_CASE("a nano model learns a fixed batch by heart") {
  const auto backend = make_reference<float>();
  Decoder<float> model(model_config("nano:vocabulary=32,hidden=32,width=32,context=16"), *backend);
  model.initialise(1);
  model.want_grads();
  Batch batch;
  Rng rng(2);
  for (const Index end : {16, 32}) {
    while (batch.tokens() < end)
      batch.token.push_back(int(rng.below(32)));
    batch.start.push_back(end);
  }
  for (Index t = 0; t < 32; ++t)
    batch.target.push_back(t % 16 == 15 ? -1 : batch.token[std::size_t(t) + 1]);
  std::vector<std::pair<Array<float>, Array<float>>> moments;
  for (auto* p : model.parameters()) {
    moments.emplace_back(Array<float>::zeros(*backend, p->value().rows, p->value().cols),
                         Array<float>::zeros(*backend, p->value().rows, p->value().cols));
  }
  double first = 0;
  double last = 0;
  for (int step = 1; step <= 60; ++step) {
    Decoder<float>::Tape tape;
    Rng draws(9, std::uint64_t(step));
    const Pass pass{.batch = batch, .training = true, .rng = &draws};
    model.forward(pass, tape);
    model.backward(pass, tape);
    (step == 1 ? first : last) = tape.loss;
    std::size_t i = 0;
    for (auto* p : model.parameters()) {
      backend->adamw(p->mutate(), p->grad(), moments[i].first.view(), moments[i].second.view(),
                     {.lr = 1e-2, .step = step});
      ++i;
    }
    model.clear_grads();
  }
  CHECK(first == Approx(std::log(32.0)).epsilon(0.05));
  CHECK(last < 0.1);
}

TEST_CASE("initial weights depend on the seed and the name alone, and follow the rule") {
  const auto backend = make_reference<float>();
  const auto values = [&](Decoder<float>& m, const std::string& name) {
    for (auto* p : m.parameters()) {
      if (p->name() == name)
        return p->to_host();
    }
    FAIL(name);
    return Matrix<float>{};
  };
  Decoder<float> a(model_config("nano"), *backend);
  Decoder<float> twin(model_config("nano:dense=1,layers=3"), *backend);
  Decoder<float> other(model_config("nano:init=depth_scaled"), *backend);
  a.initialise(7);
  twin.initialise(7);
  other.initialise(8);
  CHECK(values(a, "layers.1.attention.q") == values(twin, "layers.1.attention.q"));
  CHECK_FALSE(values(a, "embedding") == values(other, "embedding"));
  CHECK(values(a, "layers.0.feed_norm") == Matrix<float>(1, 64, 1.0f));
  const auto spread = [](const Matrix<float>& m) {
    double sum = 0;
    for (const float v : m.flat())
      sum += double(v) * v;
    return std::sqrt(sum / double(m.size()));
  };
  // a mixer's matrices follow the model's rule, and what it says of its own is its own
  Decoder<float> mixed(model_config("nano:mixer={short_conv:kernel=4;attention},init=layerwise"),
                       *backend);
  mixed.initialise(7);
  CHECK(spread(values(mixed, "layers.0.short_conv.in_proj")) == Approx(0.01 * 0.987).epsilon(0.04));
  CHECK(spread(values(mixed, "layers.1.attention.o")) == Approx(0.01 * 0.987).epsilon(0.06));
  CHECK(spread(values(mixed, "layers.1.moe.experts.up")) == Approx(0.02 * 0.987).epsilon(0.02));
  CHECK(spread(values(mixed, "layers.0.short_conv.conv")) == Approx(0.5 * 0.987).epsilon(0.2));
  // cut at 3 standard deviations
  CHECK(spread(values(a, "layers.0.moe.experts.up")) == Approx(0.02 * 0.987).epsilon(0.02));
  CHECK(spread(values(other, "layers.0.moe.experts.down")) == Approx(0.01 * 0.987).epsilon(0.02));
}
