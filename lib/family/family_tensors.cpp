// Tensor names of the families. One list of pieces says which numbers of which parameter lie where
// in which tensor; store() and load() walk it.
#include <map>
#include <set>

#include "lib/core/error.h"
#include "lib/family/families.h"
#include "lib/family/family.h"
#include "lib/model/decoder.h"
#include "lib/router/router.h"
#include "lib/router/token_table.h"

namespace moe {
namespace {

// Rows first .. first+rows of a parameter: number (r,c) of them stands at offset + r*row + c*column
// of the tensor.
struct Part {
  Parameter<float>* parameter = nullptr;
  Index first = 0, rows = 1;
  Index offset = 0, row = 0, column = 1;
  Index cols = 0;  // first columns of the parameter that there are, the others are 0; 0 = all

  Index columns() const {
    return cols > 0 ? cols : parameter->value().cols;
  }
};
struct Piece {
  std::string name;
  Dims dims;
  std::vector<Part> parts;
  Router* router = nullptr;  // instead: its correction bias, or its table of token ids
  bool ids = false;          // that table
};

Piece whole(std::string name, Parameter<float>& p) {
  const View<const float> v = p.value();
  return {std::move(name), p.dims(), {{&p, 0, v.rows, 0, v.cols, 1}}, nullptr};
}

// (..,m,n) with its last two axes swapped.
Piece swapped(std::string name, Parameter<float>& p) {
  Dims dims = p.dims();
  const Index n = dims.back();
  const Index m = dims[dims.size() - 2];
  std::swap(dims.back(), dims[dims.size() - 2]);
  Piece out{std::move(name), dims, {}, nullptr};
  for (Index first = 0; first < p.value().rows; first += m)
    out.parts.push_back({&p, first, m, first * n, 1, m});
  return out;
}

// Of one layer.
struct Own {
  std::string name;  // what follows "layers.3."
  ModelParameter<float> of;
};

// Of a tensor made of several parameters; no experts: 0, vectors: no inputs.
Dims joined_dims(const Joined& j, Index experts, Index outputs, Index inputs) {
  Dims out;
  if (experts > 0)
    out.push_back(experts);
  if (inputs == 0)
    out.push_back(outputs);
  else
    out.insert(out.end(), {j.swapped ? inputs : outputs, j.swapped ? outputs : inputs});
  if (j.flat && experts > 0)
    out = {out[0] * out[1], out[2]};
  return out;
}

// A tensor made of several parameters (E,O,I), (O,I), (E,O) or (O), their outputs one after the
// other or in turn.
Piece joined(const std::string& name, const Joined& j,
             const std::vector<Parameter<float>*>& parameters) {
  const bool experts = j.parts[0].starts_with("moe.experts.");
  const bool vectors = parameters[0]->kind() == ParameterKind::vector;
  const Dims& like = parameters[0]->dims();
  const Index count = experts ? like[0] : 1;
  const Index inputs = vectors ? 1 : like.back();
  Index outputs = 0;
  for (Parameter<float>* p : parameters)
    outputs += p->size() / (count * inputs);
  Piece out{name, joined_dims(j, experts ? count : 0, outputs, vectors ? 0 : inputs), {}, nullptr};
  if (!experts && like.size() == 3)  // kernels (C,1,K)
    out.dims.insert(out.dims.begin() + 1, 1);
  const Index turns = j.interleaved ? Index(parameters.size()) : 1;
  const Index row = j.swapped ? 1 : inputs;
  const Index column = j.swapped ? outputs : 1;
  Index before = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Index own = parameters[i]->size() / (count * inputs);
    const Index start = (j.interleaved ? Index(i) : before) * row;
    for (Index e = 0; e < count; ++e) {
      const Index offset = e * outputs * inputs + start;
      // a row of biases
      if (vectors)
        out.parts.push_back({parameters[i], experts ? e : 0, 1, offset, 0, turns});
      else
        out.parts.push_back({parameters[i], e * own, own, offset, row * turns, column});
    }
    before += own;
  }
  return out;
}

// An equal share of the rows of a matrix in each tensor.
void add_divided(std::vector<Piece>& out, const std::string& at, const Divided& d,
                 Parameter<float>& p) {
  const Index rows = p.value().rows / Index(d.names.size());
  const Index cols = p.value().cols;
  Index first = 0;
  for (const std::string& name : d.names) {
    const Part part{&p, first, rows, 0, d.swapped ? 1 : cols, d.swapped ? rows : 1};
    out.push_back({at + name, d.swapped ? Dims{cols, rows} : Dims{rows, cols}, {part}, nullptr});
    first += rows;
  }
}

// Below the layer, where no family has another name.
const std::map<std::string, std::string>& usual_names() {
  static const std::map<std::string, std::string> same{
      {"attention_norm", "input_layernorm.weight"},
      {"feed_norm", "post_attention_layernorm.weight"},
      {"attention_norm_bias", "input_layernorm.bias"},
      {"feed_norm_bias", "post_attention_layernorm.bias"},
      {"attention_norm_after", "post_self_attn_layernorm.weight"},
      {"feed_norm_after", "post_mlp_layernorm.weight"},
      {"dense_norm_after", "post_feedforward_layernorm_1.weight"},
      {"experts_norm", "pre_feedforward_layernorm_2.weight"},
      {"experts_norm_after", "post_feedforward_layernorm_2.weight"},
      {"router_norm", "mlp.router.scale"},
      {"layer_scale", "layer_scalar"},
      {"attention_norm_after_bias", "post_self_attn_layernorm.bias"},
      {"feed_norm_after_bias", "post_mlp_layernorm.bias"},
      {"cross_norm", "cross_attention_layernorm.weight"},
      {"cross_norm_bias", "cross_attention_layernorm.bias"},
      {"moe.shared_gate.weight", "mlp.shared_expert_gate.weight"},
      {"moe.output_bias", "mlp.bias"},
      {"moe.attention.k", "self_attn.k_proj.weight"},
      {"moe.attention.v", "self_attn.v_proj.weight"},
      {"moe.latent.in", "mlp.fc1_latent_proj.weight"},
      {"moe.latent.out", "mlp.fc2_latent_proj.weight"},
      {"moe.router.weight", "mlp.gate.weight"},
      {"moe.router.bias", "mlp.gate.bias"}};
  return same;
}

// Below the layer, where neither the family nor the part itself has a name for it.
std::string common_name(const Names& n, const std::string& ours) {
  const auto& same = usual_names();
  if (const auto at = same.find(ours); at != same.end())
    return at->second;
  const std::string last = ours.substr(ours.rfind('.') + 1);
  const bool bias = last.ends_with("_bias");
  const std::string bare = bias ? last.substr(0, last.size() - 5) : last;
  const std::string tail = bias ? ".bias" : ".weight";
  if (ours.starts_with("dense."))
    return n.dense + bare + "_proj" + tail;
  if (ours.starts_with("moe.shared."))
    return n.shared + bare + "_proj" + tail;
  if (ours.starts_with("moe.router."))
    return "mlp.router." + last + ".weight";
  throw Error(Exit::bug, concat("the parameter '", ours, "' has no published name"));
}

Piece named(const Names& n, const std::string& at, const Own& own) {
  Parameter<float>& p = *own.of.parameter;
  std::string name = own.of.published;
  if (const auto found = n.below.find(own.name); found != n.below.end())
    name = found->second;
  else if (name.empty())
    name = common_name(n, own.name);
  for (const auto& [usual, here] : n.begin) {
    if (name.starts_with(usual)) {
      name = here + name.substr(usual.size());
      break;
    }
  }
  Piece out = own.of.swapped ? swapped(at + name, p) : whole(at + name, p);
  for (const auto& [end, dims] : n.shape) {
    if (!name.ends_with(end))
      continue;
    out.dims = dims;
    std::ranges::replace(out.dims, Index(0), p.size());
  }
  return out;
}

// Of one expert's matrix the rows, or of the last one the columns, of hidden units that it has.
void make_narrow(Piece& piece, bool down, Index width) {
  Part& part = piece.parts[0];
  piece.dims[down ? 1 : 0] = width;
  if (down)
    part.row = part.cols = width;
  else
    part.rows = width;
}

void add_experts(std::vector<Piece>& out, const Names& n, const std::string& at,
                 const std::string& part, Parameter<float>& p, const LayerConfig& config) {
  const bool bias = part.ends_with("_bias");
  const std::string bare = bias ? part.substr(0, part.size() - 5) : part;
  const std::string name = bare == "gate"   ? n.gate
                           : bare == "up"   ? n.up
                           : bare == "down" ? n.down
                                            : bare + "_proj";
  const Index count = p.dims()[0];
  const Index rows = p.value().rows / count;
  for (Index e = 0; e < count; ++e) {
    const bool here = n.idle == Idle::all || (n.idle == Idle::gates && bare != "down");
    if (!here && config.type_of(int(e)) != ExpertKind::ffn)
      continue;
    Piece piece{concat(at, n.experts, e, ".", name, bias ? ".bias" : ".weight"),
                Dims(p.dims().begin() + 1, p.dims().end()),
                {{&p, e * rows, rows, 0, p.value().cols, 1}},
                nullptr};
    if (n.own_widths && !bias)
      make_narrow(piece, bare == "down", config.width_of(int(e)));
    out.push_back(std::move(piece));
  }
}

void add_layer(std::vector<Piece>& out, const Names& n, const std::string& at,
               const std::vector<Own>& layer, const LayerConfig& config) {
  std::map<std::string, Parameter<float>*> left;
  for (const Own& own : layer)
    left[own.name] = own.of.parameter;
  for (const Joined& j : n.joined) {
    std::vector<Parameter<float>*> parts;
    for (const std::string& part : j.parts) {
      if (const auto found = left.find(part); found != left.end())
        parts.push_back(found->second);
    }
    if (parts.size() != j.parts.size())
      continue;
    out.push_back(joined(at + j.name, j, parts));
    for (const std::string& part : j.parts)
      left.erase(part);
  }
  for (const Divided& d : n.divided) {
    if (const auto found = left.find(d.part); found != left.end()) {
      add_divided(out, at, d, *found->second);
      left.erase(found);
    }
  }
  const std::string experts = "moe.experts.";
  for (const Own& own : layer) {
    if (!left.contains(own.name))
      continue;
    if (own.name.starts_with(experts))
      add_experts(out, n, at, own.name.substr(experts.size()), *own.of.parameter, config);
    else
      out.push_back(named(n, at, own));
  }
}

std::string place_of(const Names& n, int layer) {
  return concat(n.prefix, n.layers, n.halves ? layer / 2 : layer, ".");
}

// Which half of a layer of the file these are.
void name_half(std::span<Piece> pieces, const Names& n, int layer) {
  const std::string half = layer % 2 == 0 ? n.half.first : n.half.second;
  for (Piece& p : pieces) {
    if (const auto at = p.name.find('%'); at != p.name.npos)
      p.name.replace(at, 1, half);
    const std::string attention = ".self_attn.";
    if (const auto at = p.name.find(attention); at != p.name.npos)
      p.name.insert(at + attention.size(), half + ".");
  }
}

// The names of a layer, and where it stands.
struct LayerNames {
  const Names& names;
  std::string at;
};
LayerNames layer_names(const Names& n, const ModelConfig& c, int layer) {
  if (n.encoder.empty())
    return {n, place_of(n, layer)};
  const Names& own = c.in_encoder(layer) ? n.encoder[0] : n;
  const int place = c.in_encoder(layer) ? layer : layer - c.encoder_layers;
  return {own, concat(n.prefix, own.layers, place, ".")};
}
// The same with those of gated bodies, where the model has such.
Names for_bodies(Names n, const ModelConfig& c) {
  if (is_gated(c.moe.activation)) {
    for (const auto& [ours, theirs] : n.gated)
      n.below[ours] = theirs;
  }
  for (Names& stack : n.encoder)
    stack = for_bodies(stack, c);
  return n;
}
Names for_model(Names n, const ModelConfig& c) {
  if (c.encoder_embedding && !n.split_embedding.empty())
    n.embedding = n.split_embedding;
  return for_bodies(std::move(n), c);
}

// Correction biases and tables are state of the routers and no parameters.
void add_router_state(std::vector<Piece>& out, const Names& n, Decoder<float>& model) {
  const Index experts = model.config().moe.experts;
  const auto moe = model.moe_layers();
  int layer = -1;
  for (std::size_t i = 0; i < moe.size(); ++i) {
    do
      ++layer;
    while (!model.config().is_moe(layer));
    Router& router = moe[i]->router();
    const std::string at = layer_names(n, model.config(), layer).at;
    if (auto* table = capability<TokenTable>(router)) {
      const Index k = router.choices();
      out.push_back({at + n.table, {Index(table->table().size()) / k, k}, {}, &router, true});
      continue;
    }
    const bool stored = !n.correction_bias.empty();
    if (!stored || (router.correction_bias().empty() && !n.always_corrected))
      continue;
    const Index rows = n.correction_rows;
    out.push_back({at + n.correction_bias,
                   rows > 0 ? Dims{rows, experts / rows} : Dims{experts},
                   {},
                   &router});
  }
}

// Names of what stands in no layer.
std::map<std::string, std::string> names_outside(const Names& n) {
  return {{"embedding", n.embedding_is_output ? n.output + ".weight" : n.prefix + n.embedding},
          {"embedding_norm", n.prefix + n.embedding_norm + ".weight"},
          {"embedding_norm_bias", n.prefix + n.embedding_norm + ".bias"},
          {"final_norm", n.prefix + n.final_norm + ".weight"},
          {"final_norm_bias", n.prefix + n.final_norm + ".bias"},
          {"encoder_embedding", n.prefix + n.encoder_embedding},
          {"encoder_norm", n.prefix + n.encoder_norm + ".weight"},
          {"encoder_norm_bias", n.prefix + n.encoder_norm + ".bias"},
          {"output", n.output + ".weight"},
          {"output_bias", n.output + ".bias"}};
}

std::vector<Piece> pieces(Decoder<float>& model, const Names& usual) {
  const Names n = for_model(usual, model.config());
  const std::map<std::string, std::string> top = names_outside(n);
  std::vector<Piece> out;
  std::vector<std::vector<Own>> layers(std::size_t(model.config().layers));
  for (const ModelParameter<float>& p : model.inventory()) {
    const std::string& name = p.parameter->name();
    if (p.layer >= 0)
      layers[std::size_t(p.layer)].push_back(
          {name.substr(concat("layers.", p.layer, ".").size()), p});
    else if (p.published.empty())
      out.push_back(whole(top.at(name), *p.parameter));
    else
      out.push_back(named(n, n.prefix, {name, p}));
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const LayerNames layer = layer_names(n, model.config(), int(l));
    const std::size_t before = out.size();
    add_layer(out, layer.names, layer.at, layers[l], model.config().moe);
    if (n.halves)
      name_half(std::span(out).subspan(before), n, int(l));
  }
  add_router_state(out, n, model);
  return out;
}

void fill(Tensor& t, const Piece& p) {
  if (p.ids) {
    const auto table = capability<TokenTable>(*p.router)->table();
    for (std::size_t i = 0; i < table.size(); ++i)
      t.mutable_view<std::int64_t>().data[i] = std::int64_t(table[i]);
    return;
  }
  float* to = t.mutable_view<float>().data;
  if (p.router) {
    const auto beta = p.router->correction_bias();
    for (std::size_t e = 0; e < beta.size(); ++e)
      to[e] = float(beta[e]);
    return;
  }
  for (const Part& part : p.parts) {
    const Index cols = part.parameter->value().cols;
    if (part.row == cols && part.column == 1 && part.columns() == cols) {
      part.parameter->read(part.first, {to + part.offset, part.rows, cols});
      continue;
    }
    Matrix<float> host(part.rows, cols);
    part.parameter->read(part.first, host.view());
    for (Index r = 0; r < part.rows; ++r) {
      for (Index c = 0; c < part.columns(); ++c)
        to[part.offset + r * part.row + c * part.column] = host(r, c);
    }
  }
}

// Parts of one tensor are all experts' or none is.
bool elsewhere(const Piece& p) {
  return !p.parts.empty() && !p.parts[0].parameter->stored();
}

}  // namespace

const Names& names_of(const std::string& family) {
  return rules_of(family).names;
}

std::vector<NamedTensor> store(Decoder<float>& model, const std::string& family) {
  return store(model, names_of(family));
}
std::vector<NamedTensor> store(Decoder<float>& model, const Names& names) {
  std::vector<NamedTensor> out;
  for (Piece& p : pieces(model, names)) {
    const DType type = p.ids ? DType::i64 : DType::f32;
    const auto make = [p, type] {
      Tensor t(type, p.dims);
      fill(t, p);
      return t;
    };
    out.emplace_back(p.name, type, p.dims, make);
  }
  return out;
}

namespace {

// The values of a tensor in float32. Throws Error(bug) where there are more or fewer than its
// shape says.
Matrix<float> looked_up(const Lookup& lookup, const Piece& p) {
  Matrix<float> values = lookup(p.name, p.dims).to_float();
  Index size = 1;
  for (const Index n : p.dims)
    size *= n;
  if (values.size() != size) {
    throw Error(Exit::bug,
                concat("'", p.name, "' came with ", values.size(), " numbers for ", size));
  }
  return values;
}

// Each row must name experts that there are, none of them twice.
void take_table(const Piece& p, const Matrix<float>& values) {
  const auto table = capability<TokenTable>(*p.router)->table();
  const Index k = p.dims[1];
  for (Index id = 0; id < p.dims[0]; ++id) {
    std::set<int> seen;
    for (Index j = 0; j < k; ++j) {
      const float expert = values.data()[id * k + j];
      const bool one = expert >= 0 && expert < float(p.router->experts());
      if (!one || !seen.insert(int(expert)).second) {
        throw Error(Exit::input, concat("'", p.name, "' gives token ", id, " the expert ", expert,
                                        one ? " twice" : concat(" of ", p.router->experts())));
      }
      table[std::size_t(id * k + j)] = double(expert);
    }
  }
}

void take_router_state(const Piece& p, const Matrix<float>& values) {
  if (p.ids)
    return take_table(p, values);
  const auto beta = p.router->correction_bias();
  for (std::size_t e = 0; e < beta.size(); ++e)
    beta[e] = double(values.data()[e]);
}

}  // namespace

void load(Decoder<float>& model, const std::string& family, const Lookup& lookup) {
  load(model, names_of(family), lookup);
}

void load(Decoder<float>& model, const Names& names, const Lookup& lookup) {
  struct Coming {
    Matrix<float> host;
    Index missing;
  };
  // of those that lie in several pieces, until the last has come
  std::map<Parameter<float>*, Coming> coming;
  const std::vector<Piece> all_pieces = pieces(model, names);
  std::map<Parameter<float>*, Index> rows;  // that come; experts without a body keep zeros
  for (const Piece& p : all_pieces) {
    for (const Part& part : p.parts)
      rows[part.parameter] += part.rows;
  }
  for (const Piece& p : all_pieces) {
    if (elsewhere(p))
      continue;
    const Matrix<float> values = looked_up(lookup, p);
    if (p.router)
      take_router_state(p, values);
    for (const Part& part : p.parts) {
      const View<const float> all = part.parameter->value();
      auto at = coming.find(part.parameter);
      if (at == coming.end()) {
        at = coming
                 .emplace(part.parameter,
                          Coming{Matrix<float>(all.rows, all.cols), rows.at(part.parameter)})
                 .first;
      }
      Coming& c = at->second;
      for (Index r = 0; r < part.rows; ++r) {
        for (Index k = 0; k < part.columns(); ++k)
          c.host(part.first + r, k) = values.data()[part.offset + r * part.row + k * part.column];
      }
      if ((c.missing -= part.rows) > 0)
        continue;
      part.parameter->set(std::as_const(c.host).view());
      coming.erase(at);
    }
  }
}

std::vector<ExpertTensor> expert_tensors(Decoder<float>& model, const std::string& family) {
  std::vector<ExpertTensor> out;
  for (const Piece& p : pieces(model, names_of(family))) {
    if (p.parts.empty() || p.parts[0].parameter->kind() != ParameterKind::matrix)
      continue;
    Parameter<float>& parameter = *p.parts[0].parameter;
    const std::string& name = parameter.name();  // layers.3.moe.experts.gate
    if (name.find(".moe.experts.") == name.npos)
      continue;
    if (p.parts.size() != 1 || p.dims.size() != 2) {
      throw Error(Exit::usage, concat("the family ", family,
                                      " keeps several matrices of experts in the tensor '", p.name,
                                      "', and formats of few bits are for one matrix a tensor"))
          .hint("a family that keeps each apart (mixtral, qwen3_moe, deepseek_v3, ...)");
    }
    const Part& part = p.parts[0];
    out.push_back({p.name, std::stoi(name.substr(name.find('.') + 1)), int(part.first / part.rows),
                   p.dims[0], p.dims[1], &parameter, part.first});
  }
  return out;
}

std::vector<TensorRows> all_rows(Decoder<float>& model, const Names& names) {
  std::vector<TensorRows> out;
  for (const Piece& p : pieces(model, names)) {
    for (const Part& part : p.parts) {
      out.push_back({p.name, p.dims, part.parameter, part.first, part.rows, part.offset, part.row,
                     part.column, part.cols});
    }
  }
  return out;
}

std::vector<TensorRows> rows_elsewhere(Decoder<float>& model, const Names& names) {
  std::vector<TensorRows> out = all_rows(model, names);
  std::erase_if(out, [](const TensorRows& r) { return r.parameter->stored(); });
  return out;
}

}  // namespace moe
