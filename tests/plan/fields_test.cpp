// One model, counted three ways: what the built decoder holds, what a dry run says, what a plan
// says. Every field that a spec can set is changed once, so that a field added later must say here
// what it does to the sizes.
#include <catch2/catch.hpp>

#include <cmath>
#include <map>
#include <set>

#include "lib/core/text.h"
#include "lib/model/config.h"
#include "lib/model/cost.h"
#include "lib/model/decoder.h"
#include "lib/plan/cost.h"
#include "lib/plan/describe.h"
#include "lib/router/mixing.h"
#include "lib/router/router.h"
#include "lib/router/token_table.h"

using namespace moe;

namespace {

const std::string base =
    "vocabulary=40,hidden=32,layers=4,heads=4,kv_heads=2,width=12,experts=6,context=64";
const std::string latent = "kv_heads=4,kv_rank=8,nope_dim=6,rope_dim=4,value_dim=5";
const std::string pair = "mixer={plain_attention},encoder_layers=2";
const std::string mixed = "expert_types=ffn*3;constant;copy;zero";

// Latent attention but for one of its sizes.
std::string latent_without(const std::string& field) {
  std::string out;
  for (const std::string& f : split(latent, ','))
    out += f.starts_with(field + "=") ? "" : (out.empty() ? "" : ",") + f;
  return out;
}

struct Change {
  std::string field, value;
  bool resizes;              // whether parameters are more or fewer
  std::string companions{};  // without which the field is refused or means nothing
  std::string before{};      // fields of the model it is compared with; empty = the companions
};

const std::vector<Change> changes{
    {"vocabulary", "41", true},
    {"hidden", "48", true},
    {"layers", "5", true},
    {"heads", "8", true, "head_dim=8"},
    {"kv_heads", "4", true},
    {"head_dim", "16", true},
    {"context", "128", false},
    {"rope_theta", "500", false},
    {"norm_eps", "1e-6", false},
    {"final_norm_eps", "1e-4", false},
    {"tied", "1", true},
    {"qk_norm", "head", true},
    {"qk_norm", "full", true},
    {"qk_norm", "head_after", true},
    {"qk_norm", "length_after", false},
    {"window", "16", false},
    {"chunk", "16", false},
    {"full_layers", "0;2", false, "window=16"},
    {"no_rope_layers", "1", false, "qk_norm=head_after"},
    {"rope", "{linear:factor=2}", false},
    {"rope", "{fourier:pairs=3}", true},
    {"rope", "{fourier:pairs=3,by_head=1}", true},
    {"rotary_dim", "4", false},
    {"rope_interleaved", "1", false},
    {"rope_axes", "sections:1+1+2", false},
    {"stretch_floor", "8", false, "no_rope_layers=1"},
    {"stretch_scale", "0.1", false, "no_rope_layers=1,stretch_floor=8"},
    {"attention_scale", "0.5", false},
    {"clip_qkv", "4", false},
    {"qkv_bias", "1", true},
    {"qkv_bias", "1", true, latent},
    {"qkv_bias", "1", true, latent + ",q_rank=7"},
    {"o_bias", "1", true},
    {"o_bias", "1", true, latent},
    {"sinks", "1", true},
    {"sinks", "1", true, latent},
    {"q_rank", "7", true, latent},
    {"kv_rank", "9", true, latent_without("kv_rank"), latent},
    {"nope_dim", "7", true, latent_without("nope_dim"), latent},
    {"rope_dim", "6", true, latent_without("rope_dim"), latent},
    {"value_dim", "9", true, latent_without("value_dim"), latent},
    {"norm", "layer", false},
    {"norm", "layer_bias", true},
    {"norm", "rms_plus_one", false, "qk_norm=head"},
    {"norm_after", "1", false},
    {"norm_both", "1", true},
    {"moe_norm_after", "1", true, "dense_at=1"},
    {"attention_gate", "full", true},
    {"attention_gate", "query", true, "qkv_bias=1"},
    {"attention_gate", "head", true},
    {"attention_gate", "full", true, latent},
    {"attention_gate", "full", true, "value_dim=6"},
    {"value_dim", "6", true},
    {"value_dim", "6", true, "qkv_bias=1,o_bias=1"},
    {"value_scale", "0.5", false},
    {"values_from_keys", "1", true},
    {"values_from_keys", "1", true, "qkv_bias=1"},
    {"value_norm", "1", false},
    {"stretch_turned", "1", false, "stretch_floor=8,stretch_scale=0.1"},
    {"stretch_turned", "1", false, latent + ",stretch_floor=8,stretch_scale=0.1"},
    {"q_latent_scale", "2", false, latent + ",q_rank=7"},
    {"kv_latent_scale", "2", false, latent},
    {"no_rope_layers", "1", false, latent},
    {"dense_beside", "normed", true, "norm_both=1,dense_width=20"},
    {"dense_beside", "shortcut", true, "dense_at=1;3,dense_width=20"},
    {"expert_scale", "1", true},
    {"index_topk", "3", true, latent + ",q_rank=7,index_heads=2,index_dim=6", latent + ",q_rank=7"},
    {"index_heads", "3", true, latent + ",q_rank=7,index_topk=3,index_dim=6",
     latent + ",q_rank=7,index_topk=3,index_dim=6,index_heads=2"},
    {"index_dim", "8", true, latent + ",q_rank=7,index_topk=3,index_heads=2",
     latent + ",q_rank=7,index_topk=3,index_heads=2,index_dim=6"},
    {"index_interleaved", "1", false, latent + ",q_rank=7,index_topk=3,index_heads=2,index_dim=6"},
    {"index_shared", "1;3", true, latent + ",q_rank=7,index_topk=3,index_heads=2,index_dim=6"},
    {"layer_scale", "1", true},
    {"logit_cap", "30", false},
    {"swiglu_limit", "7", false},
    {"table_layers", "1", false},
    {"streams", "3", true},
    {"stream_rounds", "4", false, "streams=3"},
    {"stream_eps", "0.01", false, "streams=3"},
    {"signal", "{image:numbers=6,places=3;audio:numbers=5,places=2}", true},
    {"signal", "{video:numbers=6,places=3}", true, "tied=1"},
    {"projector", "mlp2x_gelu", true, "signal={image:numbers=6,places=3}"},
    {"projector", "mlp2x_gelu", true, "tied=1,signal={image:numbers=6,places=3}"},
    {"mixer", "{compressed_attention:rate=4,overlap=1,topk=3}", true},
    {"rope", "{proportional:share=0.5}", false},
    {"mixer", "{attention:kv_heads=1;attention}", true},
    {"mixer", "{attention:head_dim=12;attention}", true, "qk_norm=head"},
    {"mixer", "{attention:value_dim=3;attention}", true},
    {"mixer", "{attention:window=16*3;attention}", false},
    {"mixer", "{attention:rotary_dim=4;attention}", false},
    {"mixer", "{attention:rope_theta=300;attention}", false},
    {"mixer", "{attention:rope={linear:factor=2};attention}", false},
    {"mixer", "{attention:sinks=1;attention}", true},
    {"mixer", "{attention:values_from_keys=1;attention}", true},
    {"mixer", "{attention:sinks=1,window=16*3;attention}", true, latent},
    {"output_bias", "1", true},
    {"output_bias", "1", true, "tied=1"},
    {"embedding_scale", "2", false},
    {"residual_scale", "0.5", false},
    {"logit_divisor", "2", false},
    {"dense_layers", "1", true, "dense_width=20"},
    {"moe_every", "2", true},
    {"dense_at", "1;3", true},
    {"dense_width", "20", true, "dense_layers=1"},
    {"dense", "1", true},
    {"init", "switch", false},
    {"experts", "7", true},
    {"width", "16", true},
    {"widths", "8;12*4;20", true},
    {"widths", "8;12*4;20", true, "expert_bias=1"},
    {"expert_types", "ffn*3;constant;copy;zero", true},
    {"expert_types", "ffn*3;constant*3", true, "widths=8;12*4;20"},
    {"zc_tau", "0.5", false, mixed},
    {"zc_capacity", "1", false, mixed + ",capacity={position:factor=1.25}"},
    {"zc_exclude_zero", "1", false, mixed},
    {"gate_residual", "1", true},
    {"gate_residual", "1", true, "moe_every=2"},
    {"router", "{sigmoid:k=3,bias=1}", false},
    {"router", "{random:k=2}", true},
    {"capacity", "{position:factor=1.25}", false},
    {"balance", "{switch:coef=0.1}", false},
    {"activation", "relu", true},
    {"activation", "geglu", false},
    {"shared_width", "20", true},
    {"shared_width", "20", true, "activation=relu,expert_bias=1"},
    {"shared_gate", "1", true, "shared_width=20"},
    {"router_bias", "1", true},
    {"expert_bias", "1", true, "dense_layers=1,shared_width=20"},
    {"moe_bias", "1", true},
    {"weight_on_input", "1", false},
    {"encoder_layers", "2", true, "mixer={plain_attention}"},
    {"encoder_layers", "1", true, "mixer={plain_attention},qkv_bias=1,o_bias=1,norm=layer_bias"},
    {"decoder_width", "20", true, pair},
    {"decoder_width", "20", true, pair + ",dense_at=1;3"},
    {"sinusoidal", "1", false, pair},
    {"route_padding", "1", false, pair},
    {"start_token", "3", false, pair},
    {"pad_token", "3", false, pair},
    {"dense_bias", "1", true, "dense_at=1"},
    {"encoder_embedding", "1", true, pair},
    {"encoder_embedding", "1", true, pair + ",tied=1"},
    {"mixer", "{plain_attention}", true},
    {"mixer", "{plain_attention:buckets=0}", true, "", "mixer={plain_attention}"},
    {"mixer", "{plain_attention:distance=64}", false, "", "mixer={plain_attention}"},
    {"mixer", "{short_conv;plain_attention}", true},
    {"mixer", "{short_conv}", true},
    {"mixer", "{short_conv:kernel=5}", true, "", "mixer={short_conv}"},
    {"mixer", "{short_conv:bias=1}", true, "", "mixer={short_conv}"},
    {"mixer", "{short_conv*3;attention}", true},
    {"mixer", "{short_conv;attention}", true, "rope={fourier:pairs=3}"},
    {"mixer", "{short_conv}", true, "rope={fourier:pairs=3}"},
    {"mixer", "{short_conv:kernel=2;attention}", true, latent},
    {"mixer", "{mamba2:state=8}", true},
    {"mixer", "{mamba2:state=8,heads=3,head_dim=10,kernel=3}", true, "", "mixer={mamba2:state=8}"},
    {"mixer", "{mamba2:state=8,groups=2,head_dim=8}", true, "",
     "mixer={mamba2:state=8,head_dim=8}"},
    {"mixer", "{mamba2:state=8,conv_bias=0}", true, "", "mixer={mamba2:state=8}"},
    {"mixer", "{mamba2:state=8,dt_min=0.01}", false, "", "mixer={mamba2:state=8}"},
    {"mixer", "{mamba2:state=8,head_dim=8;attention}", true},
    {"mixer", "{gdn:key_dim=8}", true},
    {"mixer", "{gdn:key_dim=8,layout=fused}", false, "", "mixer={gdn:key_dim=8}"},
    {"mixer", "{gdn:key_heads=2,value_heads=4,key_dim=5,value_dim=6,kernel=3}", true, "",
     "mixer={gdn:key_dim=8}"},
    {"mixer", "{kda:head_dim=8}", true},
    {"mixer", "{kda:head_dim=8,low_rank=0}", true, "", "mixer={kda:head_dim=8}"},
    {"mixer", "{kda:head_dim=8,lower_bound=-5}", false, "", "mixer={kda:head_dim=8}"},
    {"mixer", "{kda:heads=3,head_dim=5,kernel=2}", true, "", "mixer={kda:head_dim=8}"},
    {"mixer", "{lightning}", true},
    {"mixer", "{lightning:heads=3,head_dim=6}", true, "", "mixer={lightning}"},
    {"mixer", "{mamba1:state=8}", true},
    {"mixer", "{rwkv4}", true},
    {"mixer", "{rwkv4:width=20}", true, "", "mixer={rwkv4}"},
    {"mixer", "{rwkv6:head_dim=8}", true},
    {"mixer", "{rwkv6:head_dim=8,mix_rank=3,decay_rank=5}", true, "", "mixer={rwkv6:head_dim=8}"},
    {"mixer", "{rwkv7:head_dim=8}", true},
    {"mixer", "{rwkv7:head_dim=8,decay_rank=3,a_rank=4,v_rank=5,gate_rank=6}", true, "",
     "mixer={rwkv7:head_dim=8}"},
    {"mixer", "{attention;rwkv7:head_dim=8}", true},
    {"mixer", "{rwkv_channel}", true},
    {"mixer", "{rwkv_channel:version=6,width=20}", true, "", "mixer={rwkv_channel}"},
    {"mixer", "{rwkv_channel:version=4}", true, "", "mixer={rwkv_channel}"},
    {"mixer", "{mamba1:state=8,norms=1}", true, "", "mixer={mamba1:state=8}"},
    {"mixer", "{mamba1:inner=48,state=8,rank=3,kernel=3}", true, "", "mixer={mamba1:state=8}"},
    {"mixer", "{mamba1:state=8,conv_bias=0,proj_bias=1}", true, "", "mixer={mamba1:state=8}"},
    {"mixer", "{mamba2:state=8,proj_bias=1}", true, "", "mixer={mamba2:state=8}"},
    {"mixer", "{attention;none}", true},
    {"feed", "{moe;dense;none;rwkv_channel:width=20}", true},
    {"feed", "{dense;moe}", true, "dense_width=20"},
    {"rope", "none", false},
    {"embedding_norm", "1", true},
    {"embedding_norm", "1", true, "norm=layer_bias"},
    {"halve_every", "2", false},
    {"residual_normed", "1", false},
    {"attention_alpha", "1.5", false, "residual_normed=1"},
    {"attention_beta", "1.5", false, "residual_normed=1"},
    {"recurrent_alpha", "1.5", false, "residual_normed=1"},
    {"recurrent_beta", "1.5", false, "residual_normed=1"},
    {"feed_alpha", "1.5", false, "residual_normed=1"},
    {"feed_beta", "1.5", false, "residual_normed=1"},
    {"latent_width", "8", true},
    {"latent_width", "8", true, "activation=relu,expert_bias=1,shared_width=20"},
};

// "hidden" -> "32" of "hidden=32,router={softmax:k=2}"; the later of two of a name counts.
std::map<std::string, std::string> fields_in(const std::string& text) {
  std::map<std::string, std::string> out;
  std::string field;
  int depth = 0;
  for (const char c : text + ",") {
    depth += (c == '{') - (c == '}');
    if (c != ',' || depth > 0) {
      field += c;
      continue;
    }
    if (!field.empty())
      out[field.substr(0, field.find('='))] = field.substr(field.find('=') + 1);
    field.clear();
  }
  return out;
}
std::map<std::string, std::string> fields_of(const ModelConfig& config) {
  const std::string spec = to_full_spec(config);
  return fields_in(spec.substr(spec.find(':') + 1));
}

// The base with other fields, which count where both say something.
std::string with(const std::string& fields) {
  std::string out;
  for (const auto& [field, value] : fields_in(base + "," + fields))
    out += concat(out.empty() ? "custom:" : ",", field, "=", value);
  return out;
}

// Numbers of a decoder's tensor that are used: narrow experts are padded with zeros, and experts
// that are not constant leave the room of a constant one empty.
double used(const Parameter<float>& p, const LayerConfig& c) {
  const std::string& name = p.name();
  if (name.find(".experts.") == name.npos)
    return double(p.size());
  const double each = double(p.size()) / c.experts;
  double sum = 0;
  for (int e = 0; e < c.experts; ++e) {
    if (name.find(".const_") != name.npos)
      sum += c.type_of(e) == ExpertKind::constant ? each : 0;
    else if (name.ends_with("down_bias"))
      sum += c.width_of(e) > 0 ? each : 0;
    else
      sum += each * double(c.width_of(e)) / double(c.width);
  }
  return sum;
}

struct Built {
  double parameters = 0, stored = 0, experts = 0, active = 0, products = 0, state = 0,
         touched_state = 0;
};

Built built(const ModelConfig& c) {
  const auto backend = make_reference<float>();
  Decoder<float> model(c, *backend);
  const LayerConfig& moe = model.config().moe;
  const auto router = make_router(moe.router, moe.experts);
  const double k = capability<Mixing>(*router) ? moe.experts : router->choices();
  Built out;
  for (const Parameter<float>* p : model.parameters()) {
    const double n = used(*p, moe);
    const bool indexes = p->name().find(".index_") != std::string::npos;  // nothing trains it
    const bool routed = p->name().find(".experts.") != std::string::npos;
    const double touched = routed ? n * k / moe.experts : n;
    const bool looked_up =
        (p->name() == "embedding" && !c.tied) || p->name() == "encoder_embedding";
    out.stored += double(p->size());
    out.parameters += n;
    out.experts += routed ? n : 0;
    out.active += touched;
    if (p->kind() == ParameterKind::matrix && (p->trained() || indexes) && !looked_up)
      out.products += 2 * touched;
    if (p->name().ends_with("const_vec"))
      out.products += 4 * touched;  // a1 x + a2 v
  }
  for (MoeLayer<float>* layer : model.moe_layers()) {
    const double biases = double(layer->router().correction_bias().size());
    auto* table = capability<TokenTable>(layer->router());
    out.state += biases + (table ? double(table->table().size()) : 0);
    out.touched_state += biases + (table ? double(layer->router().choices()) : 0);
  }
  return out;
}

// The three counts of a model, which must agree; returns its parameters.
Count agreed(const std::string& spec) {
  INFO(spec);
  const ModelConfig c = model_config(spec);
  const Built b = built(c);
  const ModelCost cost = cost_of(c, 1);
  CHECK(double(cost.parameters) == b.parameters);
  CHECK(double(cost.expert_parameters) == b.experts);
  CHECK(double(cost.weight_bytes) == 4 * b.stored);
  CHECK(double(cost.active_parameters) == Approx(b.active).margin(0.5));
  const Architecture a = plan::describe(c, spec);
  const ParameterCount p = parameters(a);
  CHECK(double(p.total) - b.state == b.parameters);
  CHECK(p.a0 - b.touched_state == Approx(b.active).epsilon(1e-12));
  const Flops work = flops(a, c.context);
  CHECK(work.products == Approx(b.products).epsilon(1e-12));
  CHECK(work.products + work.attention == Approx(cost.flops_per_token_forward).epsilon(1e-12));
  return cost.parameters;
}

}  // namespace

TEST_CASE("the built decoder, the dry run and the plan agree whatever a field says") {
  const auto usual = fields_of(model_config(with("")));
  std::set<std::string> seen;
  for (const Change& change : changes) {
    const std::string spec = with(concat(change.companions, ",", change.field, "=", change.value));
    INFO(spec);
    REQUIRE(usual.count(change.field) == 1);
    CHECK(fields_of(model_config(spec)).at(change.field) != usual.at(change.field));
    const Count before = agreed(with(change.before.empty() ? change.companions : change.before));
    CHECK((agreed(spec) != before) == change.resizes);
    seen.insert(change.field);
  }
  for (const auto& [field, value] : usual) {
    INFO("the field '" << field << "' is not among the changes of this test");
    CHECK(seen.count(field) == 1);
  }
}

TEST_CASE("the three counts agree for every preset and every router") {
  for (const Preset& p : model_presets())
    agreed(concat(p.name, ":hidden=32,heads=4,width=8,vocabulary=40"));
  for (const char* spec : {"tiny:qkv_bias=1,o_bias=1,sinks=1", "tiny:norm=layer_bias,output_bias=1",
                           "tiny:kv_rank=32,nope_dim=16,rope_dim=16,value_dim=16,kv_heads=4"}) {
    agreed(spec);
  }
  for (const auto& entry : routers().entries()) {
    for (const std::string& router : split(entry.examples, ' ')) {
      agreed(with(concat("router={", router, "}")));
      const auto made = make_router(router, 6);
      const std::vector<Projection> products = made->projections();
      if (products.empty() || capability<Mixing>(*made))
        continue;
      agreed(with(concat("router={", router, "},gate_residual=1")));
      if (!products[0].cosine)
        agreed(with(concat("router={", router, "},router_bias=1")));
    }
  }
}

TEST_CASE("a plan of our own models keeps as much as their layers look back on") {
  const auto cache = [](const std::string& spec) {
    return plan::cache(plan::describe(model_config(spec), spec), 256);
  };
  const double row = 2 * 2 * 32;  // keys and values of two heads of 32
  CHECK(cache("tiny").at_context == 4 * row * 256);
  CHECK(cache("tiny:window=32").at_context == 4 * row * 32);
  CHECK(cache("tiny:window=32,full_layers=1;3").at_context == 2 * row * (32 + 256));
  CHECK(cache("tiny:chunk=64,no_rope_layers=3").at_context == row * (3 * 64 + 256));
  const std::string narrow = "tiny:kv_rank=24,nope_dim=16,rope_dim=8,value_dim=16,kv_heads=4";
  CHECK(cache(narrow).per_token == 4 * (24 + 8));
  CHECK(cache(narrow).at_context == 4 * (24 + 8) * 256);
  CHECK(cache(narrow + ",window=32,full_layers=0").at_context == (24 + 8) * (256 + 3 * 32));

  const auto attention = [](const std::string& spec) {
    return flops(plan::describe(model_config(spec), spec), 256).attention;
  };
  CHECK(attention("tiny:window=32,full_layers=1;3") == 2 * 4.0 * 4 * 32 * (32 + 256));
  CHECK(attention(narrow) == 4 * 2.0 * 256 * 4 * (16 + 8 + 16));

  // a short convolution keeps the last inputs of each of 128 channels, however long the sequence
  const plan::Cache hybrid = plan::cache(
      plan::describe(model_config("tiny:mixer={short_conv:kernel=4;attention}"), ""), 256);
  CHECK(hybrid.per_token == 2 * row);
  CHECK(hybrid.state == 2 * 3 * 128);
  CHECK(attention("tiny:mixer={short_conv}") == 0);
}
