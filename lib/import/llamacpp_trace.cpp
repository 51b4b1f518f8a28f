// Tools around llama.cpp's eval callback, all named moe-trace, none like the other: layer,expert an
// activation; pos,layer,id0,id1,...; phase,token,layer,rank,expert; "prompt step layer e0 ... ek";
// and int32 records layer, tokens, k, ids. Ids stand by falling key.
#include <algorithm>
#include <cstring>
#include <map>

#include "lib/core/text.h"
#include "lib/import/inputs.h"
#include "lib/import/lines.h"
#include "lib/import/pass_gather.h"

namespace moe {
namespace {

constexpr std::string_view cartaz = "phase,token,layer,rank,expert";
constexpr std::size_t longest_row = 4096;

enum class Kind : std::uint8_t { none, pairs, positions, phases, prompts, binary };

bool digits_and(std::string_view line, char separator) {
  return !line.empty() && line.find_first_of("0123456789") != line.npos &&
         std::all_of(line.begin(), line.end(),
                     [&](char c) { return (c >= '0' && c <= '9') || c == '-' || c == separator; });
}

bool is_binary(const ImportFile& f) {
  if (f.size < 16 || f.size % 4 != 0)
    return false;
  std::vector<std::int32_t> n(std::min<std::size_t>(f.start.size() / 4, 64));
  std::memcpy(n.data(), f.start.data(), n.size() * 4);
  if (n[0] < 0 || n[0] > 4096 || n[1] < 1 || n[1] > 1 << 24 || n[2] < 1 || n[2] > 256)
    return false;
  const std::size_t ids =
      std::min<std::size_t>(n.size(), 3 + std::size_t(n[1]) * std::size_t(n[2]));
  return std::all_of(n.begin() + 3, n.begin() + std::ptrdiff_t(ids),
                     [](std::int32_t id) { return id >= 0 && id < 65'535; });
}

Kind kind_of(const ImportFile& f) {
  if (f.kind == FileKind::binary)
    return is_binary(f) ? Kind::binary : Kind::none;
  if (f.kind != FileKind::text)
    return Kind::none;
  const std::string_view line = f.first_line();
  if (line == cartaz)
    return Kind::phases;
  if (digits_and(line, ','))
    return std::count(line.begin(), line.end(), ',') == 1 ? Kind::pairs : Kind::positions;
  if (line == "layer,expert")
    return Kind::pairs;
  return digits_and(line, ' ') && std::count(line.begin(), line.end(), ' ') > 2 ? Kind::prompts
                                                                                : Kind::none;
}

int layer_of(const NumberLine& line, std::int64_t n) {
  if (n < 0 || n > 4096)
    line.refuse(concat("names layer ", n));
  return int(n);
}

int id_of(const NumberLine& line, std::int64_t n, const ImportSink& sink) {
  const int limit = sink.experts() > 0 ? sink.experts() : 65'534;
  if (n < 0 || n >= limit)
    line.refuse(concat("has expert ", n, ", and there are ", limit, " experts"));
  return int(n);
}

void read_pairs(const ImportFile& f, std::int64_t step, ImportSink& sink) {
  std::map<int, std::vector<std::int64_t>> found;
  int most = sink.experts();
  each_line(f, [&](NumberLine& line) {
    if (line.number() == 1 && line.text() == "layer,expert")
      return;
    const auto cells = line.wholes(',');
    if (cells.size() != 2)
      line.refuse(concat("has ", cells.size(), " columns, not layer,expert"));
    auto& counts = found[layer_of(line, cells[0])];
    const int id = id_of(line, cells[1], sink);
    most = std::max(most, id + 1);
    if (std::size_t(id) >= counts.size())
      counts.resize(std::size_t(id) + 1);
    ++counts[id];
  });
  if (sink.experts() == 0)
    sink.say("the number of experts is taken from the largest id");
  for (auto& [layer, counts] : found) {
    counts.resize(std::size_t(most));
    sink.counts(step, layer, counts, f.quoted());
  }
}

// Cells from `first` on as the ids of a row.
GatheredRow row_of(const NumberLine& line, const std::vector<std::int64_t>& cells,
                   std::size_t first, const ImportSink& sink) {
  GatheredRow row;
  row.where = line.where();
  if (cells.size() > longest_row)
    line.refuse(concat("has ", cells.size(), " cells"));
  for (std::size_t i = first; i < cells.size(); ++i)
    row.ids.push_back(id_of(line, cells[i], sink));
  return row;
}

void read_positions(const ImportFile& f, ImportSink& sink) {
  PassGather gather(sink, false);
  std::size_t width = 0;
  std::int64_t last = -1;
  each_line(f, [&](NumberLine& line) {
    const auto cells = line.wholes(',');
    if (width != 0 && cells.size() != width)
      line.refuse(concat("has ", cells.size(), " cells, and lines before ", width));
    width = cells.size();
    if (width < 3)
      line.refuse("has no ids behind its position and layer");
    if (cells[0] < 0) {
      sink.say(
          "prompt rows (negative positions) were left out: their ids are read flat from a "
          "strided view and may be wrong");
      return;
    }
    GatheredRow row = row_of(line, cells, 2, sink);
    row.token = std::min<std::int64_t>(cells[0], UINT32_MAX);
    row.layer = layer_of(line, cells[1]);
    row.flags = token_flag::decode;
    if (last < 0 || row.token < last) {
      gather.flush();
      sink.sequence();
    }
    last = row.token;
    gather.add(std::move(row));
  });
  gather.flush();
  sink.say("positions count from the end of each prompt, whose length is not in the file");
}

void read_prompts(const ImportFile& f, ImportSink& sink) {
  PassGather gather(sink, false);
  std::size_t width = 0;
  std::int64_t prompt = -1;
  each_line(f, [&](NumberLine& line) {
    const auto cells = line.wholes(' ');
    if (width != 0 && cells.size() != width)
      line.refuse(concat("has ", cells.size(), " cells, and lines before ", width));
    width = cells.size();
    if (width < 4 || cells[0] < 0 || cells[1] < 0)
      line.refuse("is not prompt, step, layer and ids");
    GatheredRow row = row_of(line, cells, 3, sink);
    row.token = std::min<std::int64_t>(cells[1], UINT32_MAX);
    row.layer = layer_of(line, cells[2]);
    row.flags = token_flag::decode;
    if (cells[0] != prompt) {
      gather.flush();
      sink.sequence();
      prompt = cells[0];
    }
    gather.add(std::move(row));
  });
  gather.flush();
  sink.say("decode steps only; positions count from the end of each prompt");
}

// phase,token,layer,rank,expert: ranks of one token and layer follow one another.
class PhaseRows {
 public:
  explicit PhaseRows(ImportSink& sink) : sink_(sink), gather_(sink, true) {}
  void take(const NumberLine&);
  void finish() {
    end_row();
    gather_.flush();
  }

 private:
  void end_row();
  void begin_row(std::string_view phase, std::int64_t token, int layer);
  ImportSink& sink_;
  PassGather gather_;
  GatheredRow row_;
  std::string phase_;
  std::size_t width_ = 0;
};

void PhaseRows::end_row() {
  if (row_.ids.empty())
    return;
  if (width_ != 0 && row_.ids.size() != width_) {
    refuse_import(row_.where,
                  concat("ends token ", row_.token, " layer ", row_.layer, " with ",
                         row_.ids.size(), " ranks, not ", width_),
                  "the file as it was written");
  }
  width_ = row_.ids.size();
  gather_.add(std::move(row_));
  row_ = {};
}

void PhaseRows::begin_row(std::string_view phase, std::int64_t token, int layer) {
  end_row();
  if (phase != phase_)
    gather_.flush();
  if (phase_.empty() || (phase_ == "decode" && phase == "prefill"))
    sink_.sequence();
  phase_ = phase;
  row_.token = token;
  row_.layer = layer;
  row_.flags = phase_ == "prefill" ? token_flag::prompt : token_flag::decode;
}

void PhaseRows::take(const NumberLine& line) {
  const auto cells = line.cells(',');
  if (cells.size() != 5 || (cells[0] != "prefill" && cells[0] != "decode"))
    line.refuse(concat("is not ", cartaz));
  const std::int64_t token = line.whole(cells[1]);
  const int layer = layer_of(line, line.whole(cells[2]));
  const std::int64_t rank = line.whole(cells[3]);
  if (token < 0 || token > UINT32_MAX)
    line.refuse(concat("names token ", token));
  if (rank == 0)
    begin_row(cells[0], token, layer);
  if (rank != std::int64_t(row_.ids.size()) || row_.token != token || row_.layer != layer)
    line.refuse(concat("has rank ", rank, ", where rank ", row_.ids.size(), " should follow"));
  row_.where = line.where();
  row_.ids.push_back(id_of(line, line.whole(cells[4]), sink_));
}

void read_phases(const ImportFile& f, ImportSink& sink) {
  PhaseRows rows(sink);
  each_line(f, [&](NumberLine& line) {
    if (line.number() > 1)
      rows.take(line);
  });
  rows.finish();
}

// Records of int32: layer, tokens, k, ids. A chunk begins with an empty context, and its layers
// follow one another.
class BinaryRecords {
 public:
  BinaryRecords(const ImportFile& f, ImportSink& sink) : sink_(sink), name_(f.quoted()) {
    const InputFile file(f.path);
    bytes_ = file.map();
    total_ = std::size_t(file.size()) / 4;
    whole_ = file.size() % 4 == 0;
  }
  void read() {
    while (at_ < total_)
      take();
    if (!whole_)
      cut();
    flush();
  }

 private:
  std::int32_t number(std::size_t i) const {
    std::int32_t v = 0;
    std::memcpy(&v, bytes_.get() + i * 4, 4);
    return v;
  }
  [[noreturn]] void cut() const {
    refuse_import(concat(name_, " record ", record_),
                  "is cut short or no record of layer, tokens, k and ids",
                  "the file as it was written");
  }
  void take();
  void flush() {
    if (block_.layers.empty())
      return;
    sink_.sequence();
    sink_.rows(std::move(block_));
    block_ = {};
  }

  ImportSink& sink_;
  std::string name_;
  std::shared_ptr<const std::byte> bytes_;
  std::size_t total_ = 0, at_ = 0;
  bool whole_ = true;
  Index record_ = 0;
  ImportBlock block_;
};

void BinaryRecords::take() {
  if (total_ - at_ < 3)
    cut();
  const int layer = number(at_);
  const Index rows = number(at_ + 1);
  const Index choices = number(at_ + 2);
  const bool sound = layer >= 0 && layer <= 4096 && rows > 0 && choices > 0 && choices <= 4096;
  if (!sound || rows * choices > Index(total_ - at_) - 3)
    cut();
  if (!block_.layers.empty() && layer <= block_.layers.back())
    flush();
  if (block_.layers.empty())
    block_.where = concat(name_, " record ", record_);
  else if (block_.rows.layer[0].expert.rows() != rows)
    refuse_import(concat(name_, " record ", record_),
                  concat("has ", rows, " tokens, and another layer of its chunk ",
                         block_.rows.layer[0].expert.rows()),
                  "the file as it was written");
  block_.layers.push_back(layer);
  Matrix<int>& ids = block_.rows.layer.emplace_back().expert;
  ids = Matrix<int>(rows, choices);
  std::memcpy(ids.data(), bytes_.get() + (at_ + 3) * 4, std::size_t(ids.size()) * 4);
  at_ += 3 + std::size_t(ids.size());
  ++record_;
}

class LlamaTrace final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return kind_of(in.first()) != Kind::none;
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "llama.cpp";
    sink.facts.order = "key_desc";
    std::int64_t step = 0;
    for (const ImportFile& f : in.files())
      read_file(f, step++, sink);
  }

 private:
  static void read_file(const ImportFile& f, std::int64_t step, ImportSink& sink) {
    switch (kind_of(f)) {
      case Kind::pairs:
        return read_pairs(f, step, sink);
      case Kind::positions:
        return read_positions(f, sink);
      case Kind::phases:
        return read_phases(f, sink);
      case Kind::prompts:
        return read_prompts(f, sink);
      case Kind::binary:
        return BinaryRecords(f, sink).read();
      case Kind::none:
        break;
    }
    refuse_import(f.quoted(), "is of none of the formats named moe-trace",
                  "the file as the tool wrote it");
  }
};

}  // namespace

std::unique_ptr<Importer> make_llamacpp_trace_importer() {
  return std::make_unique<LlamaTrace>();
}

}  // namespace moe
