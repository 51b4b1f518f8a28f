// NumPy arrays. npz: the plain exchange of docs/import.md with what a trace knows beyond it, each
// array in a pass of its own over the trace, so that nothing is held. replay-npy: one array of ids
// with a slot for each hidden layer, as vLLM gives routes with a response and slime keeps them
// ([rows, hidden layers, K] int32).
#include <algorithm>
#include <map>
#include <set>

#include "lib/core/dtype.h"
#include "lib/core/text.h"
#include "lib/export/rows.h"
#include "lib/files/file.h"
#include "lib/files/npy_write.h"
#include "lib/files/zip_write.h"

namespace moe {
namespace {

// Numbers of one window, as bytes.
template <class T>
class Cells {
 public:
  void add(T v) {
    cells_.push_back(v);
  }
  std::span<const std::byte> bytes() const {
    return std::as_bytes(std::span(cells_));
  }
  void clear() {
    cells_.clear();
  }

 private:
  std::vector<T> cells_;
};

// Slots of a token in the widest layer.
Index most_choices(const ExportRows& rows) {
  const auto& k = rows.survey().choices;
  return std::max<Index>(1, *std::max_element(k.begin(), k.end()));
}

class Npz final : public Exporter {
 public:
  ExportCarries carries() const override {
    return {.weights = true,
            .order = true,
            .dropped = true,
            .token_ids = true,
            .sequences = true,
            .domains = true,
            .positions = true,
            .phases = true,
            .modalities = true,
            .layer_numbers = true,
            .experts = true};
  }
  void write(ExportRows& rows, OutputFile& file) const override;
};

class NpzFile {
 public:
  NpzFile(ExportRows& rows, OutputFile& file) : rows_(rows), zip_(file) {}
  void write();

 private:
  template <class T>
  void begin(const char* name, const char* type, const std::vector<Index>& shape) {
    Index numbers = 1;
    for (const Index n : shape)
      numbers *= n;
    const std::string head = npy_head(type, shape);
    zip_.begin(concat(name, ".npy"), Index(head.size()) + numbers * Index(sizeof(T)));
    zip_.write(head);
  }
  // An array that is small.
  template <class T>
  void whole(const char* name, const char* type, const std::vector<T>& numbers) {
    begin<T>(name, type, {Index(numbers.size())});
    zip_.write(std::as_bytes(std::span(numbers)));
  }
  // [T,L,K] of what cell(layer, row, k) gives.
  template <class T, class Cell>
  void slots(const char* name, const char* type, bool weights, bool dropped, Cell cell);
  // [T] of what cell(rows, row) gives.
  template <class T, class Cell>
  void column(const char* name, const char* type, Cell cell);
  void texts(const char* name, const std::vector<std::string>& list);
  void labels();
  std::uint8_t flags_of(const TraceRows&, std::size_t row) const;
  void write_header();
  void write_weights();
  void write_modalities();
  void write_sequences();

  ExportRows& rows_;
  ZipWriter zip_;
};

template <class T, class Cell>
void NpzFile::slots(const char* name, const char* type, bool weights, bool dropped, Cell cell) {
  const Index choices = most_choices(rows_);
  begin<T>(name, type,
           {Index(rows_.survey().tokens), Index(rows_.header().layers.size()), choices});
  Cells<T> out;
  rows_.each(weights, dropped, [&](const TraceRows& r) {
    out.clear();
    for (Index t = 0; t < Index(r.tokens()); ++t) {
      for (const LayerRows& l : r.layer) {
        for (Index k = 0; k < choices; ++k)
          out.add(T(cell(l, t, k)));
      }
    }
    zip_.write(out.bytes());
  });
}

template <class T, class Cell>
void NpzFile::column(const char* name, const char* type, Cell cell) {
  begin<T>(name, type, {Index(rows_.survey().tokens)});
  Cells<T> out;
  rows_.each(false, false, [&](const TraceRows& r) {
    out.clear();
    for (std::size_t t = 0; t < r.tokens(); ++t)
      out.add(T(cell(r, t)));
    zip_.write(out.bytes());
  });
}

void NpzFile::texts(const char* name, const std::vector<std::string>& list) {
  std::vector<std::u32string> text;
  std::size_t longest = 1;
  for (const std::string& one : list) {
    text.push_back(npy_characters(one));
    longest = std::max(longest, text.back().size());
  }
  const std::string head = npy_head(concat("<U", longest), {Index(text.size())});
  zip_.begin(concat(name, ".npy"), Index(head.size() + text.size() * longest * 4));
  zip_.write(head);
  for (std::u32string& characters : text) {
    characters.resize(longest);
    zip_.write(std::as_bytes(std::span(characters)));
  }
}

// NumPy keeps text as characters of four bytes, as many as the longest takes.
void NpzFile::labels() {
  const auto& domains = rows_.survey().domains;
  std::map<std::uint16_t, std::u32string> text;
  std::size_t longest = 1;
  for (const std::uint16_t d : domains) {
    const auto [at, fresh] = text.try_emplace(d);
    if (fresh)
      at->second = npy_characters(rows_.label(d));
    longest = std::max(longest, at->second.size());
  }
  for (auto& [domain, characters] : text)
    characters.resize(longest);
  const std::string head = npy_head(concat("<U", longest), {Index(domains.size())});
  zip_.begin("domains.npy", Index(head.size() + domains.size() * longest * 4));
  zip_.write(head);
  for (const std::uint16_t d : domains)
    zip_.write(std::as_bytes(std::span(text.at(d))));
}

// Which layers and experts there are, and what the order of a token's choices means.
void NpzFile::write_header() {
  const TraceHeader& h = rows_.header();
  std::vector<std::int32_t> numbers;
  std::vector<std::int32_t> experts;
  for (const TraceLayer& l : h.layers) {
    numbers.push_back(l.index);
    experts.push_back(l.experts);
  }
  whole("layer_index", "<i4", numbers);
  whole("num_experts", "<i4", experts);
  texts("order", {h.order.empty() ? "unknown" : h.order});
}

// As the trace keeps them: half precision, or f32.
void NpzFile::write_weights() {
  if (rows_.header().wide_weights) {
    return slots<float>("weights", "<f4", true, false,
                        [](const LayerRows& l, Index t, Index k) { return l.weight(t, k); });
  }
  slots<std::uint16_t>("weights", "<f2", true, false, [](const LayerRows& l, Index t, Index k) {
    return float_to_f16(l.weight(t, k));
  });
}

void NpzFile::write_sequences() {
  const ExportSurvey& s = rows_.survey();
  whole("sequence_lengths", "<i8", std::vector<std::int64_t>(s.lengths.begin(), s.lengths.end()));
  const bool labelled = std::any_of(s.domains.begin(), s.domains.end(),
                                    [&](std::uint16_t d) { return !rows_.label(d).empty(); });
  if (labelled)
    labels();
}

void NpzFile::write_modalities() {
  if (!rows_.fields().modality)
    return;
  column<std::uint8_t>("modality", "|u1",
                       [](const TraceRows& r, std::size_t t) { return r.modality[t]; });
  texts("modality_names", rows_.header().modalities);
}

void NpzFile::write() {
  const ExportSurvey& s = rows_.survey();
  const auto id = [](const LayerRows& l, Index t, Index k) {
    return l.expert(t, k);
  };
  if (rows_.header().max_experts() <= INT16_MAX)
    slots<std::int16_t>("expert_ids", "<i2", false, false, id);
  else
    slots<std::int32_t>("expert_ids", "<i4", false, false, id);
  if (rows_.has_weights())
    write_weights();
  if (s.dropped) {
    slots<std::uint8_t>("dropped", "|u1", false, true, [](const LayerRows& l, Index t, Index k) {
      return l.dropped.empty() ? 0 : l.dropped(t, k);
    });
  }
  if (s.token_ids) {
    column<std::int64_t>("token_ids", "<i8", [](const TraceRows& r, std::size_t t) {
      return r.token_id[t] == withheld_token ? -1 : std::int64_t(r.token_id[t]);
    });
  }
  if (s.positions) {
    column<std::uint32_t>("positions", "<u4",
                          [](const TraceRows& r, std::size_t t) { return r.position[t]; });
  }
  if (s.phases || s.flags) {
    column<std::uint8_t>("flags", "|u1",
                         [&](const TraceRows& r, std::size_t t) { return flags_of(r, t); });
  }
  write_modalities();
  write_sequences();
  write_header();
  zip_.finish();
}

// The trace's own marks, or what its step says of the row.
std::uint8_t NpzFile::flags_of(const TraceRows& r, std::size_t t) const {
  constexpr std::uint8_t phases = token_flag::prompt | token_flag::decode | token_flag::train;
  const std::uint8_t own = r.flags.empty() ? 0 : r.flags[t];
  if (own & phases)
    return own;
  constexpr std::uint8_t marks[] = {token_flag::prompt, token_flag::decode, token_flag::train, 0};
  return own | marks[std::size_t(rows_.phase(r, t))];
}

void Npz::write(ExportRows& rows, OutputFile& file) const {
  NpzFile(rows, file).write();
}

class Replay final : public Exporter {
 public:
  ExportCarries carries() const override {
    return {.order = true, .layer_numbers = true};
  }
  void write(ExportRows& rows, OutputFile& file) const override;
};

// Slots of the layer axis: up to the last MoE layer.
Index hidden_layers(const ExportRows& rows) {
  constexpr int most = 65'536;
  std::set<int> numbers;
  for (const TraceLayer& l : rows.header().layers) {
    if (l.index < 0 || l.index >= most || !numbers.insert(l.index).second) {
      rows.refuse(
          concat("has a MoE layer numbered ", l.index,
                 ", twice or out of range: an array with a slot for each layer cannot hold it"),
          "moe export TRACE --to npz");
    }
  }
  return *numbers.rbegin() + 1;
}

void Replay::write(ExportRows& rows, OutputFile& file) const {
  const ExportSurvey& s = rows.survey();
  if (s.repeated > 0) {
    rows.refuse(concat("has ", s.repeated, " tokens with one expert in several slots of a layer: ",
                       "left out, they would shift what is replayed"),
                "a trace in which every token was routed: moe report TRACE names the rows");
  }
  if (s.gaps)
    rows.say("slots without an expert are -1");
  const auto& layers = rows.header().layers;
  const Index hidden = hidden_layers(rows);
  if (hidden > Index(layers.size()))
    rows.say(concat(hidden - Index(layers.size()), " hidden layers without experts are -1"));
  if (s.lengths.size() > 1) {
    rows.say(concat("the rows of ", s.lengths.size(),
                    " sequences follow one another; --sequence N takes one, as replay does"));
  }
  const Index choices = most_choices(rows);
  file.write(npy_head("<i4", {Index(s.tokens), hidden, choices}));
  rows.each(false, false, [&](const TraceRows& r) {
    std::vector<std::int32_t> out(std::size_t(Index(r.tokens()) * hidden * choices), -1);
    for (Index t = 0; t < Index(r.tokens()); ++t) {
      for (std::size_t l = 0; l < layers.size(); ++l) {
        const auto ids = r.layer[l].expert.row(t);
        std::copy_n(ids.begin(), std::min<Index>(choices, Index(ids.size())),
                    out.begin() + (t * hidden + layers[l].index) * choices);
      }
    }
    file.write(std::as_bytes(std::span(out)));
  });
}

}  // namespace

std::unique_ptr<Exporter> make_npz_exporter() {
  return std::make_unique<Npz>();
}

std::unique_ptr<Exporter> make_replay_exporter() {
  return std::make_unique<Replay>();
}

}  // namespace moe
