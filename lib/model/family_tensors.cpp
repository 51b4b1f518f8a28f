// Tensor names of the families. One list of pieces says which numbers of which parameter lie under which name; store() and load() walk it.
#include <map>

#include "lib/core/error.h"
#include "lib/model/families.h"

namespace moe {
namespace {

struct Piece {
  std::string name;
  Dims dims;
  Parameter<float>* parameter = nullptr;  // its rows first .. first+rows
  Index first = 0, rows = 1;
  Router* router = nullptr;  // instead: its correction bias
};

// The name of an expert's matrix below "experts.3.": gate, up, down, gate_bias, ...
std::string expert_tail(const std::string& family, const std::string& part) {
  if (family == "mixtral") return part == "gate" ? "w1.weight" : part == "up" ? "w3.weight" : "w2.weight";
  const bool bias = part.ends_with("_bias");
  return (bias ? part.substr(0, part.size() - 5) : part) + (bias ? "_proj.bias" : "_proj.weight");
}

std::string tail(const std::string& family, const std::string& ours) {
  static const std::map<std::string, std::string> same{
      {"attention_norm", "input_layernorm.weight"}, {"feed_norm", "post_attention_layernorm.weight"}, {"attention.q", "self_attn.q_proj.weight"},
      {"attention.k", "self_attn.k_proj.weight"}, {"attention.v", "self_attn.v_proj.weight"}, {"attention.o", "self_attn.o_proj.weight"},
      {"attention.q_norm", "self_attn.q_norm.weight"}, {"attention.k_norm", "self_attn.k_norm.weight"}, {"moe.shared_gate.weight", "mlp.shared_expert_gate.weight"}};
  if (const auto at = same.find(ours); at != same.end()) return at->second;
  const std::string below = ours.substr(ours.rfind('.') + 1);
  if (ours.starts_with("attention.")) return "self_attn." + (below.ends_with("_bias") ? below.substr(0, below.size() - 5) + "_proj.bias" : below == "sinks" ? below : below.ends_with("_norm") ? below + ".weight" : below + "_proj.weight");
  if (ours == "attention_norm_bias") return "input_layernorm.bias";
  if (ours == "feed_norm_bias") return "post_attention_layernorm.bias";
  if (ours == "moe.router.weight") return family == "mixtral" ? "block_sparse_moe.gate.weight" : "mlp.gate.weight";
  if (ours == "moe.router.bias") return "mlp.gate.bias";
  if (ours.starts_with("moe.router.")) return "mlp.router." + below + ".weight";
  if (ours.starts_with("dense.")) return "mlp." + expert_tail("", below);
  if (ours.starts_with("moe.shared.")) return (family == "qwen2_moe" ? "mlp.shared_expert." : "mlp.shared_experts.") + expert_tail("", below);
  throw Error(Exit::bug, concat("the parameter '", ours, "' has no published name"));
}

void add_parameter(std::vector<Piece>& out, const std::string& family, Parameter<float>& p) {
  const std::string& name = p.name();
  const Index rows = p.value().rows;
  if (name == "embedding" || name == "final_norm" || name == "output")
    return out.push_back({name == "embedding" ? "model.embed_tokens.weight" : name == "output" ? "lm_head.weight" : "model.norm.weight", p.dims(), &p, 0, rows});
  if (name == "final_norm_bias" || name == "output_bias") return out.push_back({name == "output_bias" ? "lm_head.bias" : "model.norm.bias", p.dims(), &p, 0, rows});
  const auto dot = name.find('.', 7);  // layers.3.
  const std::string at = "model." + name.substr(0, dot + 1), rest = name.substr(dot + 1), experts = "moe.experts.";
  if (!rest.starts_with(experts)) return out.push_back({at + tail(family, rest), p.dims(), &p, 0, rows});
  const std::string base = at + (family == "mixtral" ? "block_sparse_moe.experts." : "mlp.experts.");
  const Index count = p.dims()[0];
  for (Index e = 0; e < count; ++e)
    out.push_back({concat(base, e, ".", expert_tail(family, rest.substr(experts.size()))), Dims(p.dims().begin() + 1, p.dims().end()), &p, e * (rows / count), rows / count});
}

std::vector<Piece> pieces(Decoder<float>& model, const std::string& family) {
  std::vector<Piece> out;
  for (Parameter<float>* p : model.parameters()) add_parameter(out, family, *p);
  const auto layers = model.moe_layers();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    Router& router = layers[i]->router();
    if (router.correction_bias().empty() && family != "glm4_moe") continue;  // the class has one always
    out.push_back({concat("model.layers.", model.layer_of(int(i)), ".mlp.gate.e_score_correction_bias"), {model.config().moe.experts}, nullptr, 0, 1, &router});
  }
  return out;
}

}  // namespace

std::vector<NamedTensor> store(Decoder<float>& model, const std::string& family) {
  std::vector<NamedTensor> out;
  for (Piece& p : pieces(model, family)) {
    const auto make = [p, &model] {
      Tensor t(DType::f32, p.dims);
      if (p.parameter) {
        const View<const float> v = p.parameter->value().slice(p.first, p.rows);
        model.backend().to_host(v.data, t.mutable_bytes().data(), std::size_t(v.size()) * sizeof(float));
      } else {
        const auto beta = p.router->correction_bias();
        for (std::size_t e = 0; e < beta.size(); ++e) t.mutable_view<float>().data[e] = float(beta[e]);
      }
      return t;
    };
    out.emplace_back(p.name, DType::f32, p.dims, make);
  }
  return out;
}

void load(Decoder<float>& model, const std::string& family, const Lookup& lookup) {
  std::map<Parameter<float>*, Matrix<float>> host;  // of those that lie in several pieces, until the last has come
  for (const Piece& p : pieces(model, family)) {
    const Matrix<float> values = lookup(p.name, p.dims).to_float();
    if (!p.parameter) {
      const auto beta = p.router->correction_bias();
      for (std::size_t e = 0; e < beta.size(); ++e) beta[e] = double(values.data()[e]);
      continue;
    }
    const View<const float> whole = p.parameter->value();
    if (values.size() != p.rows * whole.cols) throw Error(Exit::bug, concat("'", p.name, "' came with ", values.size(), " numbers for ", p.rows * whole.cols));
    Matrix<float>& m = host.try_emplace(p.parameter, whole.rows, whole.cols).first->second;
    std::ranges::copy(values.flat(), m.view().slice(p.first, p.rows).data);
    if (p.first + p.rows < whole.rows) continue;
    p.parameter->set(std::as_const(m).view());
    host.erase(p.parameter);
  }
}

}  // namespace moe
