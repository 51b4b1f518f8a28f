// Options of published mixers in the words of ours, one function a mixer.
#include "lib/golden/golden_mixer_case.h"

#include <functional>
#include <map>
#include <set>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/golden/golden_case.h"

namespace moe {
namespace {

class Options {
 public:
  explicit Options(const GoldenFile& f) : file(f) {}

  std::int64_t integer(const char* name) {
    asked_.insert(name);
    return file.integer(name);
  }
  double real(const char* name) {
    asked_.insert(name);
    return file.real(name);
  }
  std::string text(const char* name) {
    asked_.insert(name);
    return file.text(name);
  }
  bool has(const char* name) const {
    return file.has_attribute(name);
  }
  Index rows(const std::string& dataset) const {
    return file.reals(dataset).dims.at(0);
  }
  void done() const {
    for (const std::string& name : file.attributes()) {
      if (!asked_.contains(name))
        throw Unsupported{concat("option '", name, "' of a mixer is not known")};
    }
  }

  const GoldenFile& file;

 private:
  std::set<std::string> asked_{"format", "format_version", "case",       "kind",
                               "mixer",  "seed",           "description"};
};

std::string mamba2(Options& o, GoldenMixerCase& c) {
  c.eps = o.real("eps");
  const double most = o.real("dt_max");
  return concat("mamba2:heads=", o.integer("num_heads"), ",head_dim=", o.integer("head_dim"),
                ",groups=", o.integer("n_groups"), ",state=", o.integer("state_size"),
                ",kernel=", o.integer("kernel"), ",norm_groups=", o.integer("norm_groups"),
                ",conv_bias=", o.integer("conv_bias"), ",dt_min=", o.real("dt_min"),
                ",dt_max=", most < 1e300 ? most : 0.0);
}

std::string gated_delta_net(Options& o, GoldenMixerCase& c) {
  c.eps = o.real("eps");
  return concat("gdn:key_heads=", o.integer("num_k_heads"),
                ",value_heads=", o.integer("num_v_heads"), ",key_dim=", o.integer("head_k_dim"),
                ",value_dim=", o.integer("head_v_dim"), ",kernel=", o.integer("kernel"),
                ",layout=", o.text("layout"));
}

std::string kimi_delta(Options& o, GoldenMixerCase& c) {
  c.eps = o.real("eps");
  return concat("kda:heads=", o.integer("num_heads"), ",head_dim=", o.integer("head_dim"),
                ",kernel=", o.integer("kernel"), ",lower_bound=", o.real("lower_bound"),
                ",low_rank=", int(o.file.has("param/f_a_proj.weight")));
}

std::string mamba1(Options& o, GoldenMixerCase& c) {
  c.eps = o.real("eps");
  return concat("mamba1:inner=", o.integer("inner"), ",state=", o.integer("state_size"),
                ",rank=", o.integer("dt_rank"), ",kernel=", o.integer("kernel"),
                ",norms=", o.integer("dt_b_c_norm"));
}

std::string lightning(Options& o, GoldenMixerCase& c) {
  if (o.has("eps"))
    o.real("eps");  // the norm has its own
  c.layer = int(o.integer(o.has("layer_idx") ? "layer_idx" : "layer"));
  c.layers = int(o.integer(o.has("num_hidden_layers") ? "num_hidden_layers" : "num_layers"));
  return concat("lightning:heads=", o.integer("num_heads"), ",head_dim=", o.integer("head_dim"));
}

std::string rwkv4(Options& o, GoldenMixerCase&) {
  return concat("rwkv4:width=", o.integer("attention_size"));
}

// Heads are as many as H holds.
void check_heads(Options& o, const GoldenMixerCase& c) {
  const std::int64_t heads = o.integer("num_heads");
  const std::int64_t width = o.integer("head_dim");
  if (heads * width != c.hidden) {
    throw Unsupported{
        concat(heads, " heads of ", width, " are not the ", c.hidden, " columns of the layer")};
  }
}

std::string rwkv6(Options& o, GoldenMixerCase& c) {
  check_heads(o, c);
  return concat("rwkv6:head_dim=", o.integer("head_dim"), ",mix_rank=", o.integer("mix_rank"),
                ",decay_rank=", o.integer("decay_rank"), ",group_eps=", o.real("group_eps"));
}

std::string rwkv7(Options& o, GoldenMixerCase& c) {
  check_heads(o, c);
  c.layers = 2;
  c.layer = o.integer("v_first") == 1;  // a share of another layer's values
  return concat("rwkv7:head_dim=", o.integer("head_dim"), ",decay_rank=", o.integer("decay_rank"),
                ",a_rank=", o.integer("a_rank"), ",gate_rank=", o.integer("gate_rank"),
                ",v_rank=", o.integer("v_rank"), ",group_eps=", o.real("group_eps"));
}

template <int version>
std::string channel(Options& o, GoldenMixerCase&) {
  return concat("rwkv_channel:version=", version, ",width=", o.integer("intermediate_size"));
}

std::string short_conv(Options& o, GoldenMixerCase&) {
  return concat("short_conv:kernel=", o.integer("kernel"), ",bias=", o.integer("bias"));
}

std::string causal_conv(Options& o, GoldenMixerCase& c) {
  const std::string activation = o.text("activation");
  if (activation != "silu" && activation != "none")
    throw Unsupported{concat("activation '", activation, "' behind a convolution is not there")};
  c.silu = activation == "silu";
  o.integer("kernel");
  o.integer("bias");
  return {};
}

std::string attention(Options& o, GoldenMixerCase& c) {
  AttentionOptions a;
  a.heads = int(o.integer("num_heads"));
  a.head_dim = int(o.integer("head_dim"));
  a.scale = o.real("scale");
  a.bias = o.integer("bias") == 1;
  a.causal = o.integer("causal") == 1;
  a.key_mask = o.integer("key_mask") == 1;
  a.cross = o.integer("cross");
  const std::int64_t buckets = o.integer("buckets");
  const std::int64_t distance = o.integer("max_distance");
  if (a.cross > 0 && (a.causal || buckets > 0))
    throw Unsupported{"attention to an encoder that is causal or has a relative position bias"};
  if (c.carried)
    throw Unsupported{"attention that starts from kept keys and values"};
  c.attention = a;
  return buckets > 0 ? concat("plain_attention:buckets=", buckets, ",distance=", distance)
                     : "plain_attention:buckets=0";
}

using Read = std::string (*)(Options&, GoldenMixerCase&);
const std::map<std::string, Read>& readers() {
  static const std::map<std::string, Read> all = {
      {"mamba2", mamba2},
      {"gated_delta_net", gated_delta_net},
      {"kimi_delta", kimi_delta},
      {"mamba1", mamba1},
      {"lightning", lightning},
      {"rwkv4_time", rwkv4},
      {"rwkv6_time", rwkv6},
      {"rwkv7_time", rwkv7},
      {"rwkv4_channel", channel<4>},
      {"rwkv6_channel", channel<6>},
      {"rwkv7_channel", channel<7>},
      {"short_conv", short_conv},
      {"causal_conv1d", causal_conv},
      {"attention", attention},
  };
  return all;
}

}  // namespace

GoldenMixerCase read_golden_mixer(const GoldenFile& file) {
  Options o(file);
  GoldenMixerCase c;
  const std::string name = file.text("mixer");
  const auto reader = readers().find(name);
  if (reader == readers().end())
    throw Unsupported{concat("mixer '", name, "' is not there")};
  c.batch = o.integer("batch");
  c.length = o.integer("length");
  c.hidden = o.integer("hidden_size");
  c.carried = o.integer("carried_state") == 1;
  c.spec = reader->second(o, c);
  o.done();
  return c;
}

}  // namespace moe
