// Router outputs of transformers, saved by the person: router_logits (a tuple over MoE layers of
// [B*S, E], padding included, or stacked), or recorded topk_indices and topk_weights, with
// input_ids and attention_mask [B, S]. Choices are derived from logits as the model's class derives
// them, where that needs nothing but the logits.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/text.h"
#include "lib/import/array_bundle.h"
#include "lib/import/sink.h"

namespace moe {
namespace {

struct Batch {
  Index rows = 0, sequences = 1, length = 0;
  const NumberArray *ids = nullptr, *mask = nullptr;

  bool is_padding(Index row) const {
    return mask && mask->real(mask->place(row / length, row % length)) == 0;
  }
};

struct Outputs {
  std::vector<int> numbers;
  std::vector<NumberArray> logits, chosen, weights;  // [B*S, E] or [B*S, K] a layer
  std::string where;
  bool probabilities = false;
};

// A layer's array as rows of B*S: [B, S, E] has its first two axes joined.
NumberArray joined(const NumberArray& a) {
  if (a.axes() == 2) {
    a.must_have(2, "[B*S, experts]");
    return a;
  }
  a.must_have(3, "[B, S, experts], or [B*S, experts]");
  if (a.stride[0] != a.shape[1] * a.stride[1])
    a.refuse("is a view whose rows do not follow one another", "a.contiguous()");
  NumberArray out = a;
  out.shape = {a.shape[0] * a.shape[1], a.shape[2]};
  out.stride = {a.stride[1], a.stride[2]};
  return out;
}

std::vector<NumberArray> layers_of(const ArrayBundle& bundle, const std::string& name,
                                   std::vector<int>& numbers, bool& listed) {
  std::vector<NumberArray> out;
  const ArrayGroup* group = bundle.find(name);
  if (!group)
    return out;
  numbers.clear();
  listed = group->listed || group->whole.has_value();
  if (group->whole) {
    if (group->whole->axes() < 3 || group->whole->axes() > 4)
      group->whole->must_have(3, "[layers, B*S, experts]");
    for (Index l = 0; l < std::min<Index>(group->whole->shape[0], 4096); ++l) {
      numbers.push_back(int(l));
      out.push_back(joined(group->whole->at(l)));
    }
    return out;
  }
  for (const auto& [number, array] : group->by_number) {
    numbers.push_back(number);
    out.push_back(joined(array));
  }
  return out;
}

// Layers of a tuple count MoE layers; config.json knows their true numbers.
void true_numbers(const ImportInputs& in, ImportSink& sink, Outputs& o, bool listed) {
  const RecordedModel* config = in.config();
  if (!config) {
    sink.say("the true numbers of the MoE layers are not in the file");
    return;
  }
  const auto& moe = config->moe_layers;
  const bool all_named =
      std::all_of(o.numbers.begin(), o.numbers.end(), [&](int n) { return !config->is_dense(n); });
  if (!listed && all_named)
    return;
  if (o.numbers.size() == moe.size()) {
    o.numbers = moe;
    return;
  }
  if (int(o.numbers.size()) == config->layers) {
    sink.facts.hidden_layers = true;
    return;
  }
  refuse_import(o.where,
                concat("has ", o.numbers.size(), " layers, but ", config->name, " says ",
                       moe.size(), " MoE layers of ", config->layers),
                "the config.json of the model that was recorded");
}

Batch batch_of(const ArrayBundle& bundle, const Outputs& o) {
  Batch b;
  const NumberArray& first = o.logits.empty() ? o.chosen[0] : o.logits[0];
  b.rows = b.length = first.shape[0];
  b.ids = bundle.whole("input_ids") ? bundle.whole("input_ids") : bundle.whole("token_ids");
  b.mask = bundle.whole("attention_mask");
  for (const NumberArray* a : {b.ids, b.mask}) {
    if (!a)
      continue;
    if (a == b.ids)
      a->must_be_whole();
    a->must_have(2, "[B, S]");
    if (a->size() != b.rows) {
      a->refuse(concat("has ", a->size(), " tokens, and there are ", b.rows, " rows of the router"),
                "input_ids of the same forward pass");
    }
    b.sequences = a->shape[0];
    b.length = a->shape[1];
  }
  return b;
}

// Rows that are not negative and sum to one went through a softmax already.
bool are_probabilities(const std::vector<NumberArray>& layers) {
  for (const NumberArray& a : layers) {
    for (Index t = 0; t < a.shape[0]; ++t) {
      double sum = 0;
      for (Index e = 0; e < a.shape[1]; ++e) {
        const double v = a.real(a.place(t, e));
        if (v < 0)
          return false;
        sum += v;
      }
      if (!(std::abs(sum - 1) < 0.02))
        return false;
    }
  }
  return !layers.empty() && layers[0].size() > 0;
}

class Transformers final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    const ImportFile& f = in.first();
    if (bundle_names(f, {"router_logits", "topk_indices"}))
      return true;
    if (f.kind != FileKind::torch)
      return false;
    const PickleValue root = f.torch->root();
    if (root.is(PickleKind::opaque))
      return true;
    return root.is_list() && root.size() > 0 && root.item(0).is(PickleKind::array) &&
           !root.item(0).array().is_whole() && in.files().size() == 1;
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "transformers";
    for (const ImportFile& f : in.files()) {
      if (f.kind != FileKind::json)
        read_file(in, f, sink);
    }
  }

 private:
  static void read_file(const ImportInputs&, const ImportFile&, ImportSink&);
};

// How choices follow from logits.
struct Rule {
  Index topk = 0;
  bool normalize = false, probabilities = false;
  double scale = 1;
  Index* ties = nullptr;
};

Rule rule_for(const ImportInputs& in, const Outputs& o, ImportSink& sink) {
  const RecordedModel* config = in.config();
  if (config && config->needs_checkpoint) {
    refuse_import(o.where,
                  "has logits, but this model chooses with a learned bias or in groups, which only "
                  "the checkpoint knows",
                  "record topk_indices and topk_weights of the routers");
  }
  Rule r;
  r.topk = in.options().topk > 0 ? in.options().topk : config ? config->topk : 0;
  if (r.topk == 0) {
    refuse_import(o.where, "has logits, and nothing says how many experts a token chooses (topk)",
                  "--config config.json of the model, or --topk K");
  }
  const Index experts = o.logits[0].shape[1];
  if (const int told = sink.experts(); told > 0 && told != experts) {
    o.logits[0].refuse(concat("has logits of ", experts, " experts, and there are ", told),
                       "the config.json of the model that was recorded");
  }
  if (r.topk > experts)
    o.logits[0].refuse(concat("has logits of ", experts, " experts, fewer than topk ", r.topk),
                       "--topk K as the model has");
  sink.facts.experts = int(experts);
  r.normalize = config && config->norm_topk == 1;
  r.scale = config ? double(config->routed_scale) : 1;
  r.probabilities = are_probabilities(o.logits);
  if (!config)
    sink.say(
        "whether the weights are normalised is not known without config.json: they are "
        "probabilities");
  sink.facts.order = "key_desc";
  sink.facts.weight_kind = config ? "combine" : "prob";
  return r;
}

// The numbers of one row, all of them finite.
std::vector<double> finite_row(const NumberArray& a, Index row, const std::string& where) {
  const Index experts = a.shape[1];
  std::vector<double> p(static_cast<std::size_t>(experts));
  for (Index e = 0; e < experts; ++e) {
    p[e] = a.real(a.place(row, e));
    if (!std::isfinite(p[e])) {
      refuse_import(where,
                    concat("row ", row, " has ", std::isnan(p[e]) ? "NaN" : "an infinite number",
                           " as the logit of expert ", e),
                    "logits that are finite");
    }
  }
  return p;
}

void softmax(std::vector<double>& p, double most) {
  double sum = 0;
  for (double& v : p)
    sum += v = std::exp(v - most);
  for (double& v : p)
    v /= sum;
}

void derive_row(const NumberArray& a, Index row, const Rule& rule, LayerRows& out, Index to,
                const std::string& where) {
  const Index experts = a.shape[1];
  std::vector<double> p = finite_row(a, row, where);
  std::vector<int> order(static_cast<std::size_t>(experts));
  std::iota(order.begin(), order.end(), 0);
  const auto better = [&](int x, int y) {
    return p[x] != p[y] ? p[x] > p[y] : x < y;
  };
  const Index sorted = std::min(rule.topk + 1, experts);
  std::partial_sort(order.begin(), order.begin() + sorted, order.end(), better);
  if (sorted > rule.topk && p[order[rule.topk]] == p[order[rule.topk - 1]])
    ++*rule.ties;
  if (!rule.probabilities)
    softmax(p, p[order[0]]);
  double chosen = 0;
  for (Index k = 0; k < rule.topk; ++k)
    chosen += p[order[k]];
  for (Index k = 0; k < rule.topk; ++k) {
    const int e = order[k];
    out.expert(to, k) = e;
    out.weight(to, k) = float(p[e] / (rule.normalize ? chosen : 1) * rule.scale);
  }
}

void copy_row(const NumberArray& ids, const NumberArray* weights, Index row, LayerRows& out,
              Index to) {
  for (Index k = 0; k < ids.shape[1]; ++k) {
    out.expert(to, k) = expert_id(ids, ids.place(row, k));
    if (weights)
      out.weight(to, k) = float(weights->real(weights->place(row, k)));
  }
}

// Rows of one sequence, those given in `keep`.
void say_sequence(const Outputs& o, const Batch& batch, const Rule& rule,
                  const std::vector<Index>& keep, ImportSink& sink) {
  const bool recorded = !o.chosen.empty();
  const Index choices = recorded ? o.chosen[0].shape[1] : rule.topk;
  ImportBlock b = make_block(o.numbers, Index(keep.size()), choices, o.where);
  for (std::size_t l = 0; l < o.numbers.size(); ++l) {
    LayerRows& rows = b.rows.layer[l];
    if (!recorded || !o.weights.empty())
      rows.weight = Matrix<float>(Index(keep.size()), choices);
    for (std::size_t t = 0; t < keep.size(); ++t) {
      if (recorded)
        copy_row(o.chosen[l], o.weights.empty() ? nullptr : &o.weights[l], keep[t], rows, Index(t));
      else
        derive_row(o.logits[l], keep[t], rule, rows, Index(t),
                   concat(o.where, " layer ", o.numbers[l]));
    }
  }
  for (const Index row : keep) {
    if (batch.ids) {
      const Index at = batch.ids->place(row / batch.length, row % batch.length);
      b.rows.token_id.push_back(std::uint32_t(batch.ids->whole(at)));
    }
  }
  sink.rows(std::move(b));
}

void check_layers(const std::vector<NumberArray>& layers, const std::vector<NumberArray>& like) {
  for (const NumberArray& a : layers) {
    if (a.shape[0] != like[0].shape[0] || a.shape[1] != layers[0].shape[1]) {
      a.refuse(concat("has the shape ", text_of(a.shape), ", and another layer ",
                      text_of(like[0].shape)),
               "layers of one forward pass");
    }
  }
}

Outputs outputs_of(const ImportInputs& in, const ArrayBundle& bundle, ImportSink& sink) {
  Outputs o;
  bool listed = false;
  o.where = concat(bundle.file(), " router_logits");
  o.logits = layers_of(bundle, "router_logits", o.numbers, listed);
  if (bundle.has("topk_indices")) {
    o.where = concat(bundle.file(), " topk_indices");
    o.logits.clear();
    o.chosen = layers_of(bundle, "topk_indices", o.numbers, listed);
    std::vector<int> unused;
    o.weights = layers_of(bundle, "topk_weights", unused, listed);
    if (!o.weights.empty() && o.weights.size() != o.chosen.size())
      refuse_import(o.where,
                    concat("has ", o.chosen.size(), " layers, and topk_weights ", o.weights.size()),
                    "weights of the same layers");
  }
  if (o.numbers.empty())
    refuse_import(bundle.file(),
                  concat("has neither router_logits nor topk_indices, but ", bundle.names()),
                  "torch.save(dict(router_logits=out.router_logits, input_ids=input_ids), 'a.pt')");
  const auto& main = o.chosen.empty() ? o.logits : o.chosen;
  check_layers(main, main);
  check_layers(o.weights, main);
  for (const NumberArray& a : o.chosen)
    a.must_be_whole();
  true_numbers(in, sink, o, listed);
  return o;
}

void Transformers::read_file(const ImportInputs& in, const ImportFile& f, ImportSink& sink) {
  const ArrayBundle bundle(f);
  const Outputs o = outputs_of(in, bundle, sink);
  const Batch batch = batch_of(bundle, o);
  Index ties = 0;
  Rule rule = o.chosen.empty() ? rule_for(in, o, sink) : Rule{};
  rule.ties = &ties;
  Index padding = 0;
  for (Index s = 0; s < batch.sequences; ++s) {
    std::vector<Index> keep;
    for (Index t = 0; t < batch.length; ++t) {
      const Index row = s * batch.length + t;
      if (batch.is_padding(row))
        ++padding;
      else
        keep.push_back(row);
    }
    if (keep.empty())
      continue;
    sink.sequence(in.domain_of(f));
    say_sequence(o, batch, rule, keep, sink);
  }
  if (!batch.ids && !batch.mask)
    sink.say("sequence boundaries are not in the file");
  if (padding > 0)
    sink.say(concat(padding, " padding rows were left out"));
  if (ties > 0)
    sink.say(concat(ties, " rows tie at the cut: there the choice is ambiguous"));
}

}  // namespace

std::unique_ptr<Importer> make_transformers_importer() {
  return std::make_unique<Transformers>();
}

}  // namespace moe
