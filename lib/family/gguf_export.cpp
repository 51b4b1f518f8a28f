// Tensors of a model as llama.cpp's converter leaves them.
#include "lib/family/gguf_export.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/checkpoint/quant/quantise.h"
#include "lib/core/error.h"
#include "lib/family/config_like.h"
#include "lib/family/family.h"
#include "lib/family/gguf_config.h"
#include "lib/family/gguf_export_keys.h"
#include "lib/family/gguf_names.h"
#include "lib/files/file.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

const GgmlType& type_named(std::string_view name) {
  const auto all = ggml_types();
  return *std::ranges::find(all, name, &GgmlType::name);
}

// The numbers of a tensor that is made when it is asked for.
struct Source {
  std::string name;
  Dims dims;
  std::function<Matrix<float>()> make;
};

Source as_is(const NamedTensor& t) {
  return {t.name, t.dims, [make = t.make] {
            return make().to_float();
          }};
}

// In each head, row i of the first half and row i of the second become neighbours.
Source laced(const NamedTensor& t, Index head) {
  const auto make = [t, head] {
    const Matrix<float> old = t.make().to_float();
    const Index width = t.dims.size() > 1 ? t.dims.back() : 1;
    const Index rows = old.size() / width;
    Matrix<float> out(rows, width);
    for (Index r = 0; r < rows; ++r) {
      const Index in_head = r % head;
      const Index to = r - in_head + in_head % (head / 2) * 2 + in_head / (head / 2);
      std::copy_n(old.data() + r * width, width, out.data() + to * width);
    }
    return out;
  };
  return {t.name, t.dims, make};
}

// attn_q, attn_k and attn_v one after another, called attn_qkv.
Source fused(const std::string& name, const std::vector<NamedTensor>& parts) {
  Dims dims = parts[0].dims;
  for (std::size_t i = 1; i < parts.size(); ++i)
    dims[0] += parts[i].dims[0];
  const auto make = [parts, dims] {
    const Index width = dims.size() > 1 ? dims.back() : 1;
    Matrix<float> out(dims[0], width);
    float* to = out.data();
    for (const NamedTensor& part : parts) {
      const Matrix<float> one = part.make().to_float();
      to = std::copy_n(one.data(), one.size(), to);
    }
    return out;
  };
  return {name, dims, make};
}

// kv_b (heads * (nope + value), rank) in two: the keys of each head transposed, (heads, rank,
// nope), and the values, (heads, value, rank).
std::vector<Source> latent(const NamedTensor& t, const ModelConfig& c) {
  const Index heads = c.heads;
  const Index nope = c.nope_dim;
  const Index value = c.value_dim;
  const Index rank = c.kv_rank;
  const std::string at = t.name.substr(0, t.name.rfind("attn_kv_b"));
  const auto keys = [t, heads, nope, value, rank] {
    const Matrix<float> old = t.make().to_float();
    Matrix<float> out(heads * rank, nope);
    for (Index h = 0; h < heads; ++h) {
      for (Index n = 0; n < nope; ++n) {
        for (Index r = 0; r < rank; ++r)
          out(h * rank + r, n) = old.data()[(h * (nope + value) + n) * rank + r];
      }
    }
    return out;
  };
  const auto values = [t, heads, nope, value, rank] {
    const Matrix<float> old = t.make().to_float();
    Matrix<float> out(heads * value, rank);
    for (Index h = 0; h < heads; ++h)
      std::copy_n(old.data() + (h * (nope + value) + nope) * rank, value * rank,
                  out.data() + h * value * rank);
    return out;
  };
  return {{at + "attn_k_b.weight", {heads, rank, nope}, keys},
          {at + "attn_v_b.weight", {heads, value, rank}, values}};
}

bool is_of(const std::string& tensor, const char* part) {
  return tensor.find(concat(".", part, ".")) != tensor.npos;
}

// The tensors of the model in the converter's order of rows.
std::vector<Source> converted(const std::vector<NamedTensor>& tensors, const ModelConfig& c,
                              const GgufExportForm& form, bool lace) {
  std::vector<Source> out;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const NamedTensor& t = tensors[i];
    const bool query = is_of(t.name, "attn_q");
    if (form.fused_qkv && (query || is_of(t.name, "attn_k") || is_of(t.name, "attn_v"))) {
      if (!query)
        continue;
      const std::string at = t.name.substr(0, t.name.rfind("attn_q"));
      const std::string tail = t.name.substr(t.name.rfind('.'));
      std::vector<NamedTensor> parts;
      for (const char* part : {"attn_q", "attn_k", "attn_v"})
        parts.push_back(*std::ranges::find(tensors, concat(at, part, tail), &NamedTensor::name));
      out.push_back(fused(concat(at, "attn_qkv", tail), parts));
    } else if (lace && (query || is_of(t.name, "attn_k"))) {
      out.push_back(laced(t, c.head_dim));
    } else if (is_of(t.name, "attn_kv_b")) {
      for (Source& s : latent(t, c))
        out.push_back(std::move(s));
    } else {
      out.push_back(as_is(t));
    }
  }
  return out;
}

// Vectors, biases and what decides routing are always float32.
bool stays_wide(const Source& s) {
  return s.dims.size() < 2 || s.dims[0] == 1 || s.name.ends_with(".bias") ||
         s.name.find("_norm.") != s.name.npos || is_of(s.name, "ffn_gate_inp");
}

// In files of 4 bits only feed-forwards have so few: attention, embedding and output have 8.
const GgmlType& type_of(const Source& s, const GgmlType& wanted) {
  if (stays_wide(s))
    return type_named("F32");
  if (wanted.name == "Q4_0" && s.name.find(".ffn_") == s.name.npos)
    return type_named("Q8_0");
  return wanted;
}

GgufEntry entry_of(const Source& s, const GgmlType& wanted, int& narrow) {
  const GgmlType* type = &type_of(s, wanted);
  if (s.dims.back() % type->block != 0) {
    type = &type_named("F16");
    ++narrow;
  }
  GgufEntry out{s.name, s.dims, type, {}};
  if (out.dims.size() == 2 && out.dims[0] == 1)
    out.dims = {out.dims[1]};
  out.write = [make = s.make, type](OutputFile& to) {
    const Matrix<float> numbers = make();
    std::vector<std::byte> bytes;
    constexpr std::size_t at_once = std::size_t(1) << 20;
    const auto all = numbers.flat();
    for (std::size_t i = 0; i < all.size(); i += at_once) {
      bytes.clear();
      quantise(*type, all.subspan(i, std::min(at_once, all.size() - i)), bytes);
      to.write(bytes);
    }
  };
  return out;
}

GgufEntry entry_of(const GgufVector& v) {
  return {
      v.name, {Index(v.values.size())}, &type_named("F32"), [values = v.values](OutputFile& to) {
        to.write(std::as_bytes(std::span(values)));
      }};
}

// general.file_type: what most tensors are
std::uint32_t file_type(const GgmlType& type) {
  constexpr std::pair<std::string_view, std::uint32_t> labels[] = {
      {"F32", 0}, {"F16", 1}, {"Q4_0", 2}, {"Q8_0", 7}, {"BF16", 32}};
  for (const auto& [name, label] : labels) {
    if (name == type.name)
      return label;
  }
  throw Error(Exit::bug, concat("no label for files of ", type.name));
}

// Models of the family that llama.cpp does not open, or opens as others.
std::vector<std::string> limits_of(const GgufExportForm& form, const ModelConfig& c) {
  std::vector<std::string> out;
  int leading = 0;
  while (leading < c.layers && !c.is_moe(leading))
    ++leading;
  const Index dense = c.layers - c.moe_layers();
  const bool others = form.dense_layers && form.architecture != "llama4" && dense > leading;
  if (c.moe_layers() > 0 && dense > 0 && (!form.dense_layers || others)) {
    out.push_back(concat("llama.cpp opens files of ", form.architecture, " only where ",
                         others ? "layers without experts come first" : "every layer has experts",
                         ", and this model has ", dense, " without"));
  }
  if (form.architecture == "llama" && c.window > 0) {
    out.push_back(concat("llama.cpp has no window of attention in ", form.architecture, ": beyond ",
                         c.window, " tokens it computes something else"));
  }
  if (c.kv_rank > 0 && c.q_rank == 0 && c.layers != 26 && c.layers != 27) {
    out.emplace_back(
        "llama.cpp opens models whose queries are not compressed only where they have 26 or 27 "
        "layers");
  }
  return out;
}

}  // namespace

std::optional<std::string> gguf_architecture_of(const std::string& family) {
  const GgufExportForm* form = gguf_form_of(family);
  return form ? std::optional(std::string(form->architecture)) : std::nullopt;
}

GgufExport gguf_export(Decoder<float>& model, const std::string& family, const std::string& name,
                       const GgmlType& type) {
  const GgufExportForm* form = gguf_form_of(family);
  if (!form) {
    throw Error(Exit::usage,
                concat("llama.cpp has no architecture for ", family, " that this program writes"))
        .hint(concat("a folder (-o NAME without .gguf), or a model of one of ",
                     join(gguf_architectures())));
  }
  GgufExport out;
  const ModelConfig& c = model.config();
  out.keys.text("general.architecture", std::string(form->architecture));
  out.keys.text("general.type", "model");
  out.keys.text("general.name", name);
  out.keys.u32("general.file_type", file_type(type));
  out.keys.u32("general.quantization_version", 2);
  std::vector<GgufVector> vectors;
  write_gguf_keys(*form, c, out.keys, vectors);
  const bool corrected = rules_of(family).names.always_corrected;
  const bool lace = gguf_laces(std::string(form->architecture));
  const std::vector<NamedTensor> tensors = store(model, gguf_names(form->feed_norm, corrected));
  for (const Source& s : converted(tensors, c, *form, lace))
    out.entries.push_back(entry_of(s, type, out.narrow));
  for (const GgufVector& v : vectors)
    out.entries.push_back(entry_of(v));
  out.notes = limits_of(*form, c);
  return out;
}

namespace {

bool near(const std::vector<double>& a, const std::vector<double>& b) {
  constexpr double of_floats = 1e-6;  // divisors are written in float32
  return std::ranges::equal(
      a, b, [](double x, double y) { return std::abs(x - y) <= of_floats * std::abs(x); });
}

// Llama 3's rule comes back as divisors, the same on both sides of the context.
bool turned_alike(const ModelConfig& written, const ModelConfig& read) {
  if (written.rotary_dims() != read.rotary_dims())
    return false;
  const Rotary a = rotary_of(written.rope, written.rotary_dims(), written.rope_theta);
  const Rotary b = rotary_of(read.rope, read.rotary_dims(), read.rope_theta);
  const auto& far_a = a.far_frequency.empty() ? a.frequency : a.far_frequency;
  const auto& far_b = b.far_frequency.empty() ? b.frequency : b.far_frequency;
  const double scale_a = a.original > 0 ? a.far_scale : a.scale;
  const double scale_b = b.original > 0 ? b.far_scale : b.scale;
  const bool one_set = near(a.frequency, far_a) && a.scale == scale_a;
  return near(a.frequency, b.frequency) && near(far_a, far_b) &&
         near({a.scale, scale_a}, {b.scale, scale_b}) && (one_set || a.original == b.original);
}

}  // namespace

std::string gguf_difference(const ModelConfig& written, const ModelConfig& read) {
  ModelConfig as_read = read;
  if (turned_alike(written, read)) {
    as_read.rope = written.rope;
    as_read.rope_theta = written.rope_theta;
  }
  return join(model_differences(written, as_read));
}

}  // namespace moe
