// A record's fields, and passes on their way into the sink: see megatron_records.h.
#include "lib/import/megatron_records.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lib/core/dtype.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/json_cursor.h"

namespace moe {
namespace {

const char* const own_files = "the file as Megatron wrote it";

void check_record(MegatronRecord& r, Index told, Index topk) {
  if (told >= 0 && told != r.rows) {
    refuse_import(r.where,
                  concat("says num_tokens ", told, ", but top_indices has ", r.rows, " rows"),
                  own_files);
  }
  if (topk >= 0 && r.rows > 0 && topk != r.topk) {
    refuse_import(r.where, concat("says topk ", topk, ", but a row of top_indices has ", r.topk),
                  own_files);
  }
}

}  // namespace

namespace {

// What a record says of itself besides its fields.
struct Told {
  Index tokens = -1, topk = -1;
  bool step = false, ids = false;
};

// A null stands for a logit field that is not there.
bool read_logit_field(JsonCursor& json, const std::string& key, MegatronRecord& r) {
  if (key != "logit_offset" && key != "logit_bytes" && key != "logit_shape")
    return false;
  if (json.null())
    return true;
  if (key == "logit_offset")
    r.logit_offset = json.whole();
  else if (key == "logit_bytes")
    r.logit_bytes = json.whole();
  else
    json.wholes("logit_shape", {"numbers"}, r.logit_shape);
  return true;
}

void read_field(JsonCursor& json, const std::string& key, MegatronRecord& r, Told& told) {
  if (key == "top_indices") {
    const auto shape = json.wholes("top_indices", {"tokens", "ids (topk)"}, r.ids);
    r.rows = shape[0];
    r.topk = shape[1];
    told.ids = true;
  } else if (key == "step") {
    r.step = json.whole();
    told.step = true;
  } else if (key == "block") {
    r.block = json.text();
  } else if (key == "layer") {
    r.layer = int(std::clamp<std::int64_t>(json.whole(), -1, 1 << 20));
  } else if (key == "rank") {
    r.rank = int(std::clamp<std::int64_t>(json.whole(), 0, 65535));
  } else if (key == "num_tokens") {
    told.tokens = json.whole();
  } else if (key == "topk") {
    told.topk = json.whole();
  } else if (!read_logit_field(json, key, r)) {
    json.skip();
  }
}

}  // namespace

MegatronRecord read_megatron_record(std::string_view line, const std::string& where) {
  MegatronRecord r;
  r.where = where;
  r.block = "decoder";
  r.ids.reserve(line.size() / 4);
  Told told;
  JsonCursor json(line, where);
  json.members([&](const std::string& key) { read_field(json, key, r, told); });
  json.end();
  if (!told.step || !told.ids)
    refuse_import(where, concat("has no ", told.step ? "top_indices" : "step"), own_files);
  check_record(r, told.tokens, told.topk);
  return r;
}

MegatronPasses::MegatronPasses(const ImportInputs& in, ImportSink& sink) : in_(in), sink_(sink) {
  for (const ImportFile& f : in.files())
    by_name_[f.name()] = &f;
}

void MegatronPasses::step(std::int64_t step,
                          std::map<int, std::vector<std::vector<MegatronPass>>>& by_rank) {
  bool begun = false;
  for (const auto& [rank, stages] : by_rank) {
    std::size_t passes = 0;
    for (const auto& stage : stages)
      passes = std::max(passes, stage.size());
    for (std::size_t p = 0; p < passes; ++p) {
      std::vector<const MegatronPass*> parts;
      for (const auto& stage : stages)
        parts.push_back(p < stage.size() ? &stage[p] : nullptr);
      if (!begun)
        sink_.step(step);
      begun = true;
      emit(rank, parts);
    }
  }
}

// Layer numbers of hooks are local to a pipeline stage.
int MegatronPasses::stage_offset(std::size_t stage) const {
  if (stage == 0)
    return 0;
  const int layers = in_.options().layers > 0 ? in_.options().layers
                     : in_.config()           ? in_.config()->layers
                                              : 0;
  if (layers == 0) {
    refuse_import("--pipeline", "needs the number of layers: layer numbers are local to a stage",
                  "--layers N, or --config config.json of the model");
  }
  return int(stage) * (layers / std::max(1, in_.options().pipeline));
}

void MegatronPasses::emit(int rank, const std::vector<const MegatronPass*>& stages) {
  ImportBlock b;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    if (!stages[s])
      continue;
    for (const MegatronRecord& r : stages[s]->records) {
      const int layer = r.layer + stage_offset(s);
      if (b.layers.empty()) {
        b.where = r.where;
      } else if (b.rows.layer[0].expert.rows() != r.rows) {
        refuse_import(r.where,
                      concat("has ", r.rows, " tokens where another stage of the pass has ",
                             b.rows.layer[0].expert.rows()),
                      "files of one run");
      }
      b.layers.push_back(layer);
      fill(b.rows.layer.emplace_back(), r);
    }
  }
  for (const auto& [layer, seen] : layers_seen_) {
    if (std::find(b.layers.begin(), b.layers.end(), layer) == b.layers.end()) {
      sink_.say(concat("step ", stages[0] ? stages[0]->records[0].step : 0,
                       " has no record of layer ", layer, ": no expert is given there"));
    }
  }
  for (const int layer : b.layers)
    layers_seen_[layer] = true;
  add_sequences(std::move(b), rank);
}

namespace {

// Rows first, first + step, ...
template <class T>
Matrix<T> every(const Matrix<T>& m, Index step, Index first) {
  Matrix<T> out(m.rows() / step, m.cols());
  for (Index t = 0; t < out.rows(); ++t)
    std::copy(m.row(t * step + first).begin(), m.row(t * step + first).end(), out.row(t).begin());
  return out;
}

}  // namespace

// Rows of a micro-batch are position-major: row = position * B + sequence.
void MegatronPasses::add_sequences(ImportBlock&& b, int rank) {
  const Index rows = b.rows.layer[0].expert.rows();
  const Index batch = std::max(1, in_.options().micro_batch);
  b.rows.rank.assign(std::size_t(rows), std::uint16_t(rank < 0 ? 0 : rank));
  if (batch == 1) {
    sink_.sequence();
    return sink_.rows(std::move(b));
  }
  if (rows % batch != 0) {
    refuse_import(b.where,
                  concat("has ", rows, " tokens, which is no multiple of micro-batch ", batch),
                  "--micro-batch N as the run had");
  }
  for (Index s = 0; s < batch; ++s) {
    ImportBlock one;
    one.layers = b.layers;
    one.where = b.where;
    one.rows.rank.assign(std::size_t(rows / batch), b.rows.rank[0]);
    for (const LayerRows& l : b.rows.layer) {
      LayerRows& own = one.rows.layer.emplace_back();
      own.expert = every(l.expert, batch, s);
      own.weight = every(l.weight, batch, s);
    }
    sink_.sequence();
    sink_.rows(std::move(one));
  }
}

void MegatronPasses::fill(LayerRows& l, const MegatronRecord& r) {
  l.expert = Matrix<int>(r.rows, r.topk);
  std::copy(r.ids.begin(), r.ids.end(), l.expert.data());
  if (order_by_logits(l, r))
    return;
  derived_ = false;
  for (Index t = 0; t < r.rows && rising_; ++t) {
    const auto row = l.expert.row(t);
    rising_ = std::is_sorted(row.begin(), row.end());
  }
}

std::span<const std::byte> MegatronPasses::logits_of(const MegatronRecord& r) {
  const std::string name = concat("logits_rank", r.rank, ".bin");
  const auto file = by_name_.find(name);
  if (file == by_name_.end())
    return {};
  if (!sidecars_.count(r.rank)) {
    const InputFile f(file->second->path);
    sidecars_[r.rank] = f.map();
    sidecar_size_[r.rank] = f.size();
  }
  const bool shaped = r.logit_shape.size() == 2 && r.logit_shape[0] == r.rows &&
                      r.logit_shape[1] > 0 &&
                      r.logit_bytes == Index(r.logit_shape[0]) * r.logit_shape[1] * 2;
  if (!shaped || r.logit_bytes > sidecar_size_[r.rank] ||
      r.logit_offset > sidecar_size_[r.rank] - r.logit_bytes) {
    refuse_import(
        r.where,
        concat("says that its logits lie at byte ", r.logit_offset, " of ", name, ", which has ",
               sidecar_size_[r.rank], " bytes, or their shape does not fit"),
        "the files of one recording, or leave the .bin out");
  }
  return {sidecars_[r.rank].get() + r.logit_offset, std::size_t(r.logit_bytes)};
}

// router_state_rankR.pt: {(block, mtp_idx, layer): {"score_function", "expert_bias", ...}}
const MegatronPasses::State* MegatronPasses::state_of(int rank, int layer) {
  if (!states_read_[rank]) {
    states_read_[rank] = true;
    const auto file = by_name_.find(concat("router_state_rank", rank, ".pt"));
    if (file == by_name_.end() || !file->second->torch)
      return nullptr;
    const PickleValue root = file->second->torch->root();
    for (Index i = 0; root.is(PickleKind::dict) && i < root.size(); ++i) {
      const PickleValue key = root.key(i);
      if (!key.is_list() || key.size() != 3 || key.item(0).text() != "decoder")
        continue;
      const PickleValue value = root.value(i);
      State& s = states_[{rank, int(key.item(2).whole())}];
      const auto function = value.find("score_function");
      s.sigmoid = function && function->is(PickleKind::text) && function->text() == "sigmoid";
      const auto bias = value.find("expert_bias");
      if (bias && bias->is(PickleKind::array)) {
        for (Index e = 0; e < bias->array().size(); ++e)
          s.bias.push_back(float(bias->array().real(e * bias->array().stride.at(0))));
      }
    }
  }
  const auto at = states_.find({rank, layer});
  return at == states_.end() ? nullptr : &at->second;
}

bool MegatronPasses::order_by_logits(LayerRows& l, const MegatronRecord& r) {
  if (r.logit_offset < 0)
    return false;
  const auto bytes = logits_of(r);
  const State* state = state_of(r.rank, r.layer);
  if (bytes.empty())
    return false;
  const Index experts = r.logit_shape[1];
  sink_.facts.experts = int(std::max<Index>(sink_.facts.experts, experts));
  if (!state)
    return false;
  Matrix<float> logits(r.rows, experts);
  for (Index i = 0; i < logits.size(); ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, bytes.data() + i * 2, 2);
    logits.data()[i] = bf16_to_float(half);
    if (!std::isfinite(logits.data()[i]))
      refuse_import(r.where, "has a logit that is NaN or infinite", own_files);
  }
  for (const std::int32_t id : r.ids) {
    if (id < 0 || id >= experts) {
      refuse_import(
          r.where,
          concat("has expert ", id, " in layer ", r.layer, ", and there are ", experts, " experts"),
          own_files);
    }
  }
  if (!state->bias.empty() && Index(state->bias.size()) != experts)
    refuse_import(r.where,
                  concat("has ", experts, " logits, and its state has biases of ",
                         state->bias.size(), " experts"),
                  own_files);
  sink_.facts.layer.score_fn = state->sigmoid ? ScoreFn::sigmoid : ScoreFn::softmax;
  l.weight = Matrix<float>(r.rows, r.topk);
  for (Index t = 0; t < r.rows; ++t)
    order_row(l, r, *state, t, logits.row(t));
  return true;
}

void MegatronPasses::order_row(LayerRows& l, const MegatronRecord&, const State& state, Index row,
                               std::span<const float> logits) const {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float v : logits)
    sum += std::exp(double(v - most));
  const auto score = [&](int e) {
    const double v = double(logits[e]);
    return state.sigmoid ? 1 / (1 + std::exp(-v)) : std::exp(v - double(most)) / sum;
  };
  const auto key = [&](int e) {
    return score(e) + (state.bias.empty() ? 0.0 : double(state.bias[e]));
  };
  const auto ids = l.expert.row(row);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return key(a) > key(b); });
  for (std::size_t k = 0; k < ids.size(); ++k)
    l.weight(row, Index(k)) = float(score(ids[k]));
}

void MegatronPasses::done() {
  sink_.facts.order = derived_ ? "key_desc" : rising_ ? "id_asc" : "unknown";
  if (derived_) {
    sink_.facts.weight_kind = sink_.facts.layer.score_fn == ScoreFn::sigmoid ? "score" : "prob";
    sink_.say("order and weights were derived from the logits");
  }
  if (in_.options().micro_batch == 0)
    sink_.say("sequence boundaries are not in the file");
  sink_.say("phase and request of a row are not in the file");
}

}  // namespace moe
