// The structure of a new trace file: see create.h. The order of these calls is the order of the
// bytes: keep it fixed.
#include "lib/trace/create.h"

#include <fmt/format.h>
#include <hdf5_hl.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>

#include "lib/core/error.h"

namespace moe {
namespace {
using h5::Cell;
using h5::Handle;

constexpr std::uint64_t most_chunk = 16 << 20;  // bytes

bool has_modalities(const std::vector<TraceColumn>& columns) {
  return std::ranges::count(columns, Field::modality, &TraceColumn::field) > 0;
}

// The oldest that has all that is in the file.
const char* version_of(const TraceHeader& h, const std::vector<TraceColumn>& columns) {
  return has_modalities(columns) ? "1.5" : h.has_encoder() ? "1.4" : "1.3";
}

void root_attributes(hid_t file, const TraceHeader& h, const std::vector<TraceColumn>& columns) {
  h5::put(file, "format", "moe-trace");
  h5::put(file, "format_version", version_of(h, columns));
  const std::pair<const char*, const std::string&> texts[] = {
      {"producer", h.producer},
      {"engine", h.engine},
      {"engine_version", h.engine_version},
      {"command", h.command},
      {"config", h.config},
      {"model_id", h.model_id},
      {"model_revision", h.model_revision},
      {"tokenizer_id", h.tokenizer_id},
      {"tokenizer_sha256", h.tokenizer_sha256},
      {"created_utc", h.created_utc},
      {"compute_dtype", h.compute_dtype},
      {"quantization", h.quantization},
      {"capture_point", h.capture_point},
      {"sequence_order", h.sequence_order},
      {"weights_xxh3", h.weights_xxh3},
      {"run_id", h.run_id},
      {"lineage", h.lineage}};
  for (const auto& [name, text] : texts)
    h5::put(file, name, text);
  h5::put(file, "corpus_sha256", "", 64);
  h5::put(file, "constants_xxh3", "", 16);
  h5::put(file, "vocab_size", Cell::u32, &h.vocab_size);
  h5::put(file, "checkpoint_step", Cell::i64, &h.checkpoint_step);
  h5::put(file, "seed", Cell::u64, &h.seed);
  const std::uint8_t incomplete = 0;
  const std::uint64_t none = 0;
  h5::put(file, "complete", Cell::u8, &incomplete);
  h5::put(file, "num_tokens", Cell::u64, &none);
}

// Of a recording on several ranks.
void ranks_of_experts(hid_t file, const TraceHeader& h) {
  if (h.expert_ranks > 0)
    h5::put(file, "expert_ranks", Cell::u32, &h.expert_ranks);
}

// A contiguous dataset with its values, one a layer.
template <class T, class Get>
void per_layer(hid_t file, const char* name, Cell cell, const TraceHeader& h, Get get) {
  std::vector<T> values;
  for (const TraceLayer& layer : h.layers)
    values.push_back(T(get(layer)));
  const std::string path = fmt::format("/model/{}", name);
  const Handle d = h5::dataset(file, path, h5::type_of(cell), {{values.size()}, {}});
  h5::write(d, h5::type_of(cell), values.data(), path);
}

// Of a model that was recorded with another k than it was trained with.
void trained_k(hid_t file, const TraceHeader& h) {
  const auto other = [](const TraceLayer& l) {
    return l.trained_top_k != 0;
  };
  if (std::ranges::any_of(h.layers, other)) {
    per_layer<std::uint16_t>(file, "trained_top_k", Cell::u16, h,
                             [](const TraceLayer& l) { return l.trained_top_k; });
  }
}

// Of a model that looks the experts of some layers up by token id.
void tables(hid_t file, const TraceHeader& h) {
  if (std::ranges::any_of(h.layers, &TraceLayer::by_table)) {
    per_layer<std::uint8_t>(file, "choice_rule", Cell::u8, h,
                            [](const TraceLayer& l) { return l.by_table ? 1 : 0; });
  }
}

// Of a model with experts of attention.
void parts(hid_t file, const TraceHeader& h) {
  if (std::ranges::any_of(h.layers, &TraceLayer::attention)) {
    per_layer<std::uint8_t>(file, "layer_part", Cell::u8, h,
                            [](const TraceLayer& l) { return l.attention ? 1 : 0; });
  }
}

void layer_settings(hid_t file, const TraceHeader& h) {
  tables(file, h);
  parts(file, h);
  if (h.has_encoder()) {
    per_layer<std::uint8_t>(file, "layer_stack", Cell::u8, h,
                            [](const TraceLayer& l) { return l.encoder ? 1 : 0; });
  }
  per_layer<std::uint16_t>(file, "top_k", Cell::u16, h,
                           [](const TraceLayer& l) { return l.top_k; });
  trained_k(file, h);
  per_layer<std::uint16_t>(file, "num_shared", Cell::u16, h,
                           [](const TraceLayer& l) { return l.shared; });
  per_layer<std::uint16_t>(file, "n_group", Cell::u16, h,
                           [](const TraceLayer& l) { return l.n_group; });
  per_layer<std::uint16_t>(file, "topk_group", Cell::u16, h,
                           [](const TraceLayer& l) { return l.topk_group; });
  per_layer<std::uint8_t>(file, "score_fn", Cell::u8, h,
                          [](const TraceLayer& l) { return std::uint8_t(l.score_fn); });
  per_layer<std::uint8_t>(file, "norm_topk", Cell::u8, h,
                          [](const TraceLayer& l) { return l.norm_topk; });
  per_layer<float>(file, "routed_scale", Cell::f32, h,
                   [](const TraceLayer& l) { return l.routed_scale; });
  per_layer<float>(file, "capacity_factor", Cell::f32, h,
                   [](const TraceLayer& l) { return l.capacity_factor; });
  per_layer<std::uint64_t>(file, "expert_bytes", Cell::u64, h,
                           [](const TraceLayer& l) { return l.expert_bytes; });
}

void model_datasets(hid_t file, const TraceHeader& h) {
  per_layer<std::int32_t>(file, "layer_index", Cell::i32, h,
                          [](const TraceLayer& l) { return l.index; });
  if (h.max_experts() < 65536) {
    per_layer<std::uint16_t>(file, "num_experts", Cell::u16, h,
                             [](const TraceLayer& l) { return l.experts; });
  } else {
    per_layer<std::uint32_t>(file, "num_experts", Cell::u32, h,
                             [](const TraceLayer& l) { return l.experts; });
  }
  layer_settings(file, h);
}

void router_weights(hid_t file, const TraceHeader& h) {
  const std::uint64_t layers = h.layers.size();
  const std::uint64_t experts = std::uint64_t(h.max_experts());
  const auto hidden = std::uint64_t(h.router_weight[0].cols());
  std::vector<float> cells(layers * experts * hidden);
  for (std::size_t l = 0; l < layers; ++l) {
    const auto rows = h.router_weight[l].flat();
    if (h.router_weight[l].cols() != Index(hidden) || h.router_weight[l].rows() > Index(experts)) {
      throw Error(Exit::bug, fmt::format("router rows of layer {} are {}x{}", l,
                                         h.router_weight[l].rows(), h.router_weight[l].cols()));
    }
    std::copy(rows.begin(), rows.end(), cells.begin() + std::ptrdiff_t(l * experts * hidden));
  }
  const Handle d =
      h5::dataset(file, "/router/weight", h5::type_of(Cell::f32), {{layers, experts, hidden}, {}});
  h5::write(d, h5::type_of(Cell::f32), cells.data(), "/router/weight");
}

void router_biases(hid_t file, const TraceHeader& h) {
  const std::uint64_t layers = h.layers.size();
  const std::uint64_t experts = std::uint64_t(h.max_experts());
  std::vector<float> cells(layers * experts);
  for (std::size_t l = 0; l < layers; ++l) {
    if (h.router_bias[l].size() > experts) {
      throw Error(Exit::bug,
                  fmt::format("router bias of layer {} has {} values", l, h.router_bias[l].size()));
    }
    std::copy(h.router_bias[l].begin(), h.router_bias[l].end(),
              cells.begin() + std::ptrdiff_t(l * experts));
  }
  const Handle d =
      h5::dataset(file, "/router/bias", h5::type_of(Cell::f32), {{layers, experts}, {}});
  h5::write(d, h5::type_of(Cell::f32), cells.data(), "/router/bias");
}

void step_counts(hid_t file, const TraceHeader& h) {
  const std::uint64_t layers = h.layers.size();
  const std::uint64_t experts = std::uint64_t(h.max_experts());
  if (std::uint64_t(h.counts.cols()) != layers * experts) {
    throw Error(Exit::bug, fmt::format("counts of a step are {} numbers, not {} layers of {}",
                                       h.counts.cols(), layers, experts));
  }
  const auto steps = std::uint64_t(h.counts.rows());
  const std::uint64_t in_chunk = std::max<std::uint64_t>(1, most_chunk / (layers * experts * 4));
  const std::uint64_t rows = std::min({steps, in_chunk, std::uint64_t(64)});
  const Handle d = h5::dataset(file, "/counts/per_step", h5::type_of(Cell::u32),
                               {{steps, layers, experts}, {rows, layers, experts}, false, true});
  h5::write(d, h5::type_of(Cell::u32), h.counts.data(), "/counts/per_step");
}

Handle column_dataset(hid_t file, const TraceColumn& c, const TraceHeader& h, int deflate) {
  h5::Layout layout{{0}, {std::uint64_t(c.chunk)}, true, deflate > 0, deflate};
  if (c.rank > 1) {
    layout.dims.push_back(h.layers.size());
    layout.chunk.push_back(1);
  }
  if (c.rank > 2) {
    layout.dims.push_back(std::uint64_t(c.width));
    layout.chunk.push_back(std::uint64_t(c.width));
  }
  Handle d = h5::dataset(file, c.path, h5::type_of(c.cell), layout);
  if (c.field == Field::expert)
    h5::put(d, "order", h.order);
  if (c.field == Field::logits)
    h5::put(d, "kind", h.logit_kind);
  if (c.field == Field::weight) {
    const std::uint8_t normalized = h.weight_normalized;
    h5::put(d, "kind", h.weight_kind);
    h5::put(d, "normalized", Cell::u8, &normalized);
  }
  return d;
}

// Rows that are written again as they grow stay unfiltered: in place, byte for byte, old rows keep
// their old bytes.
void record_datasets(hid_t file, TraceFile& out, bool grids) {
  const auto add = [&](const char* path, hid_t type, std::uint64_t chunk) {
    out.records[path] = h5::dataset(file, path, type, {{0}, {chunk}, true, false});
  };
  add("/sequences/start", h5::type_of(Cell::u64), 4096);
  add("/sequences/length", h5::type_of(Cell::u32), 4096);
  add("/sequences/domain", h5::type_of(Cell::u16), 4096);
  if (grids) {
    add("/sequences/grid_rows", h5::type_of(Cell::u16), 4096);
    add("/sequences/grid_columns", h5::type_of(Cell::u16), 4096);
  }
  add("/steps/step", h5::type_of(Cell::i64), 4096);
  add("/steps/token_start", h5::type_of(Cell::u64), 4096);
  add("/steps/num_tokens", h5::type_of(Cell::u32), 4096);
  add("/steps/phase", h5::type_of(Cell::u8), 4096);
  add("/commits", commit_type(), 1024);
}

Handle scale(hid_t file, const char* name, const std::vector<std::int32_t>& values) {
  const std::string path = fmt::format("/{}", name);
  Handle d = h5::dataset(file, path, h5::type_of(Cell::i32), {{values.size()}, {}});
  h5::write(d, h5::type_of(Cell::i32), values.data(), path);
  h5::must(H5DSset_scale(d, name), "make a dimension scale");
  return d;
}

// An axis without values of its own; these words make netCDF readers take it as a dimension only.
Handle bare_scale(hid_t file, const char* path, const h5::Layout& layout) {
  Handle d = h5::dataset(file, path, h5::type_of(Cell::u8), layout);
  h5::must(H5DSset_scale(d, "This is a netCDF dimension but not a netCDF variable.         0"),
           "make a dimension scale");
  return d;
}

std::vector<std::int32_t> counted(int n) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

// Every axis of a dataset has a scale, or none has: netCDF opens no file in which only some have.
void attach_scales(hid_t file, TraceFile& out, const std::vector<TraceColumn>& columns,
                   const TraceHeader& h) {
  std::vector<std::int32_t> layers;
  for (const TraceLayer& l : h.layers)
    layers.push_back(l.index);
  const Handle layer = scale(file, "layer", layers);
  const Handle choice = scale(file, "choice", counted(std::max(1, h.max_choices())));
  const Handle expert = scale(file, "expert", counted(h.max_experts()));
  Handle byte, guess;
  out.token = bare_scale(file, "/token", {{0}, {65536}, true, false});
  const auto attach = [](hid_t d, hid_t s, unsigned axis) {
    h5::must(H5DSattach_scale(d, s, axis), "attach a dimension scale");
  };
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const TraceColumn& c = columns[i];
    attach(out.columns[i], out.token, 0);
    if (c.rank > 1)
      attach(out.columns[i], layer, 1);
    if (c.rank < 3)
      continue;
    if (c.field == Field::dropped)
      byte = bare_scale(file, "/choice_byte", {{std::uint64_t(c.width)}, {}});
    if (c.field == Field::predicted)
      guess = bare_scale(file, "/guess", {{std::uint64_t(c.width)}, {}});
    attach(out.columns[i],
           c.field == Field::dropped     ? byte
           : c.field == Field::predicted ? guess
           : c.field == Field::logits    ? expert
                                         : choice,
           2);
  }
}

}  // namespace

Handle commit_type() {
  Handle type{H5Tcreate(H5T_COMPOUND, sizeof(CommitRow)), "make the type of a commit"};
  const auto add = [&](const char* name, std::size_t at, Cell cell) {
    h5::must(H5Tinsert(type, name, at, h5::type_of(cell)), "make the type of a commit");
  };
  add("rows", offsetof(CommitRow, rows), Cell::u64);
  add("step", offsetof(CommitRow, step), Cell::i64);
  add("data_xxh3", offsetof(CommitRow, data_xxh3), Cell::u64);
  add("prev_xxh3", offsetof(CommitRow, prev_xxh3), Cell::u64);
  return type;
}

void write_pair(hid_t dataset, const PairMatrix& pair, const TraceHeader& h) {
  const auto e = std::size_t(h.max_experts());
  std::vector<float> cells(h.layers.size() * e * e, std::numeric_limits<float>::quiet_NaN());
  for (std::size_t l = 0; l < pair.layer.size(); ++l) {
    const auto& m = pair.layer[l];
    if (l >= h.layers.size() || m.rows() > Index(e) || m.cols() > Index(e)) {
      throw Error(Exit::bug, fmt::format("pair matrix {} of layer {} is {}x{}", pair.name, l,
                                         m.rows(), m.cols()));
    }
    for (Index r = 0; r < m.rows(); ++r) {
      std::copy(m.row(r).begin(), m.row(r).end(),
                cells.begin() + std::ptrdiff_t((l * e + std::size_t(r)) * e));
    }
  }
  h5::write(dataset, h5::type_of(Cell::f32), cells.data(), "/experts/" + pair.name);
}

namespace {
Handle new_file(const std::filesystem::path& path) {
  const Handle creation{H5Pcreate(H5P_FILE_CREATE), "prepare a file"};
  h5::must(H5Pset_file_space_strategy(creation, H5F_FSPACE_STRATEGY_PAGE, false, 1),
           "prepare a file");
  h5::must(H5Pset_file_space_page_size(creation, 4096), "prepare a file");
  h5::must(H5Pset_obj_track_times(creation, false), "prepare a file");
  h5::must(H5Pset_link_phase_change(creation, 64, 32), "prepare a file");
  h5::must(H5Pset_attr_phase_change(creation, 64, 32), "prepare a file");
  return {H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, h5::file_access(true)), "make the file"};
}

void make_groups(hid_t file, const TraceHeader& h, bool modalities) {
  std::vector<const char*> groups = {"/model", "/tokens", "/routing", "/sequences", "/steps"};
  if (!h.domains.empty())
    groups.push_back("/domains");
  if (!h.pieces.empty())
    groups.push_back("/vocab");
  if (!h.router_weight.empty() || !h.router_bias.empty())
    groups.push_back("/router");
  if (!h.pairs.empty())
    groups.push_back("/experts");
  if (!h.counts.empty())
    groups.push_back("/counts");
  if (modalities)
    groups.push_back("/modalities");
  for (const char* name : groups)
    h5::group(file, name);
}
}  // namespace

TraceFile create_trace(const std::filesystem::path& path, const TraceHeader& h,
                       const std::vector<TraceColumn>& columns, int deflate) {
  TraceFile out;
  out.file = new_file(path);
  const bool modalities = has_modalities(columns);
  root_attributes(out.file, h, columns);
  ranks_of_experts(out.file, h);
  make_groups(out.file, h, modalities);
  model_datasets(out.file, h);
  if (!h.domains.empty())
    h5::texts(out.file, "/domains/name", h.domains);
  if (modalities)
    h5::texts(out.file, "/modalities/name", h.modalities);
  if (!h.pieces.empty())
    h5::texts(out.file, "/vocab/piece", h.pieces);
  if (!h.router_weight.empty())
    router_weights(out.file, h);
  if (!h.router_bias.empty())
    router_biases(out.file, h);
  if (!h.counts.empty())
    step_counts(out.file, h);
  const auto experts = std::uint64_t(h.max_experts());
  for (const PairMatrix& pair : h.pairs) {
    Handle& d = out.pairs[pair.name];
    d = h5::dataset(out.file, "/experts/" + pair.name, h5::type_of(Cell::f32),
                    {{h.layers.size(), experts, experts}, {}});
    write_pair(d, pair, h);
  }
  for (const TraceColumn& c : columns)
    out.columns.push_back(column_dataset(out.file, c, h, deflate));
  record_datasets(out.file, out, modalities);
  attach_scales(out.file, out, columns, h);
  return out;
}

}  // namespace moe
