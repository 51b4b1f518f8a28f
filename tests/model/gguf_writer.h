// A model of ours as llama.cpp's converter would write it: its names, its order of rows, its keys.
// Written from the description of the format, apart from the reader that it tests.
#pragma once
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "lib/core/matrix.h"
#include "lib/core/text.h"
#include "lib/model/decoder.h"
#include "lib/router/facts.h"
#include "lib/router/router.h"
#include "tests/gguf_bytes.h"

namespace moe::test {

struct GgufForm {
  std::string architecture;
  bool laced = false;                  // rows of queries and keys in pairs
  std::string feed_norm = "ffn_norm";  // the second norm of a layer
  bool fused_qkv = false;              // attn_qkv
  bool fused_experts = false;          // ffn_gate_up_exps
  bool single_experts = false;         // ffn_gate.E
  bool latent_split = true;            // attn_k_b and attn_v_b for kv_b
};

class GgufWriter {
 public:
  GgufWriter(Decoder<float>& model, GgufForm form) : model_(model), form_(std::move(form)) {}

  GgufBytes bytes() {
    out_.text("general.architecture", form_.architecture);
    keys();
    std::map<std::string, Matrix<float>> numbers;
    std::map<std::string, Dims> dims;
    for (const auto& p : model_.inventory()) {
      const View<const float> v = p.parameter->value();
      Matrix<float> m(v.rows, v.cols);
      p.parameter->read(0, m.view());
      dims[p.parameter->name()] = p.parameter->dims();
      numbers[p.parameter->name()] = std::move(m);
    }
    for (const auto& [name, m] : numbers)
      tensor(name, dims.at(name), m);
    for (const auto& [name, values] : vectors_)
      out_.floats(name, {values.size()}, values);
    const auto layers = model_.moe_layers();
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto beta = layers[i]->router().correction_bias();
      if (!beta.empty())
        write(concat("blk.", model_.layer_of(int(i)), ".exp_probs_b.bias"), {Index(beta.size())},
              {beta.begin(), beta.end()});
    }
    return out_;
  }
  void key(const std::string& name, std::uint32_t value) {
    out_.u32(form_.architecture + "." + name, value);
  }
  void key(const std::string& name, float value) {
    out_.f32(form_.architecture + "." + name, value);
  }
  void key(const std::string& name, const std::string& value) {
    out_.text(form_.architecture + "." + name, value);
  }
  void flag(const std::string& name, bool value) {
    out_.key(form_.architecture + "." + name, 7, raw(std::uint8_t(value)));
  }
  void vector(const std::string& name, const std::vector<float>& values) {
    vectors_[name] = values;
  }

 private:
  using Numbers = std::vector<float>;

  void keys() {
    const ModelConfig& c = model_.config();
    const auto n = [](Index v) {
      return std::uint32_t(v);
    };
    key("block_count", n(c.layers));
    key("context_length", n(c.context));
    key("embedding_length", n(c.hidden));
    key("feed_forward_length", n(c.dense_baseline_width()));
    key("attention.head_count", n(c.heads));
    key("rope.freq_base", float(c.rope_theta));
    key(c.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon"
                                : "attention.layer_norm_epsilon",
        float(c.norm_eps));
    if (c.kv_rank > 0) {
      latent_keys(c);
    } else {
      key("attention.head_count_kv", n(c.kv_heads));
      key("attention.key_length", n(c.head_dim));
      key("rope.dimension_count", n(c.rotary_dims()));
    }
    if (c.moe_layers() == 0)
      return;
    const RouterFacts f = router_facts(c.moe.router, c.moe.experts);
    key("expert_count", n(c.moe.experts));
    key("expert_used_count", n(f.k));
    key("expert_feed_forward_length", n(c.moe.width));
    if (c.window > 0)
      key("attention.sliding_window", n(c.window));
  }
  void latent_keys(const ModelConfig& c) {
    const auto n = [](Index v) {
      return std::uint32_t(v);
    };
    if (c.q_rank > 0)
      key("attention.q_lora_rank", n(c.q_rank));
    key("attention.kv_lora_rank", n(c.kv_rank));
    key("rope.dimension_count", n(c.rope_dim));
    if (form_.latent_split) {
      key("attention.head_count_kv", n(1));
      key("attention.key_length", n(c.kv_rank + c.rope_dim));
      key("attention.value_length", n(c.kv_rank));
      key("attention.key_length_mla", n(c.head_dim));
      key("attention.value_length_mla", n(c.value_dim));
    } else {
      key("attention.head_count_kv", n(c.heads));
      key("attention.key_length", n(c.head_dim));
      key("attention.value_length", n(c.value_dim));
    }
  }

  void write(const std::string& name, const Dims& dims, const Numbers& numbers) {
    std::vector<std::uint64_t> reversed(dims.rbegin(), dims.rend());
    out_.floats(name, reversed, numbers);
  }

  // "layers.3.attention.q" -> place "blk.3.", rest "attention.q"
  void tensor(const std::string& name, const Dims& dims, const Matrix<float>& m) {
    static const std::map<std::string, std::string> top = {{"embedding", "token_embd.weight"},
                                                           {"final_norm", "output_norm.weight"},
                                                           {"final_norm_bias", "output_norm.bias"},
                                                           {"output", "output.weight"},
                                                           {"output_bias", "output.bias"}};
    Numbers numbers(m.flat().begin(), m.flat().end());
    if (top.count(name))
      return write(top.at(name), dims, numbers);
    const auto dot = name.find('.', 7);
    const std::string place = concat("blk.", name.substr(7, dot - 7), ".");
    const std::string rest = name.substr(dot + 1);
    if (rest.starts_with("attention."))
      attention(place, rest.substr(10), dims, numbers);
    else if (rest.starts_with("moe.experts."))
      experts(place, rest.substr(12), dims, numbers);
    else
      write(place + plain_name(rest), dims, numbers);
  }

  std::string plain_name(const std::string& rest) const {
    const std::map<std::string, std::string> names = {
        {"attention_norm", "attn_norm.weight"},
        {"attention_norm_bias", "attn_norm.bias"},
        {"feed_norm", form_.feed_norm + ".weight"},
        {"feed_norm_bias", form_.feed_norm + ".bias"},
        {"moe.router.weight", "ffn_gate_inp.weight"},
        {"moe.router.bias", "ffn_gate_inp.bias"},
        {"moe.shared_gate.weight", "ffn_gate_inp_shexp.weight"}};
    if (names.count(rest))
      return names.at(rest);
    const std::string part = rest.substr(rest.rfind('.') + 1);
    return concat("ffn_", part, rest.starts_with("dense.") ? ".weight" : "_shexp.weight");
  }

  // Rows of `width` numbers: of each head of d rows, i and i + d/2 become neighbours.
  Numbers laced(const Numbers& from, Index width) const {
    const Index d = model_.config().head_dim;
    Numbers to(from.size());
    for (Index r = 0; r < Index(from.size()) / width; ++r) {
      const Index i = r % d;
      const Index at = r - i + (i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1);
      std::copy_n(from.begin() + r * width, width, to.begin() + at * width);
    }
    return to;
  }

  void attention(const std::string& place, std::string part, const Dims& dims, Numbers numbers) {
    const bool bias = part.ends_with("_bias");
    if (bias)
      part = part.substr(0, part.size() - 5);
    if (part == "kv_b" && form_.latent_split)
      return latent(place, numbers);
    const bool turned = part == "q" || part == "k";
    if (turned && form_.laced)
      numbers = laced(numbers, bias ? 1 : dims.back());
    const std::string tail = bias ? ".bias" : ".weight";
    if (form_.fused_qkv && (turned || part == "v"))
      return fused(place + "attn_qkv" + tail, part, dims, numbers);
    const std::string theirs = part == "o" ? "output" : part == "kv_a" ? "kv_a_mqa" : part;
    write(concat(place, "attn_", theirs, tail), dims, numbers);
  }
  // q, k and v come in the order k, q, v.
  void fused(const std::string& name, const std::string& part, Dims dims, const Numbers& numbers) {
    parts_[name + part] = numbers;
    if (part != "v")
      return;
    Numbers all;
    for (const char* p : {"q", "k", "v"})
      all.insert(all.end(), parts_[name + p].begin(), parts_[name + p].end());
    dims[0] = dims.size() == 1 ? Index(all.size()) : Index(all.size()) / dims[1];
    write(name, dims, all);
  }
  void latent(const std::string& place, const Numbers& numbers) {
    const ModelConfig& c = model_.config();
    Numbers keys, values;
    for (Index h = 0; h < c.heads; ++h) {
      const float* head = numbers.data() + h * (c.nope_dim + c.value_dim) * c.kv_rank;
      for (Index r = 0; r < c.kv_rank; ++r) {
        for (Index n = 0; n < c.nope_dim; ++n)
          keys.push_back(head[n * c.kv_rank + r]);
      }
      const float* value = head + c.nope_dim * c.kv_rank;
      values.insert(values.end(), value, value + c.value_dim * c.kv_rank);
    }
    write(place + "attn_k_b.weight", {c.heads, c.kv_rank, c.nope_dim}, keys);
    write(place + "attn_v_b.weight", {c.heads, c.value_dim, c.kv_rank}, values);
  }

  void experts(const std::string& place, std::string part, const Dims& dims,
               const Numbers& numbers) {
    const bool bias = part.ends_with("_bias");
    if (bias)
      part = part.substr(0, part.size() - 5);
    const std::string name = concat(place, "ffn_", part, bias ? "_exps.bias" : "_exps.weight");
    if (form_.single_experts)
      return singly(concat(place, "ffn_", part, "."), dims, numbers);
    if (form_.fused_experts && !bias && part != "down")
      return both(place, part, dims, numbers);
    write(name, dims, numbers);
  }
  void singly(const std::string& stem, const Dims& dims, const Numbers& numbers) {
    const Index each = dims[1] * dims[2];
    for (Index e = 0; e < dims[0]; ++e) {
      const auto from = numbers.begin() + e * each;
      write(concat(stem, e, ".weight"), {dims[1], dims[2]}, {from, from + each});
    }
  }
  // Gates come before ups.
  void both(const std::string& place, const std::string& part, const Dims& dims,
            const Numbers& numbers) {
    const std::string name = place + "ffn_gate_up_exps.weight";
    parts_[name + part] = numbers;
    if (part == "gate")
      return;
    const Numbers& gates = parts_[name + "gate"];
    const Index each = dims[1] * dims[2];
    Numbers all;
    for (Index e = 0; e < dims[0]; ++e) {
      for (const Numbers* from : std::initializer_list<const Numbers*>{&gates, &numbers})
        all.insert(all.end(), from->begin() + e * each, from->begin() + (e + 1) * each);
    }
    write(name, {dims[0], 2 * dims[1], dims[2]}, all);
  }

  Decoder<float>& model_;
  GgufForm form_;
  GgufBytes out_;
  std::map<std::string, Numbers> parts_;
  std::map<std::string, Numbers> vectors_;
};

}  // namespace moe::test
