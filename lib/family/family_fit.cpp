// Which published class computes what a model computes: the first family whose config.json, written
// from the model and read again, gives the same model. So a writer says what its class does, and
// nothing here knows families.
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/class_defaults.h"
#include "lib/family/config_like.h"
#include "lib/family/family.h"
#include "lib/model/layer_list.h"
#include "lib/model/mixer_type.h"
#include "lib/model/rotary.h"
#include "lib/router/router.h"

namespace moe {
namespace {

// Of one whose rows may not choose among all experts.
std::string masked_text(const ModelConfig& c, const RouterFacts& f, bool corrected) {
  Spec spec(c.moe.router);
  return concat(spec.name(), ":k=", f.k, ",norm=", int(f.normalised), ",norm_min=", f.least,
                f.bias || corrected ? ",bias=1" : "", f.bias_on_logit ? ",bias_on=logit" : "",
                ",scale=", f.scale, ",eps=", f.eps, ",experts=", spec.get("experts", ""));
}

// What a router computes without the draws of training; `corrected`: with a correction bias, be it
// of zeros.
std::string router_text(const ModelConfig& c, bool corrected) {
  const auto router = make_router(c.moe.router, c.moe.experts);
  const RouterFacts f = router->facts();
  if (f.score == ScoreFunction::other && !router->choice_sets().empty())
    return masked_text(c, f, corrected);
  if (f.score == ScoreFunction::other) {
    Spec spec(c.moe.router);
    return spec.name() == "sparsemixer" ? concat("sparsemixer:eps=", spec.get("eps", 0.01))
                                        : spec.name();
  }
  constexpr const char* names[] = {"softmax", "sigmoid", "sqrtsoftplus"};
  std::string out = concat(names[std::size_t(f.score)], ":k=", f.k, ",norm=", int(norm_topk(c)));
  if (f.bias || corrected)
    out += f.bias_on_logit ? ",bias=1,bias_on=logit" : ",bias=1";
  if (f.scale != 1)
    out += concat(",scale=", f.scale);
  if (norm_topk(c) && f.eps != RouterFacts{}.eps)
    out += concat(",eps=", f.eps);
  if (norm_topk(c) && f.least > 0)
    out += concat(",norm_min=", f.least);
  // 0: it moves along training
  const double temperature =
      router->temperature_schedule.moves() ? 0 : router->temperature_schedule.to;
  if (temperature != 1)
    out += concat(",temperature=", temperature);
  if (f.groups > 1) {
    out += f.every_group ? concat(",groups=", f.groups, ",group_mode=one")
                         : concat(",groups=", f.groups, ",topk_groups=", f.topk_groups,
                                  ",group_score=", f.top2_sum ? "top2_sum" : "max");
  }
  return out;
}

// Which layer has which feed-forward, said one way: dense_at, or a list where some layers have
// none.
void make_feeds_plain(ModelConfig& c) {
  const std::vector<FeedKind> feeds = c.feeds();
  std::vector<std::string> entries;
  std::vector<int> dense;
  for (int l = 0; l < c.layers; ++l) {
    const FeedKind kind = feeds[std::size_t(l)];
    if (kind == FeedKind::dense)
      dense.push_back(l);
    entries.push_back(kind == FeedKind::mixer                  ? c.feed_mixer(l)
                      : kind == FeedKind::moe                  ? "moe"
                      : kind == FeedKind::none                 ? "none"
                      : kind == FeedKind::experts_of_attention ? std::string(attention_experts)
                                                               : "dense");
  }
  const auto is = [&](FeedKind a, FeedKind b) {
    return std::ranges::all_of(feeds, [&](FeedKind k) { return k == a || k == b; });
  };
  const bool has_dense = !dense.empty() || c.dense_beside != DenseBeside::none;
  c.dense_width = has_dense ? c.dense_baseline_width() : 0;
  c.dense = c.moe_layers() == 0;
  c.dense_layers = 0;
  c.moe_every = 1;
  c.feed = is(FeedKind::moe, FeedKind::dense) ? "" : layer_list(entries);
  c.dense_at = c.dense || !c.feed.empty() ? std::vector<int>{} : dense;
}

// Of a model without attention nothing that is said of it.
void make_attention_plain(ModelConfig& c) {
  const auto attends = [](const std::optional<MixerShape>& m) {
    return m && m->attends();
  };
  if (std::ranges::any_of(mixer_shapes(c), attends))
    return;
  if (c.has_experts_of_attention()) {
    c.heads = c.kv_heads;
    return;
  }
  c.heads = c.kv_heads = 1;
  c.head_dim = c.hidden;
  c.rope = std::string(rope_none);
  c.rope_theta = ModelConfig{}.rope_theta;
  c.attention_scale = 1;
}

// Two models that compute the same come out alike: fields without effect at their default, one way
// of saying each thing.
ModelConfig plain(ModelConfig c) {
  const ModelConfig usual;
  const bool cuts = c.window > 0 || c.chunk > 0;
  c.preset = "custom";
  c.init = usual.init;
  std::vector<int> all;
  for (int l = 0; cuts && l < c.layers; ++l) {
    if (c.sees_all(l))
      all.push_back(l);
  }
  c.full_layers = all;
  if (int(all.size()) == c.layers) {
    c.full_layers.clear();
    c.window = c.chunk = 0;
  }
  if (c.final_norm_eps == c.norm_eps)
    c.final_norm_eps = 0;
  if (c.kv_rank > 0 || c.rotary_dim == c.head_dim)
    c.rotary_dim = 0;
  if (c.attention_scale == 0)
    c.attention_scale = 1 / std::sqrt(double(c.head_dim));
  if (c.stretch_scale == 0 || (c.no_rope_layers.empty() && !c.stretch_turned)) {
    c.stretch_floor = c.stretch_scale = 0;
    c.stretch_turned = false;
  }
  if (c.kv_rank == 0 && c.value_dim == c.head_dim)
    c.value_dim = 0;
  make_feeds_plain(c);
  if (c.dense) {
    const Activation activation = c.dense_width > 0 ? c.moe.activation : usual.moe.activation;
    c.moe = usual.moe;
    c.moe.hidden = c.hidden;
    c.moe.activation = activation;
  }
  make_attention_plain(c);
  c.moe.capacity = usual.moe.capacity;
  c.moe.balance.clear();
  return c;
}

bool near(const std::vector<double>& a, const std::vector<double>& b) {
  return std::ranges::equal(
      a, b, [](double x, double y) { return std::abs(x - y) <= 1e-12 * std::abs(x); });
}
bool turned_alike(const ModelConfig& a, const ModelConfig& b) {
  if (a.rotary_dims() != b.rotary_dims())
    return false;
  const Rotary x = rotary_of(a.rope, a.rotary_dims(), a.rope_theta);
  const Rotary y = rotary_of(b.rope, b.rotary_dims(), b.rope_theta);
  return near(x.frequency, y.frequency) && near(x.far_frequency, y.far_frequency) &&
         near({x.scale, x.far_scale}, {y.scale, y.far_scale}) && x.original == y.original;
}

// Whether all layers have the same mixers, however long the pattern that says so.
bool alike(const ModelConfig& a, const ModelConfig& b) {
  return a.layers == b.layers && layer_mixers(a.mixer, a.layers) == layer_mixers(b.mixer, b.layers);
}

// "activation=relu" of "tiny:hidden=128,activation=relu,...".
std::vector<std::string> fields(const std::string& spec) {
  std::vector<std::string> out(1);
  int depth = 0;
  for (const char c : spec.substr(spec.find(':') + 1)) {
    depth += (c == '{') - (c == '}');
    if (c == ',' && depth == 0)
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

// One line for each field of a stored spec in which the first is not the second.
void add_fields(std::vector<std::string>& out, const ModelConfig& a, const ModelConfig& b) {
  const std::vector<std::string> has = fields(to_full_spec(a));
  const std::vector<std::string> wanted = fields(to_full_spec(b));
  for (std::size_t i = 0; i < std::min(has.size(), wanted.size()); ++i) {
    if (has[i] != wanted[i])
      out.push_back(concat(has[i], " instead of ", wanted[i].substr(wanted[i].find('=') + 1)));
  }
}

// "activation=swiglu instead of relu", ... where what they compute is not what the model does.
// `corrected`: a correction bias of zeros is none.
std::vector<std::string> differences(const ModelConfig& model, const ModelConfig& theirs,
                                     bool corrected) {
  ModelConfig a = plain(theirs);
  ModelConfig b = plain(model);
  if (turned_alike(a, b)) {
    a.rope = b.rope;
    a.rope_theta = b.rope_theta;
  }
  // said in other words, rounded once more
  if (near({a.attention_scale}, {b.attention_scale}))
    a.attention_scale = b.attention_scale;
  std::vector<std::string> out;
  if (!alike(a, b)) {
    const auto text = [](const ModelConfig& c) {
      return c.mixer.empty() ? mixers().names().front() : c.mixer;
    };
    out.push_back(concat("mixer={", text(a), "} instead of {", text(b), "}"));
  }
  a.mixer = b.mixer;
  if (!b.dense) {
    const std::string has = a.dense ? "none" : router_text(theirs, corrected);
    const std::string wanted = router_text(model, corrected);
    if (has != wanted)
      out.push_back(concat("router={", has, "} instead of {", wanted, "}"));
    a.moe.router = b.moe.router;
  }
  add_fields(out, a, b);
  return out;
}

// Of the family's model, as read back.
std::vector<std::string> differences(const ModelConfig& model, const std::string& family) {
  const FamilyRules& rules = rules_of(family);
  const Json written = with_class_defaults(family, config_json(model, family));
  ModelConfig theirs;
  rules.read(ConfigReader(written, "config.json"), theirs);
  return differences(model, theirs, rules.names.always_corrected);
}

}  // namespace

std::vector<std::string> model_differences(const ModelConfig& model, const ModelConfig& theirs) {
  return differences(model, theirs, false);
}

bool same_model(const ModelConfig& a, const ModelConfig& b) {
  return differences(a, b, false).empty() && a.moe.capacity == b.moe.capacity &&
         a.moe.balance == b.moe.balance;
}

Fit fit_like(const ModelConfig& c, const std::string& preferred) {
  if (preferred.empty() || preferred == "moe" || !rules_of(preferred).write)
    return fit_of(c);
  try {
    if (differences(c, preferred).empty())
      return {preferred, ""};
  } catch (const Error&) {  // what its configuration cannot even say
  }
  return fit_of(c);
}

Fit fit_of(const ModelConfig& c) {
  std::string nearest;
  std::vector<std::string> least;
  for (const Family& f : families()) {
    const FamilyRules& rules = rules_of(std::string(f.name));
    if (f.verified != Verified::by_class || !rules.write || rules.whole)
      continue;
    std::vector<std::string> found;
    try {
      found = differences(c, std::string(f.name));
    } catch (const Error&) {
      continue;  // what its configuration cannot even say
    }
    if (found.empty())
      return {std::string(f.name), ""};
    if (nearest.empty() || found.size() < least.size()) {
      nearest = f.name;
      least = std::move(found);
    }
  }
  if (nearest.empty())
    return {"moe", "no published class has these sizes"};
  return {"moe", concat("no published class computes this; ", nearest, " comes nearest, with ",
                        join(least))};
}

}  // namespace moe
