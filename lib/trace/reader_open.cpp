// Opening a trace: what is in it, and how many of its rows can be trusted.
#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/trace/constants_hash.h"
#include "lib/trace/reader_file.h"

namespace moe {
namespace {
using h5::Cell;

constexpr int first_hashed_minor = 3;
constexpr int newest_minor = 5;
constexpr std::int64_t unstated = -1;  // num_tokens of a file that does not say

ScoreFn score_fn(std::uint8_t code) {
  return code <= 2 ? ScoreFn(code) : ScoreFn::unknown;
}
}  // namespace

TraceReader::File::File(const std::filesystem::path& p) : path(p), schema(p) {
  read_header();
  read_model();
  read_commits();  // before the columns: what a living writer adds meanwhile only makes them longer
  open_columns();
  settle_tokens();
  if (!state.complete)
    check_last_commit();
  read_records();
  read_constants();
  open_counts();
  check_constants();
}

// A newer format may cover more.
void TraceReader::File::check_constants() {
  if (!state.complete || minor_ < first_hashed_minor || minor_ > newest_minor) {
    if (state.complete && minor_ < first_hashed_minor) {
      state.remarks.push_back(
          fmt::format("format {} holds no hash of attributes, layers and labels: a change there "
                      "cannot be told",
                      header.format_version));
    }
    return;
  }
  const std::string said = schema.text(schema.file(), "constants_xxh3", "");
  if (said.empty())
    return warn(
        "constants_xxh3 is missing: nothing tells whether attributes, layers and labels are "
        "as they were written");
  if (const std::string found = constants_text(schema.file()); said != found) {
    warn(
        fmt::format("constants_xxh3 is {} and attributes, layers, labels and matrices give {}: "
                    "something of them was changed",
                    said, found));
  }
}

// The text attributes of the file and where they go.
static std::vector<std::pair<const char*, std::string*>> texts_of(TraceHeader& h) {
  return {{"producer", &h.producer},
          {"engine", &h.engine},
          {"engine_version", &h.engine_version},
          {"command", &h.command},
          {"config", &h.config},
          {"model_id", &h.model_id},
          {"model_revision", &h.model_revision},
          {"tokenizer_id", &h.tokenizer_id},
          {"tokenizer_sha256", &h.tokenizer_sha256},
          {"created_utc", &h.created_utc},
          {"compute_dtype", &h.compute_dtype},
          {"quantization", &h.quantization},
          {"capture_point", &h.capture_point},
          {"sequence_order", &h.sequence_order},
          {"weights_xxh3", &h.weights_xxh3},
          {"run_id", &h.run_id},
          {"lineage", &h.lineage}};
}

void TraceReader::File::read_header() {
  const hid_t f = schema.file();
  if (schema.text(f, "format", "") != "moe-trace")
    schema.refuse("this HDF5 file is not a moe-trace");
  check_version();
  TraceHeader& h = header;
  state.corpus_sha256 = schema.text(f, "corpus_sha256", "");
  for (const auto& [name, to] : texts_of(h))
    *to = schema.text(f, name, "");
  h.vocab_size = std::uint32_t(schema.number(f, "vocab_size", 0));
  const std::int64_t ranks = schema.number(f, "expert_ranks", 0);
  h.expert_ranks = ranks > 0 && ranks <= 65535 ? std::uint32_t(ranks) : 0;
  h.checkpoint_step = schema.number(f, "checkpoint_step", -1);
  h.seed = std::uint64_t(schema.number(f, "seed", 0));
  read_end();
}

// Whether it was finished, and with how many rows. Whoever wrote the file in one go, in Python, may
// say nothing of that.
void TraceReader::File::read_end() {
  const hid_t f = schema.file();
  const bool in_one_go = !schema.has("/commits");
  state.complete = schema.number(f, "complete", in_one_go) == 1 && path.extension() != ".part";
  state.tokens = std::uint64_t(schema.number(f, "num_tokens", in_one_go ? unstated : 0));
}

void TraceReader::File::check_version() {
  TraceHeader& h = header;
  h.format_version = schema.text(schema.file(), "format_version", "");
  int major = -1;
  int minor = -1;
  const char* end = h.format_version.data() + h.format_version.size();
  const auto dot = std::from_chars(h.format_version.data(), end, major);
  if (dot.ec == std::errc() && dot.ptr != end && *dot.ptr == '.')
    std::from_chars(dot.ptr + 1, end, minor);
  if (major < 0 || minor < 0)
    schema.refuse(fmt::format("its format version is '{}'", h.format_version));
  if (major > 1) {
    throw Error(Exit::input, fmt::format("{}: it is in moe-trace format {}; this program reads 1.x",
                                         path.string(), h.format_version))
        .hint(fmt::format("a moe that reads format {}", major));
  }
  minor_ = minor;
  if (minor > newest_minor) {
    warn(fmt::format("format {} is newer than 1.{}: what is new in it is not read",
                     h.format_version, newest_minor));
  }
}

constexpr int most_experts = 1 << 20;

// One number for each MoE layer, from /model/NAME.
template <class T, class Put>
void TraceReader::File::read_layers(const char* name, bool needed, Cell type, Put put) {
  const auto values = schema.all<T>(fmt::format("/model/{}", name), type, 1);
  if (values.empty() && !needed)
    return;
  const std::size_t n = header.layers.size();
  if (values.size() != n) {
    schema.refuse(fmt::format("/model/{} has {} values for {} MoE layers", name, values.size(), n));
  }
  for (std::size_t l = 0; l < n; ++l)
    put(header.layers[l], values[l]);
}

void TraceReader::File::read_model() {
  const auto index = schema.all<std::int32_t>("/model/layer_index", Cell::i32, 1);
  const std::size_t n = index.size();
  if (n == 0 || n > 65535)
    schema.refuse(fmt::format("/model/layer_index names {} MoE layers", n));
  header.layers.resize(n);
  for (std::size_t l = 0; l < n; ++l)
    header.layers[l].index = index[l];
  if (schema.find("/model/num_experts", {Cell::u16, Cell::u32}, 1).value_or(DataInfo{}).cell ==
      Cell::u32) {
    read_layers<std::uint32_t>("num_experts", true, Cell::u32,
                               [](TraceLayer& l, auto v) { l.experts = int(v); });
  } else {
    read_layers<std::uint16_t>("num_experts", true, Cell::u16,
                               [](TraceLayer& l, auto v) { l.experts = v; });
  }
  read_settings();
  for (const TraceLayer& l : header.layers) {
    if (l.experts < 1 || l.experts > most_experts || l.top_k > l.experts) {
      schema.refuse(
          fmt::format("MoE layer {} has {} experts and top_k {}", l.index, l.experts, l.top_k));
    }
  }
}

void TraceReader::File::read_stacks() {
  read_layers<std::uint8_t>("layer_stack", false, Cell::u8,
                            [](TraceLayer& l, auto v) { l.encoder = v == 1; });
  read_layers<std::uint8_t>("choice_rule", false, Cell::u8,
                            [](TraceLayer& l, auto v) { l.by_table = v == 1; });
  read_layers<std::uint8_t>("layer_part", false, Cell::u8,
                            [](TraceLayer& l, auto v) { l.attention = v == 1; });
}

void TraceReader::File::read_settings() {
  read_stacks();
  read_layers<std::uint16_t>("top_k", true, Cell::u16, [](TraceLayer& l, auto v) { l.top_k = v; });
  read_layers<std::uint16_t>("trained_top_k", false, Cell::u16,
                             [](TraceLayer& l, auto v) { l.trained_top_k = v; });
  read_layers<std::uint16_t>("num_shared", false, Cell::u16,
                             [](TraceLayer& l, auto v) { l.shared = v; });
  read_layers<std::uint16_t>("n_group", false, Cell::u16,
                             [](TraceLayer& l, auto v) { l.n_group = v; });
  read_layers<std::uint16_t>("topk_group", false, Cell::u16,
                             [](TraceLayer& l, auto v) { l.topk_group = v; });
  read_layers<std::uint8_t>("score_fn", false, Cell::u8,
                            [](TraceLayer& l, auto v) { l.score_fn = score_fn(v); });
  read_layers<std::uint8_t>("norm_topk", false, Cell::u8,
                            [](TraceLayer& l, auto v) { l.norm_topk = v; });
  for (TraceLayer& l : header.layers)
    l.routed_scale = std::numeric_limits<float>::quiet_NaN();  // unknown
  read_layers<float>("routed_scale", false, Cell::f32,
                     [](TraceLayer& l, auto v) { l.routed_scale = v; });
  read_layers<float>("capacity_factor", false, Cell::f32,
                     [](TraceLayer& l, auto v) { l.capacity_factor = v; });
  read_layers<std::uint64_t>("expert_bytes", false, Cell::u64,
                             [](TraceLayer& l, auto v) { l.expert_bytes = v; });
}

void TraceReader::File::read_constants() {
  header.domains = schema.texts("/domains/name");
  header.pieces = schema.texts("/vocab/piece");
  read_modalities();
  read_router_rows();
  read_pairs();
}

void TraceReader::File::read_modalities() {
  if (!fields.modality)
    return;
  header.modalities = schema.texts("/modalities/name");
  if (header.modalities.size() > modality::unknown) {
    schema.refuse(fmt::format("/modalities/name has {} names; {} is the limit",
                              header.modalities.size(), int(modality::unknown)));
  }
  if (header.modalities.empty())
    header.modalities = modality_names();
}

// Of what is stored by layer and expert.
void TraceReader::File::check_shape(const std::string& name,
                                    const std::vector<std::uint64_t>& dims) {
  if (dims[0] != header.layers.size() || dims[1] != std::uint64_t(header.max_experts()))
    schema.refuse(fmt::format("{} has the shape of another model", name));
}

void TraceReader::File::read_router_rows() {
  const std::uint64_t layers = header.layers.size();
  const std::uint64_t experts = std::uint64_t(header.max_experts());
  std::vector<std::uint64_t> dims;
  if (const auto cells = schema.all<float>("/router/weight", Cell::f32, 3, &dims); !cells.empty()) {
    check_shape("/router/weight", dims);
    for (std::uint64_t l = 0; l < layers; ++l) {
      Matrix<float> m(header.layers[l].experts, Index(dims[2]));
      std::copy_n(cells.begin() + std::ptrdiff_t(l * experts * dims[2]), m.size(), m.data());
      header.router_weight.push_back(std::move(m));
    }
  }
  if (const auto cells = schema.all<float>("/router/bias", Cell::f32, 2, &dims); !cells.empty()) {
    check_shape("/router/bias", dims);
    for (std::uint64_t l = 0; l < layers; ++l) {
      header.router_bias.emplace_back(
          cells.begin() + std::ptrdiff_t(l * experts),
          cells.begin() + std::ptrdiff_t(l * experts) + header.layers[l].experts);
    }
  }
}

void TraceReader::File::read_pairs() {
  const std::uint64_t layers = header.layers.size();
  const std::uint64_t experts = std::uint64_t(header.max_experts());
  std::vector<std::uint64_t> dims;
  for (const std::string& name : schema.names("/experts")) {
    const auto cells = schema.all<float>("/experts/" + name, Cell::f32, 3, &dims);
    if (cells.empty())
      continue;
    check_shape("/experts/" + name, dims);
    if (dims[2] != experts)
      schema.refuse(fmt::format("/experts/{} is not square", name));
    PairMatrix pair{name, {}};
    for (std::uint64_t l = 0; l < layers; ++l) {
      const int e = header.layers[l].experts;
      Matrix<float> m(e, e);
      for (int r = 0; r < e; ++r) {
        std::copy_n(cells.begin() + std::ptrdiff_t((l * experts + std::uint64_t(r)) * experts), e,
                    m.row(r).begin());
      }
      pair.layer.push_back(std::move(m));
    }
    header.pairs.push_back(std::move(pair));
  }
}

// Rows of /commits are trusted up to the first that does not hold the hash of the one before it.
void TraceReader::File::read_commits() {
  const h5::Handle type = commit_type();
  const auto info = schema.find("/commits", type, 1);
  if (!info || (state.complete && info->dims[0] == 0))
    return;  // rows are those that the attributes name
  const auto bytes = schema.whole(*info, type, sizeof(CommitRow));
  std::uint64_t before = 0;
  std::uint64_t last_rows = 0;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(CommitRow)) {
    CommitRow row;
    std::memcpy(&row, bytes.data() + at, sizeof row);
    if (row.prev_xxh3 != before || row.rows < last_rows || (row.rows == last_rows && at > 0)) {
      if (state.complete) {
        warn(fmt::format("/commits is broken after {} of {} rows", commits.size(),
                         bytes.size() / sizeof row));
      }
      break;
    }
    before = hash_bytes(std::as_bytes(std::span(&row, 1)));
    last_rows = row.rows;
    commits.push_back(row);
  }
}

void TraceReader::File::open_columns() {
  TraceFields every{true, true, true, true, true, true, true, true, true, true, true, true};
  for (const TraceColumn& c : columns_of(header, every))
    open_column(c);
  describe_columns();
}

namespace {
// Chunks of whole rows of one layer, packed by no filter but ours.
bool read_directly(const TraceColumn& c, const DataInfo& data) {
  const auto& chunk = data.chunk;
  return !chunk.empty() && data.plain_shuffle && (c.rank < 2 || chunk[1] == 1) &&
         (c.rank < 3 || chunk[2] == std::uint64_t(c.width));
}
}  // namespace

void TraceReader::File::check_id_width(const TraceColumn& c, Cell cell) const {
  if (cell == Cell::u16 && c.is_id() && header.max_experts() > 65535) {
    schema.refuse(fmt::format("{} holds ids of 16 bits, and a layer has {} experts", c.path,
                              header.max_experts()));
  }
}

void TraceReader::File::open_column(TraceColumn c) {
  const std::uint64_t layers = header.layers.size();
  const bool half = c.field == Field::weight || c.field == Field::logits;
  auto info = c.is_id() ? schema.find(c.path, {Cell::u16, Cell::u32}, 3)
              : half    ? schema.find(c.path, {Cell::f16, Cell::f32}, 3)
                        : schema.find(c.path, {c.cell}, std::size_t(c.rank));
  if (!info)
    return;
  check_id_width(c, info->cell);
  const auto& d = info->dims;
  if (c.field == Field::predicted)
    c.width = Index(d[2]);
  if ((c.rank > 1 && d[1] != layers) || (c.rank > 2 && d[2] != std::uint64_t(c.width)) ||
      c.width < 1 || c.width > (1 << 24)) {
    schema.refuse(fmt::format("{} has shape [{}]; the model has {} MoE layers, {} experts, top {}",
                              c.path, fmt::join(d, ","), layers, header.max_experts(),
                              header.max_choices()));
  }
  c.cell = info->cell;
  Source s{c, std::move(*info), c.layered ? Index(layers) : 1, false, {}};
  s.direct = read_directly(c, s.data);
  s.column.chunk = s.data.chunk.empty() ? 0 : Index(s.data.chunk[0]);
  if (c.field == Field::logits)
    open_logits_token(s);
  set_asked(fields, c.field);
  sources.push_back(std::move(s));
}

// What the datasets that are there say of themselves.
void TraceReader::File::describe_columns() {
  TraceFields held{false, false, false, false, false, false, false, false, false, false, false};
  for (const Source& s : sources) {
    const hid_t d = s.data.dataset;
    set_asked(held, s.column.field);
    if (s.column.field == Field::expert)
      header.order = schema.text(d, "order", "unknown");
    if (s.column.field == Field::predicted)
      header.predicted = int(s.column.width);
    if (s.column.field == Field::logits) {
      header.logit_kind = schema.text(d, "kind", "logits");
      header.wide_logits = s.column.cell == Cell::f32;
    }
    if (s.column.field != Field::weight)
      continue;
    header.weight_kind = schema.text(d, "kind", "combine");
    header.weight_normalized = schema.number(d, "normalized", 0) != 0;
    header.wide_weights = s.column.cell == Cell::f32;
  }
  fields = held;
}

void TraceReader::File::open_logits_token(Source& s) {
  s.tokens = schema.all<std::uint64_t>("/routing/logits_token", Cell::u64, 1);
  if (s.tokens.empty())
    return;
  if (s.tokens.size() > s.rows())
    s.tokens.resize(s.rows());
  for (std::size_t r = 1; r < s.tokens.size(); ++r) {
    if (s.tokens[r] <= s.tokens[r - 1])
      schema.refuse(fmt::format("/routing/logits_token does not grow at row {}", r));
  }
}

// Whether a finished file names its rows by num_tokens alone: it has no /commits, or none in them.
bool TraceReader::File::rows_are_stated() const {
  const auto info = schema.find("/commits", commit_type(), 1);
  return state.complete && (!info || info->dims[0] == 0);
}

// How many rows count: those of the last valid commit; every dataset must have them.
void TraceReader::File::settle_tokens() {
  std::uint64_t longest = 0;
  std::uint64_t token_rows = 0;
  bool ids = false;
  bool names = false;
  for (const Source& s : sources) {
    if (!s.tokens.empty())
      continue;
    longest = std::max(longest, s.rows());
    ids |= s.column.field == Field::expert;
    names |= s.column.field == Field::token_id;
    if (s.column.field == Field::token_id)
      token_rows = s.rows();
  }
  const bool stated = state.tokens != std::uint64_t(unstated);
  const std::uint64_t claimed = stated ? state.tokens : token_rows;
  const std::uint64_t committed = commits.empty() ? 0 : commits.back().rows;
  const bool by_commits = !commits.empty() || (schema.has("/commits") && !rows_are_stated());
  state.tokens = by_commits ? committed : state.complete ? claimed : token_rows;
  if (state.complete && claimed != state.tokens) {
    warn(fmt::format(
        "num_tokens says {} rows and the last valid commit {}: the smaller number is used", claimed,
        state.tokens));
  }
  if (state.complete)
    state.tokens = std::min(state.tokens, claimed);
  if (state.tokens > 0 && (!ids || !names))
    schema.refuse("it has rows, but no /tokens/token_id or no /routing/expert_ids");
  for (const Source& s : sources) {
    if (s.tokens.empty() && s.rows() < state.tokens) {
      schema.refuse(fmt::format("{} has {} rows where {} are committed", s.column.path, s.rows(),
                                state.tokens));
    }
  }
  state.ignored = longest - std::min(longest, state.tokens);
  state.commits = commits.size();
  warn_if_unfinished();
}

void TraceReader::File::warn_if_unfinished() {
  if (!state.complete) {
    warn(fmt::format(
        "the recording was not finished: {} rows in {} commits are read, {} behind them ignored",
        state.tokens, commits.size(), state.ignored));
  }
}

// After a power loss the newest blocks may be missing although /commits names them.
void TraceReader::File::check_last_commit() {
  while (!commits.empty()) {
    const std::uint64_t before = commits.size() > 1 ? commits[commits.size() - 2].rows : 0;
    bool whole = false;
    try {
      whole = data_xxh3(before, commits.back().rows - before) == commits.back().data_xxh3;
    } catch (const Error&) {
    }
    if (whole)
      return;
    warn(fmt::format("the commit of rows {}..{} does not fit its hash and is ignored", before,
                     commits.back().rows));
    state.ignored += commits.back().rows - before;
    commits.pop_back();
    state.tokens = before;
    state.commits = commits.size();
  }
}

void TraceReader::File::read_records() {
  read_sequences();
  read_steps();
  const std::uint64_t n = state.tokens;
  has_sequences = !sequences.empty();
  has_steps = !steps.empty();
  const auto all = std::uint32_t(std::min<std::uint64_t>(n, 0xFFFFFFFFu));
  // so that every row's number names a record
  if (!has_sequences && n > 0)
    sequences.push_back({0, all, no_domain});
  if (!has_steps && n > 0)
    steps.push_back({0, 0, all, Phase::eval});
}

void TraceReader::File::read_sequences() {
  const auto start = schema.all<std::uint64_t>("/sequences/start", Cell::u64, 1);
  const auto length = schema.all<std::uint32_t>("/sequences/length", Cell::u32, 1);
  const auto domain = schema.all<std::uint16_t>("/sequences/domain", Cell::u16, 1);
  const auto down = schema.all<std::uint16_t>("/sequences/grid_rows", Cell::u16, 1);
  const auto across = schema.all<std::uint16_t>("/sequences/grid_columns", Cell::u16, 1);
  const std::uint64_t n = state.tokens;
  for (std::size_t i = 0; i < std::min(start.size(), length.size()); ++i) {
    if (!state.complete && start[i] >= n && !(start[i] == 0 && n == 0))
      break;
    const std::uint64_t left = n - std::min(n, start[i]);
    sequences.push_back(
        {start[i],
         std::uint32_t(std::min<std::uint64_t>(length[i], state.complete ? length[i] : left)),
         i < domain.size() ? domain[i] : no_domain,
         i < std::min(down.size(), across.size()) ? SignalGrid{down[i], across[i]} : SignalGrid{}});
  }
}

void TraceReader::File::read_steps() {
  const std::uint64_t n = state.tokens;
  const auto step = schema.all<std::int64_t>("/steps/step", Cell::i64, 1);
  const auto first = schema.all<std::uint64_t>("/steps/token_start", Cell::u64, 1);
  const auto count = schema.all<std::uint32_t>("/steps/num_tokens", Cell::u32, 1);
  const auto phase = schema.all<std::uint8_t>("/steps/phase", Cell::u8, 1);
  for (std::size_t i = 0; i < std::min({step.size(), first.size(), count.size()}); ++i) {
    if (!state.complete && first[i] >= n && !(first[i] == 0 && n == 0))
      break;
    const std::uint64_t left = n - std::min(n, first[i]);
    steps.push_back(
        {step[i], first[i],
         std::uint32_t(std::min<std::uint64_t>(count[i], state.complete ? count[i] : left)),
         i < phase.size() && phase[i] <= 3 ? Phase(phase[i]) : Phase::eval});
  }
}

}  // namespace moe
