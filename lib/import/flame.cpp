// FLAME-MoE's traces: actives/STEP/LAYER/FILE.pt = (scores [T, K], indices [T, K]), or all
// probabilities [T, E]; samples/FILE.pt = token ids. Row i is one token in all files. On Hugging
// Face the same lies in Parquet, which is refused with the way around it.
#include <algorithm>
#include <map>

#include "lib/core/text.h"
#include "lib/import/inputs.h"
#include "lib/import/sink.h"

namespace moe {
namespace {

constexpr Index rows_at_once = 4096;
const char* const as_published = "actives/STEP with its folders of layers, and samples";

std::int64_t whole_name(const std::string& name) {
  const auto first = name.find_first_of("0123456789");
  return first == name.npos ? -1 : number_in(name, name.substr(0, first));
}

class Flame final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return std::any_of(in.files().begin(), in.files().end(), [](const ImportFile& f) {
      return f.kind == FileKind::parquet ||
             f.path.parent_path().parent_path().parent_path().filename() == "actives";
    });
  }
  void read(const ImportInputs&, ImportSink&) const override;
};

struct Layer {
  const NumberArray *scores = nullptr, *ids = nullptr;
};

struct Part {  // one FILE
  std::map<int, Layer> layers;
  const NumberArray* tokens = nullptr;
};

Layer layer_of(const ImportFile& f) {
  const PickleValue root = f.torch->root();
  if (!root.is_list() || root.size() != 2 || !root.item(0).is(PickleKind::array) ||
      !root.item(1).is(PickleKind::array))
    refuse_import(f.quoted(), concat("holds ", root.about(), ", not scores and indices"),
                  as_published);
  Layer out{&root.item(0).array(), &root.item(1).array()};
  out.ids->must_be_whole();
  out.ids->must_have(2, "[tokens, choices]");
  out.scores->must_have(2, "[tokens, choices]");
  if (out.ids->shape != out.scores->shape)
    refuse_import(f.quoted(), "has scores and indices of different shapes", as_published);
  return out;
}

void say_rows(const Part& p, const std::string& name, Index first, Index count, ImportSink& sink) {
  ImportBlock b;
  b.where = name;
  b.rows_before = first;
  for (const auto& [number, layer] : p.layers) {
    b.layers.push_back(number);
    LayerRows& rows = b.rows.layer.emplace_back();
    const Index k = layer.ids->shape[1];
    rows.expert = Matrix<int>(count, k);
    rows.weight = Matrix<float>(count, k);
    for (Index t = 0; t < count; ++t) {
      for (Index c = 0; c < k; ++c) {
        const std::int64_t id = layer.ids->whole(layer.ids->place(first + t, c));
        rows.expert(t, c) = int(std::clamp<std::int64_t>(id, -2, INT32_MAX));
        rows.weight(t, c) = float(layer.scores->real(layer.scores->place(first + t, c)));
      }
    }
  }
  for (Index t = 0; p.tokens && t < count; ++t)
    b.rows.token_id.push_back(std::uint32_t(p.tokens->whole(p.tokens->place(first + t))));
  sink.rows(std::move(b));
}

void say_part(const Part& p, const std::string& name, ImportSink& sink) {
  if (p.layers.empty())
    refuse_import(name, "has token ids, but no routes", as_published);
  const Index rows = p.layers.begin()->second.ids->shape[0];
  for (const auto& [number, layer] : p.layers) {
    if (layer.ids->shape[0] != rows)
      layer.ids->refuse(concat("has ", layer.ids->shape[0], " tokens in layer ", number,
                               ", and another layer ", rows),
                        as_published);
  }
  if (p.tokens) {
    p.tokens->must_be_whole();
    p.tokens->must_have(1, "[tokens]");
    if (p.tokens->shape[0] != rows)
      p.tokens->refuse(concat("has ", p.tokens->shape[0], " token ids, and the routes ", rows),
                       as_published);
  }
  sink.sequence();
  for (Index first = 0; first < rows; first += rows_at_once)
    say_rows(p, name, first, std::min(rows_at_once, rows - first), sink);
}

void Flame::read(const ImportInputs& in, ImportSink& sink) const {
  sink.facts.engine = "megatron";
  sink.facts.weight_kind = "prob";
  std::map<std::string, Part> parts;
  for (const ImportFile& f : in.files()) {
    if (f.kind == FileKind::parquet) {
      refuse_import(f.quoted(), "is Parquet, which is not read",
                    "in Python: t = pyarrow.parquet.read_table(f); ids = "
                    "numpy.stack(t['indices'].to_numpy()); numpy.savez('a.npz', **{'expert_ids.2': "
                    "ids})");
    }
    if (f.kind != FileKind::torch)
      refuse_import(f.quoted(), "is no file of torch.save", as_published);
    Part& part = parts[f.path.filename().string()];
    const auto folder = f.path.parent_path();
    if (f.torch->root().is(PickleKind::array)) {
      part.tokens = &f.torch->root().array();
      continue;
    }
    const std::int64_t layer = whole_name(folder.filename().string());
    if (layer < 0 || layer > 4096)
      refuse_import(f.quoted(), "lies in no folder that is named by its layer", as_published);
    sink.facts.checkpoint_step =
        std::max(sink.facts.checkpoint_step, whole_name(folder.parent_path().filename().string()));
    part.layers[int(layer)] = layer_of(f);
  }
  for (const auto& [name, part] : parts)
    say_part(part, in_quotes(name), sink);
  sink.say("sequence boundaries are not in the file: one a file");
}

}  // namespace

std::unique_ptr<Importer> make_flame_importer() {
  return std::make_unique<Flame>();
}

}  // namespace moe
