// The plain exchange: one .npz, .safetensors or .pt with expert_ids [T, L, K] (or expert_ids.LAYER
// [T, K], the number being the layer's own), weights and dropped of the same shape, token_ids,
// positions, flags and modality [T] (names of its numbers: modality_names), sequence_lengths [Q]
// and domains [Q], layer_index and num_experts [L], and order [1]. -1 = no expert. A bare .npy is
// expert_ids.
#include <algorithm>
#include <set>

#include "lib/core/text.h"
#include "lib/import/array_bundle.h"
#include "lib/import/sink.h"

namespace moe {
namespace {

constexpr Index numbers_at_once = 1 << 24;
constexpr const char* three_axes = "[tokens, layers, choices]";

const char* const one_a_layer = "one number for each entry of the layer axis of expert_ids";

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

void must_match(const Layers& ids, const Layers& other) {
  for (std::size_t l = 0; l < other.arrays.size(); ++l) {
    const NumberArray& w = other.arrays[l];
    if (other.numbers != ids.numbers || w.shape != ids.arrays[l].shape)
      w.refuse(concat("is of another shape than expert_ids: ", text_of(w.shape), " in layer ",
                      other.numbers[l]),
               "an array of the shape of expert_ids");
  }
}

// A small array of whole numbers, one for each entry of the layer axis; empty where it is absent.
std::vector<int> numbers_of_layers(const ArrayBundle& bundle, const char* name, std::size_t layers,
                                   std::int64_t most) {
  std::vector<int> out;
  const NumberArray* a = bundle.whole(name);
  if (!a)
    return out;
  a->must_be_whole();
  a->must_have(1, "[layers]");
  if (a->shape[0] != Index(layers)) {
    a->refuse(concat("has ", a->shape[0], " entries, and expert_ids has ", layers, " layers"),
              one_a_layer);
  }
  for (Index l = 0; l < a->shape[0]; ++l) {
    const std::int64_t n = a->whole(a->place(l));
    if (n < 0 || n > most)
      a->refuse(concat("has the number ", n), one_a_layer);
    out.push_back(int(n));
  }
  return out;
}

// The layers' own numbers where the file says them, and how many experts they have.
void say_layers(const ArrayBundle& bundle, Layers& ids, ImportSink& sink) {
  const auto numbers = numbers_of_layers(bundle, "layer_index", ids.numbers.size(), 1 << 20);
  if (!numbers.empty()) {
    if (std::set<int>(numbers.begin(), numbers.end()).size() != numbers.size())
      bundle.whole("layer_index")->refuse("names a layer twice", one_a_layer);
    ids.numbers = numbers;
  }
  const auto experts = numbers_of_layers(bundle, "num_experts", ids.numbers.size(), 65'534);
  if (experts.empty())
    return;
  const auto [least, most] = std::minmax_element(experts.begin(), experts.end());
  sink.facts.experts = std::max(sink.facts.experts, *most);
  if (*least != *most) {
    sink.say(
        concat("layers of ", *least, " to ", *most, " experts: all are taken to have ", *most));
  }
}

void say_order(const ArrayBundle& bundle, ImportSink& sink) {
  const NumberArray* order = bundle.whole("order");
  if (!order)
    return;
  static const std::set<std::string> known{"key_desc", "weight_desc", "id_asc", "unknown"};
  if (order->texts.size() != 1 || !known.count(order->texts[0]))
    order->refuse("is none of key_desc, weight_desc, id_asc and unknown",
                  "order: an array of one text");
  sink.facts.order = order->texts[0];
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
  Layers ids, weights, dropped;
  const NumberArray *tokens = nullptr, *positions = nullptr, *flags = nullptr, *modality = nullptr;
  std::vector<std::uint8_t> modalities;  // numbers of the sink, by those of the file
  std::string where;
};

// One entry a token.
void check_column(const NumberArray* a, Index tokens) {
  if (!a)
    return;
  a->must_be_whole();
  a->must_have(1, "[tokens]");
  if (a->shape[0] != tokens) {
    a->refuse(concat("has ", a->shape[0], " entries, and expert_ids has ", tokens, " tokens"),
              "one entry a row of expert_ids");
  }
}

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
  must_match(a.ids, a.dropped);
  for (const NumberArray* column : {a.tokens, a.positions, a.flags, a.modality})
    check_column(column, a.ids.arrays[0].shape[0]);
}

// A whole number of a column, within 0 .. most.
std::uint32_t cell(const NumberArray& a, Index row, std::int64_t most) {
  const std::int64_t v = a.whole(a.place(row));
  if (v < 0 || v > most)
    a.refuse(concat("has ", v, " for token ", row), concat("numbers from 0 to ", most));
  return std::uint32_t(v);
}

void say_columns(const Arrays& a, TraceRows& rows, Index first, Index count) {
  for (Index t = first; t < first + count; ++t) {
    if (a.tokens)
      rows.token_id.push_back(std::uint32_t(a.tokens->whole(a.tokens->place(t))));
    if (a.positions)
      rows.position.push_back(cell(*a.positions, t, UINT32_MAX));
    if (a.flags)
      rows.flags.push_back(std::uint8_t(cell(*a.flags, t, 63)));
    if (a.modality) {
      const std::uint32_t m = cell(*a.modality, t, modality::unknown);
      if (m != modality::unknown && m >= a.modalities.size())
        a.modality->refuse(concat("has ", m, " for token ", t), "a number of modality_names");
      rows.modality.push_back(m < a.modalities.size() ? a.modalities[m]
                                                      : std::uint8_t(modality::unknown));
    }
  }
}

// Numbers of one layer's slots from row `first` on.
template <class T, class Get>
Matrix<T> slots(const NumberArray& a, Index first, Index count, Get get) {
  Matrix<T> out(count, a.shape[1]);
  for (Index t = 0; t < count; ++t) {
    for (Index k = 0; k < a.shape[1]; ++k)
      out(t, k) = get(a.place(first + t, k));
  }
  return out;
}

void say_rows(const Arrays& a, ImportSink& sink, Index first, Index count) {
  ImportBlock b;
  b.layers = a.ids.numbers;
  b.where = a.where;
  b.rows_before = first;
  for (std::size_t l = 0; l < a.ids.arrays.size(); ++l) {
    LayerRows& rows = b.rows.layer.emplace_back();
    const NumberArray& ids = a.ids.arrays[l];
    rows.expert = slots<int>(ids, first, count, [&](Index place) { return expert_id(ids, place); });
    if (!a.weights.arrays.empty()) {
      const NumberArray& w = a.weights.arrays[l];
      rows.weight = slots<float>(w, first, count, [&](Index p) { return float(w.real(p)); });
    }
    if (!a.dropped.arrays.empty()) {
      const NumberArray& d = a.dropped.arrays[l];
      rows.dropped = slots<std::uint8_t>(d, first, count, [&](Index p) { return d.real(p) != 0; });
    }
  }
  say_columns(a, b.rows, first, count);
  sink.rows(std::move(b));
}

class PlainArrays final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    const ImportFile& f = in.first();
    if (f.kind == FileKind::npy)
      return f.first_line().find("'<f") == std::string_view::npos;
    return bundle_names(f, {"expert_ids"});
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    for (const ImportFile& f : in.files())
      read_file(in, f, sink);
  }

 private:
  static void read_file(const ImportInputs&, const ImportFile&, ImportSink&);
};

Arrays arrays_of(const ArrayBundle& bundle, const std::string& where) {
  Arrays a;
  a.where = where;
  a.ids = layers_of(bundle, "expert_ids");
  a.weights = layers_of(bundle, "weights");
  a.dropped = layers_of(bundle, "dropped");
  a.tokens = bundle.whole("token_ids");
  a.positions = bundle.whole("positions");
  a.flags = bundle.whole("flags");
  a.modality = bundle.whole("modality");
  check(a);
  return a;
}

// The numbers that the sink gives to the modalities of the file.
std::vector<std::uint8_t> modalities_of(const ArrayBundle& bundle, ImportSink& sink) {
  const NumberArray* names = bundle.whole("modality_names");
  if (names && !names->is_text())
    names->refuse("is no array of texts", "modality_names: a text for each number of modality");
  std::vector<std::uint8_t> out;
  for (const std::string& name : names ? names->texts : modality_names())
    out.push_back(sink.modality(name));
  return out;
}

void PlainArrays::read_file(const ImportInputs& in, const ImportFile& f, ImportSink& sink) {
  const ArrayBundle bundle(f);
  Arrays a = arrays_of(bundle, concat(f.quoted(), " expert_ids"));
  say_layers(bundle, a.ids, sink);
  say_order(bundle, sink);
  if (a.modality)
    a.modalities = modalities_of(bundle, sink);
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
