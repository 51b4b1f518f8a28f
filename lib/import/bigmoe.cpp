// BigMoeOnEdge's --route-trace: "# route_trace v1", "# model=... n_expert= n_expert_used=", "#
// layer=i expert_bytes=...", then turn,phase,step,layer,slot,expert,weight,residency,
// expert_bytes[,dropped]; slots by rank, weights nan where unknown. Turns of a chat go on in one
// context: step is the absolute position.
#include <cmath>

#include "lib/core/text.h"
#include "lib/import/inputs.h"
#include "lib/import/lines.h"
#include "lib/import/pass_gather.h"

namespace moe {
namespace {

constexpr std::string_view first_line = "# route_trace v1";
constexpr std::string_view columns = "turn,phase,step,layer,slot,expert,weight,residency";

class BigMoe final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return in.first().first_line().starts_with("# route_trace");
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "llama.cpp";
    sink.facts.order = "key_desc";
    for (const ImportFile& f : in.files())
      read_file(f, sink);
  }

 private:
  static void read_file(const ImportFile&, ImportSink&);
};

// Reads lines into rows: slots of one token and layer follow one another.
class Rows {
 public:
  explicit Rows(ImportSink& sink) : sink_(sink), gather_(sink, false) {}
  void header(const NumberLine&);
  void take(const NumberLine&);
  void finish();

 private:
  struct Slot {  // a line
    std::int64_t turn, phase, step, layer, slot, expert;
    float weight;
    bool dropped;
  };
  Slot slot_of(const NumberLine&);
  void end_row();
  ImportSink& sink_;
  PassGather gather_;
  GatheredRow row_;
  std::int64_t turn_ = -1;
  std::size_t used_ = 0, cells_ = 0;
  bool open_ = false, nan_ = false;
};

void Rows::header(const NumberLine& line) {
  const std::string_view text = line.text();
  if (const std::int64_t n = number_in(text.substr(0, text.find(" n_expert_used")), "n_expert=");
      n > 0)
    sink_.facts.experts = int(std::min<std::int64_t>(n, 65'534));
  if (const std::int64_t k = number_in(text, "n_expert_used="); k > 0)
    used_ = std::size_t(std::min<std::int64_t>(k, 4096));
  if (text.starts_with("# layer=")) {
    const std::int64_t layer = number_in(text.substr(0, text.find(" expert_bytes")), "layer=");
    const auto at = text.find("expert_bytes=");
    const std::int64_t bytes =
        at == text.npos ? 0 : number_in(text.substr(0, text.find(' ', at)), "expert_bytes=");
    if (layer >= 0 && layer < 4096 && bytes > 0)
      sink_.facts.expert_bytes[int(layer)] = std::uint64_t(bytes);
  }
}

void Rows::end_row() {
  if (!open_)
    return;
  open_ = false;
  if (used_ > 0 && row_.ids.size() != used_) {
    refuse_import(row_.where,
                  concat("ends step ", row_.token, " layer ", row_.layer, " with ", row_.ids.size(),
                         " slots, not ", used_, ": a slot is missing"),
                  "the file as BigMoeOnEdge wrote it");
  }
  if (nan_)
    row_.weights.clear();
  nan_ = false;
  gather_.add(std::move(row_));
  row_ = {};
}

Rows::Slot Rows::slot_of(const NumberLine& line) {
  const auto cells = line.cells(',');
  if (cells.size() != 9 && cells.size() != 10)
    line.refuse(concat("has ", cells.size(), " columns, not 9 or 10"));
  if (cells_ != 0 && cells.size() != cells_)
    line.refuse(concat("has ", cells.size(), " columns, and lines before ", cells_));
  cells_ = cells.size();
  Slot s{
      line.whole(cells[0]), line.whole(cells[1]), line.whole(cells[2]),       line.whole(cells[3]),
      line.whole(cells[4]), line.whole(cells[5]), float(line.real(cells[6])), false};
  s.dropped = cells.size() == 10 && line.whole(cells[9]) != 0;
  const bool sound = s.step >= 0 && s.step <= UINT32_MAX && s.layer >= 0 && s.layer <= 1 << 20 &&
                     s.expert >= 0 && s.expert <= 65'535 && (s.phase == 0 || s.phase == 1);
  if (!sound)
    line.refuse("has a number out of range");
  return s;
}

void Rows::take(const NumberLine& line) {
  const Slot s = slot_of(line);
  if (s.slot == 0) {
    end_row();
    if (s.turn != turn_) {
      gather_.flush();
      sink_.sequence();
      turn_ = s.turn;
    }
    open_ = true;
    row_.token = s.step;
    row_.layer = int(s.layer);
    row_.flags = s.phase == 0 ? token_flag::prompt : token_flag::decode;
  }
  const bool same = open_ && row_.token == s.step && row_.layer == s.layer && s.turn == turn_;
  if (!same || s.slot != std::int64_t(row_.ids.size())) {
    line.refuse(concat("has slot ", s.slot, " of step ", s.step, " layer ", s.layer,
                       ", where slot ", same ? row_.ids.size() : 0, " should follow"));
  }
  row_.where = line.where();
  row_.ids.push_back(int(s.expert));
  row_.weights.push_back(s.weight);
  nan_ = nan_ || std::isnan(s.weight);
  if (cells_ == 10)
    row_.dropped.push_back(s.dropped);
}

void Rows::finish() {
  end_row();
  gather_.flush();
}

void BigMoe::read_file(const ImportFile& f, ImportSink& sink) {
  if (!f.first_line().starts_with(first_line))
    refuse_import(
        f.quoted(),
        concat("begins with ", in_quotes(f.first_line()), ", not ", in_quotes(first_line)),
        "version 1 of route_trace");
  Rows rows(sink);
  each_line(f, [&](NumberLine& line) {
    if (line.text().starts_with('#'))
      rows.header(line);
    else if (!line.text().starts_with(columns))
      rows.take(line);
  });
  rows.finish();
}

}  // namespace

std::unique_ptr<Importer> make_bigmoe_importer() {
  return std::make_unique<BigMoe>();
}

}  // namespace moe
