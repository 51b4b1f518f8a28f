// The plain exchange: one .npz, .safetensors or .pt with expert_ids [T, L, K] (or expert_ids.LAYER
// [T, K], the number being the layer's own), weights of the same shape, token_ids [T],
// sequence_lengths [Q] and domains [Q]. -1 = no expert. A bare .npy is expert_ids.
#include <algorithm>

#include "lib/core/text.h"
#include "lib/import/array_bundle.h"
#include "lib/import/sink.h"

namespace moe {
namespace {

constexpr Index numbers_at_once = 1 << 24;
constexpr const char* three_axes = "[tokens, layers, choices]";

struct Layers {
  std::vector<int> numbers;
  std::vector<NumberArray> arrays;  // [T, K] each
};

// NAME as one array of two axes a layer; empty where it is absent.
Layers layers_of(const ArrayBundle& bundle, const std::string& name) {
  Layers out;
  const ArrayGroup* group = bundle.find(name);
  if (!group)
    return out;
  if (group->whole) {
    const NumberArray& a = *group->whole;
    a.must_have(3, three_axes);
    if (a.shape[1] > 4096)
      a.refuse(concat("has ", a.shape[1], " layers"), three_axes);
    for (Index l = 0; l < a.shape[1]; ++l) {
      NumberArray one = a;
      one.bytes.span = a.bytes.span.subspan(
          a.size() == 0 ? 0 : std::size_t(l * a.stride[1] * bytes_of(a.dtype)));
      one.shape = {a.shape[0], a.shape[2]};
      one.stride = {a.stride[0], a.stride[2]};
      out.numbers.push_back(int(l));
      out.arrays.push_back(std::move(one));
    }
    return out;
  }
  for (const auto& [number, a] : group->by_number) {
    a.must_have(2, "[tokens, choices]");
    out.numbers.push_back(number);
    out.arrays.push_back(a);
  }
  return out;
}

void must_match(const Layers& ids, const Layers& weights) {
  if (weights.arrays.empty())
    return;
  for (std::size_t l = 0; l < weights.arrays.size(); ++l) {
    const NumberArray& w = weights.arrays[l];
    if (weights.numbers != ids.numbers || w.shape != ids.arrays[l].shape)
      w.refuse(concat("is of another shape than expert_ids: ", text_of(w.shape), " in layer ",
                      weights.numbers[l]),
               "weights of the shape of expert_ids");
  }
}

// Lengths of the sequences; all rows as one where they are not given.
std::vector<Index> lengths_of(const ArrayBundle& bundle, Index tokens, ImportSink& sink) {
  const NumberArray* lengths = bundle.whole("sequence_lengths");
  if (!lengths) {
    sink.say("sequence boundaries are not in the file");
    return {tokens};
  }
  lengths->must_be_whole();
  lengths->must_have(1, "[sequences]");
  std::vector<Index> out;
  Index sum = 0;
  for (Index q = 0; q < lengths->shape[0]; ++q) {
    const std::int64_t n = lengths->whole(lengths->place(q));
    if (n < 0 || n > tokens - sum) {
      lengths->refuse(concat("do not add up: sequence ", q, " has ", n, " of ", tokens, " tokens"),
                      "sequence_lengths whose sum is the number of tokens");
    }
    sum += n;
    out.push_back(n);
  }
  if (sum != tokens) {
    lengths->refuse(concat("add up to ", sum, ", and there are ", tokens, " tokens"),
                    "sequence_lengths whose sum is the number of tokens");
  }
  return out;
}

struct Arrays {
  Layers ids, weights;
  const NumberArray* tokens = nullptr;
  std::string where;
};

void check(const Arrays& a) {
  if (a.ids.arrays.empty())
    refuse_import(a.where, "has no expert_ids", "expert_ids [tokens, layers, choices]");
  for (const NumberArray& ids : a.ids.arrays) {
    ids.must_be_whole();
    if (ids.shape[0] != a.ids.arrays[0].shape[0]) {
      ids.refuse(
          concat("has ", ids.shape[0], " tokens, and another layer ", a.ids.arrays[0].shape[0]),
          "one row a token in every layer");
    }
  }
  must_match(a.ids, a.weights);
  if (!a.tokens)
    return;
  a.tokens->must_be_whole();
  a.tokens->must_have(1, "[tokens]");
  if (a.tokens->shape[0] != a.ids.arrays[0].shape[0]) {
    a.tokens->refuse(concat("has ", a.tokens->shape[0], " entries, and expert_ids has ",
                            a.ids.arrays[0].shape[0], " tokens"),
                     "one token id a row");
  }
}

void say_rows(const Arrays& a, ImportSink& sink, Index first, Index count) {
  ImportBlock b;
  b.layers = a.ids.numbers;
  b.where = a.where;
  b.rows_before = first;
  for (std::size_t l = 0; l < a.ids.arrays.size(); ++l) {
    const NumberArray& ids = a.ids.arrays[l];
    LayerRows& rows = b.rows.layer.emplace_back();
    rows.expert = Matrix<int>(count, ids.shape[1]);
    for (Index t = 0; t < count; ++t) {
      for (Index k = 0; k < ids.shape[1]; ++k) {
        rows.expert(t, k) = expert_id(ids, ids.place(first + t, k));
      }
    }
    if (a.weights.arrays.empty())
      continue;
    const NumberArray& w = a.weights.arrays[l];
    rows.weight = Matrix<float>(count, w.shape[1]);
    for (Index t = 0; t < count; ++t) {
      for (Index k = 0; k < w.shape[1]; ++k)
        rows.weight(t, k) = float(w.real(w.place(first + t, k)));
    }
  }
  for (Index t = 0; a.tokens && t < count; ++t)
    b.rows.token_id.push_back(std::uint32_t(a.tokens->whole(a.tokens->place(first + t))));
  sink.rows(std::move(b));
}

class PlainArrays final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    const ImportFile& f = in.first();
    if (f.kind == FileKind::npy)
      return f.first_line().find("'f") == std::string_view::npos &&
             f.first_line().find("'<f") == std::string_view::npos;
    return bundle_names(f, {"expert_ids"});
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    for (const ImportFile& f : in.files())
      read_file(in, f, sink);
  }

 private:
  static void read_file(const ImportInputs&, const ImportFile&, ImportSink&);
};

void PlainArrays::read_file(const ImportInputs& in, const ImportFile& f, ImportSink& sink) {
  const ArrayBundle bundle(f);
  Arrays a;
  a.where = concat(f.quoted(), " expert_ids");
  a.ids = layers_of(bundle, "expert_ids");
  a.weights = layers_of(bundle, "weights");
  a.tokens = bundle.whole("token_ids");
  check(a);
  for (const NumberArray& w : a.weights.arrays) {
    if (w.dtype == DType::f32 || w.dtype == DType::f64)
      sink.facts.wide_weights = true;
  }
  const auto lengths = lengths_of(bundle, a.ids.arrays[0].shape[0], sink);
  const NumberArray* domains = bundle.whole("domains");
  if (domains && (!domains->is_text() || domains->texts.size() != lengths.size())) {
    domains->refuse(concat("has ", domains->texts.size(), " texts, and there are ", lengths.size(),
                           " sequences"),
                    "one label a sequence");
  }
  const Index row = Index(a.ids.arrays.size()) * a.ids.arrays[0].shape[1];
  const Index at_once = std::clamp<Index>(numbers_at_once / std::max<Index>(row, 1), 1, 4096);
  Index first = 0;
  for (std::size_t q = 0; q < lengths.size(); ++q) {
    sink.sequence(domains ? domains->texts[q] : in.domain_of(f));
    for (Index done = 0; done < lengths[q]; done += at_once)
      say_rows(a, sink, first + done, std::min(at_once, lengths[q] - done));
    first += lengths[q];
  }
}

}  // namespace

std::unique_ptr<Importer> make_arrays_importer() {
  return std::make_unique<PlainArrays>();
}

}  // namespace moe
