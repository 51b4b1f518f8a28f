#include "lib/golden/golden_case.h"

#include <set>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/router/capacity.h"
#include "lib/router/router.h"

namespace moe {
namespace {

// The options of a file. Whatever nobody asked for is an option that we do not know.
class Options {
 public:
  explicit Options(const GoldenFile& f) : file_(f) {
    for (const char* name :
         {"format", "format_version", "case", "description", "kind", "seed", "min_margin"}) {
      asked_.insert(name);
    }
  }
  std::string text(const std::string& name) {
    asked_.insert(name);
    return file_.text(name);
  }
  double real(const std::string& name) {
    asked_.insert(name);
    return file_.real(name);
  }
  int integer(const std::string& name) {
    asked_.insert(name);
    return int(file_.integer(name));
  }
  bool flag(const std::string& name) {
    const int v = integer(name);
    if (v != 0 && v != 1)
      throw Unsupported{concat(name, " = ", v, " is neither 0 nor 1")};
    return v == 1;
  }
  bool has(const char* dataset) const {
    return file_.has(dataset);
  }
  void done() const {
    for (const std::string& name : file_.attributes()) {
      if (!asked_.contains(name))
        throw Unsupported{concat("option '", name, "' is not known")};
    }
  }

 private:
  const GoldenFile& file_;
  std::set<std::string> asked_;
};

// "softmax:k=2,norm=1", bit by bit. What the named thing does not know it refuses itself when it is
// made.
class SpecText {
 public:
  explicit SpecText(std::string name) : text_(std::move(name)) {}
  template <class V>
  void add(const char* key, const V& value) {
    text_ += concat(any_ ? "," : ":", key, "=", value);
    any_ = true;
  }
  template <class V>
  void add_unless(const char* key, const V& value, const V& unused) {
    if (!(value == unused))
      add(key, value);
  }
  const std::string& text() const {
    return text_;
  }

 private:
  std::string text_;
  bool any_ = false;
};

bool one_of(const std::string& name, std::initializer_list<const char*> names) {
  return std::ranges::find(names, name) != names.end();
}

void add_groups(Options& o, SpecText& spec, const std::string& router) {
  const std::string mode = o.text("group_mode");
  const std::string score = o.text("group_score");
  const int groups = o.integer("n_group");
  const int kept = o.integer("topk_group");
  const int inner = o.integer("topk_inner");
  if (router == "hierarchical") {
    spec.add("groups", groups);
    spec.add("topk_groups", kept);
    spec.add("inner", inner);
    if (mode != "none")
      throw Unsupported{concat("group_mode '", mode, "' of the router 'hierarchical'")};
    return;
  }
  if (inner != 0)
    throw Unsupported{concat("topk_inner = ", inner, " of the router '", router, "'")};
  if (mode == "none") {
    if (groups != 1)
      throw Unsupported{concat("n_group = ", groups, " with group_mode 'none'")};
    return;
  }
  if (mode != "limited" && mode != "one_per_group")
    throw Unsupported{concat("group_mode '", mode, "' is not there")};
  spec.add("groups", groups);
  spec.add("group_mode", mode == "limited" ? "limited" : "one");
  if (mode == "limited") {
    spec.add("topk_groups", kept);
    spec.add("group_score", score);
  }
}

// How many choices a token has, in the words of each router.
void add_choices(Options& o, SpecText& spec, const std::string& router, int experts) {
  const int k = o.integer("top_k");
  const auto fixed = [&](int only) {
    if (k != only)
      throw Unsupported{concat("top_k = ", k, " of the router '", router, "', which has ", only)};
  };
  if (router == "gshard")
    return fixed(2);
  if (router == "dense")
    return fixed(experts);
  if (router == "base")
    return fixed(1);
  if (router == "expert_choice" || router == "soft")
    return fixed(0);
  if (router == "relu")
    return;  // any number; the loss l1 has a target
  if (router == "hierarchical")
    return fixed(o.integer("topk_group") * o.integer("topk_inner"));
  spec.add("k", k);
}

// Options of one router, which every file states all the same.
void add_own_options(Options& o, SpecText& spec, const std::string& name) {
  const std::string second = o.text("second_policy");
  if (second != "none" || name == "gshard")
    spec.add("second", second);
  const double noise = o.real("noise_eps");
  const double p = o.real("top_p");
  const double factor = o.real("capacity_factor");
  if (name == "noisy")
    spec.add("eps", noise);  // every file states it, whatever its router
  if (name == "top_p" || p != 0)
    spec.add("p", p);
  if (name == "expert_choice")
    spec.add("factor", factor);
  const int slots = o.integer("num_slots");
  const bool normalize = o.flag("soft_normalize");
  if (name == "soft") {
    spec.add("slots", slots);
    spec.add("normalize", normalize);
  } else if (slots != 0 || normalize) {
    throw Unsupported{concat("num_slots = ", slots, " of the router '", name, "'")};
  }
}

std::string router_of(Options& o, int experts) {
  const std::string name = o.text("router");
  if (!routers().find(name))
    throw Unsupported{concat("router '", name, "' is not there")};
  SpecText spec(name);
  add_choices(o, spec, name, experts);
  const bool norm = o.flag("norm_topk");
  if (name == "hash" && !o.has("input/hash_table"))
    throw Error(Exit::input, "hash routing without input/hash_table");
  if (one_of(name, {"softmax", "sigmoid", "top_p", "expert_choice", "hierarchical", "sinkhorn"}))
    spec.add("norm", norm);
  else
    spec.add_unless("norm", norm, false);
  spec.add_unless("scale", o.real("routed_scale"), 1.0);
  spec.add_unless("temperature", o.real("temperature"), 1.0);
  spec.add_unless("jitter", o.real("jitter_eps"), 0.0);
  spec.add_unless("bias", o.flag("correction_bias"), false);
  add_groups(o, spec, name);
  add_own_options(o, spec, name);
  return spec.text();
}

std::string capacity_of_case(Options& o, const std::string& router) {
  const std::string rule = o.text("overflow");
  const std::string weights = o.text("drop_weights");
  const std::string output = o.text("dropped_output");
  const double factor = o.real("capacity_factor");
  const int least = o.integer("min_capacity");
  if (rule == "none" || (factor == 0 && router != "expert_choice")) {
    if (weights != "keep" || output != "zero") {
      throw Unsupported{concat("drop_weights '", weights, "' and dropped_output '", output,
                               "' without capacity")};
    }
    return "none";
  }
  if (!capacities().find(rule))
    throw Unsupported{concat("overflow '", rule, "' is not there")};
  SpecText spec(rule);
  spec.add("factor", factor);
  spec.add("min", least);
  spec.add("weights", weights);
  spec.add("output", output);
  return spec.text();
}

void add_balance(GoldenCase& c, const char* name, const char* loss, const std::string& spec) {
  if (!balancers().find(name))
    throw Unsupported{concat("balancer '", name, "' is not there")};
  c.config.balance.push_back(spec);
  c.loss_names.emplace_back(loss);
}

void read_l1(Options& o, GoldenCase& c) {
  const double l1 = o.real("l1_coef");
  const double growth = o.real("l1_growth");
  const bool balanced = o.flag("l1_balanced");
  if (l1 != 0) {
    add_balance(c, "l1", "l1_loss",
                concat("l1:coef=", l1, ",growth=", growth, ",balanced=", balanced,
                       ",k=", o.integer("top_k")));
  }
}

void read_balance(Options& o, GoldenCase& c) {
  const std::string type = o.text("aux_type");
  const std::string scope = o.text("aux_scope");
  const std::string counts = o.text("aux_counts");
  const double coef = o.real("aux_coef");
  if (type != "none" && type != "switch")
    throw Unsupported{concat("aux_type '", type, "' is not there")};
  if (type == "switch" && coef != 0) {
    add_balance(c, "switch", "aux_loss",
                concat("switch:coef=", coef, ",scope=", scope,
                       ",counts=", counts == "topk_unbiased" ? "unbiased" : counts));
  }
  for (const char* name : {"z", "entropy", "importance", "load"}) {
    if (const double v = o.real(concat(name, "_coef")); v != 0)
      add_balance(c, name, concat(name, "_loss").c_str(), concat(name, ":coef=", v));
  }
  read_l1(o, c);
  const std::string update = o.text("bias_update");
  const double rate = o.real("bias_update_rate");
  if (update != "none" && update != "sign" && update != "sign_centered")
    throw Unsupported{concat("bias_update '", update, "' is not there")};
  if (update != "none")
    add_balance(c, "bias", "", concat("bias:rate=", rate, ",center=", update == "sign_centered"));
}

// Experts of several widths and of several types, and the residual between gates.
void read_unequal_experts(Options& o, GoldenCase& c, const GoldenFile& file) {
  const auto agree = [&](const char* option, bool set, const char* dataset) {
    if (set != file.has(dataset))
      throw Error(Exit::input, concat(option, " does not agree with ", dataset));
  };
  const bool typed = o.flag("zero_compute");
  agree("zero_compute", typed, "input/expert_type");
  if (typed) {
    for (const auto type : file.integers("input/expert_type").values) {
      if (type < 0 || type > 3)
        throw Unsupported{concat("expert type ", type, " is not there")};
      c.config.types.push_back(ExpertKind(type));
    }
  }
  c.config.zc_exclude_zero = o.flag("zc_exclude_zero");
  c.config.zc_tau = o.real("zc_tau");
  c.config.zc_capacity = o.flag("zc_capacity");
  c.config.gate_residual = o.flag("gate_residual");
  agree("gate_residual", c.config.gate_residual, "input/prev_logits");
  const bool unequal = o.flag("hetero_widths");
  agree("hetero_widths", unequal, "input/expert_width");
  if (!unequal)
    return;
  const auto widths = file.integers("input/expert_width").values;
  c.config.widths.assign(widths.begin(), widths.end());
  if (c.config.widths.empty() || std::ranges::max(c.config.widths) > c.config.width)
    throw Error(Exit::input, concat("input/expert_width is empty or wider than ", c.config.width));
}

void read_experts(Options& o, GoldenCase& c, const GoldenFile& file) {
  const std::string activation = o.text("activation");
  const std::string apply = o.text("apply_weight");
  const std::string shared = o.text("shared");
  const auto activations = activation_names();
  if (std::ranges::find(activations, activation) == activations.end())
    throw Unsupported{concat("activation '", activation, "' is not there")};
  c.config.activation = activation_of(activation);
  c.config.expert_bias = o.flag("expert_bias");
  c.config.router_bias = o.flag("router_bias");
  if (apply != "output" && apply != "input")
    throw Unsupported{concat("apply_weight '", apply, "' is not there")};
  c.config.weight_on_input = apply == "input";
  if (shared != "none" && shared != "plain" && shared != "gated")
    throw Unsupported{concat("shared '", shared, "' is not there")};
  c.config.shared_width = o.integer("shared_intermediate_size");
  c.config.shared_gate = shared == "gated";
  if ((shared == "none") != (c.config.shared_width == 0))
    throw Error(Exit::input, concat("shared '", shared, "' with width ", c.config.shared_width));
  read_unequal_experts(o, c, file);
}

// Sequences of a batch from the number of each token's sequence.
void read_batch(const GoldenFile& file, Index tokens, bool masked, Batch& batch) {
  batch.token.assign(std::size_t(tokens), 0);
  if (file.has("input/token_ids")) {
    const auto ids = file.integers("input/token_ids").values;
    batch.token.assign(ids.begin(), ids.end());
  }
  batch.start = {0, tokens};
  if (file.has("input/sequence")) {
    const auto number = file.integers("input/sequence").values;
    batch.start = {0};
    for (std::size_t t = 1; t < number.size(); ++t) {
      if (number[t] < number[t - 1])
        throw Unsupported{"sequences that are not laid end to end"};
      if (number[t] != number[t - 1])
        batch.start.push_back(Index(t));
    }
    batch.start.push_back(tokens);
  }
  if (!masked)
    return;
  for (const auto v : file.integers("input/mask").values)
    batch.valid.push_back(std::uint8_t(v));
}

// Draws and states that a file brings along.
void read_given(const GoldenFile& file, GoldenCase& c) {
  if (file.has("input/noise"))
    c.given.noise = golden_matrix(file, "input/noise");
  if (file.has("input/jitter"))
    c.given.jitter = golden_matrix(file, "input/jitter");
  if (file.has("input/hash_table")) {
    const Matrix<double> table = golden_matrix(file, "input/hash_table");
    c.given.table = Matrix<int>(table.rows(), table.cols());
    std::ranges::transform(table.flat(), c.given.table.data(), [](double e) { return int(e); });
  }
  if (file.has("input/prev_logits"))
    c.previous = golden_matrix(file, "input/prev_logits");
  if (file.has("input/drop_noise"))
    c.given.drop = golden_matrix(file, "input/drop_noise");
  if (file.has("input/global_counts"))
    c.other_counts = file.integers("input/global_counts").values;
}

void check_inputs(const GoldenFile& file, const GoldenCase& c) {
  static const std::set<std::string> known{
      "input/x",          "input/grad_y",       "input/mask",
      "input/sequence",   "input/token_ids",    "input/noise",
      "input/jitter",     "input/drop_noise",   "input/global_counts",
      "input/hash_table", "input/expert_width", "input/expert_type",
      "input/prev_logits"};
  for (const std::string& name : file.datasets()) {
    if (name.starts_with("input/") && !known.contains(name))
      throw Unsupported{concat(name, " is not known")};
  }
  const Index tokens = c.x.rows();
  const auto rows = [&](const char* what, Index have) {
    if (have != tokens)
      throw Error(Exit::input, concat(what, " has ", have, " rows, not ", tokens));
  };
  rows("input/grad_y", c.grad_y.rows());
  rows("input/token_ids", Index(c.batch.token.size()));
  if (!c.batch.valid.empty())
    rows("input/mask", Index(c.batch.valid.size()));
  if (!c.previous.empty())
    rows("input/prev_logits", c.previous.rows());
  if (!c.given.noise.empty())
    rows("input/noise", c.given.noise.rows());
  if (!c.given.jitter.empty())
    rows("input/jitter", c.given.jitter.rows());
  if (!c.given.drop.empty())
    rows("input/drop_noise", c.given.drop.rows());
}

}  // namespace

Matrix<double> golden_matrix(const GoldenFile& file, const std::string& dataset) {
  const auto a = file.reals(dataset);
  const Index cols = a.dims.size() < 2 ? 1 : a.dims.back();
  Matrix<double> m(cols > 0 ? a.size() / cols : 0, cols);
  std::ranges::copy(a.values, m.data());
  return m;
}

GoldenCase read_golden_case(const GoldenFile& file) {
  Options o(file);
  GoldenCase c;
  const Index tokens = o.integer("num_tokens");
  c.config.experts = o.integer("num_experts");
  c.config.hidden = o.integer("hidden_size");
  c.config.width = o.integer("intermediate_size");
  c.ids_width = o.integer("ids_width");
  const std::string mode = o.text("mode");
  if (mode != "train" && mode != "eval")
    throw Unsupported{concat("mode '", mode, "' is not there")};
  c.training = mode == "train";
  c.exact_ties = o.flag("exact_ties");
  c.f64_only = o.flag("f64_only");
  c.config.router = router_of(o, c.config.experts);
  c.config.capacity = capacity_of_case(o, o.text("router"));
  read_balance(o, c);
  read_experts(o, c, file);
  const bool masked = o.flag("has_mask");
  o.done();
  c.x = golden_matrix(file, "input/x");
  c.grad_y = golden_matrix(file, "input/grad_y");
  if (c.x.rows() != tokens || c.x.cols() != c.config.hidden)
    throw Error(Exit::input, "input/x is not (num_tokens, hidden_size)");
  read_batch(file, tokens, masked, c.batch);
  read_given(file, c);
  check_inputs(file, c);
  return c;
}

}  // namespace moe
