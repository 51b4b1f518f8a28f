// A line a choice, as moe export --to csv writes it: sequence,position,token_id,phase,layer,choice,
// expert[,weight][,dropped][,modality],domain; lines of one token follow one another, -1 = no
// expert.
#include <algorithm>

#include "lib/core/text.h"
#include "lib/import/inputs.h"
#include "lib/import/lines.h"
#include "lib/import/token_rows.h"

namespace moe {
namespace {

constexpr std::string_view columns = "sequence,position,token_id,phase,layer,choice,expert";

// Which columns stand behind those that are always there.
struct Layout {
  bool weight = false, dropped = false, modality = false;
  std::size_t cells = 7;  // before the domain
};

Layout layout_of(const NumberLine& line) {
  Layout out;
  std::string_view rest = line.text().substr(columns.size());
  const auto takes = [&](std::string_view name) {
    if (!rest.starts_with(name))
      return false;
    rest.remove_prefix(name.size());
    return true;
  };
  out.weight = takes(",weight");
  out.dropped = takes(",dropped");
  out.modality = takes(",modality");
  if (!takes(",domain") || !rest.empty())
    line.refuse(concat("has the columns ", in_quotes(line.text())));
  out.cells += std::size_t(out.weight) + std::size_t(out.dropped) + std::size_t(out.modality);
  return out;
}

// The last cell: plain, or in quotes that are doubled inside.
std::string domain_of(const NumberLine& line, std::string_view cell) {
  if (!cell.starts_with('"'))
    return std::string(cell);
  std::string out;
  for (std::size_t i = 1; i < cell.size(); ++i) {
    if (cell[i] != '"') {
      out += cell[i];
    } else if (i + 1 < cell.size() && cell[i + 1] == '"') {
      out += '"';
      ++i;
    } else if (i + 1 == cell.size()) {
      return out;
    } else {
      break;
    }
  }
  line.refuse("has a domain whose quotes do not close");
}

class Rows {
 public:
  Rows(ImportSink& sink, const Layout& layout) : rows_(sink), layout_(layout) {}
  void take(const NumberLine&);
  void finish() {
    if (open_)
      rows_.add(std::move(row_));
    open_ = false;
    rows_.flush();
  }

 private:
  void begin(const NumberLine&, const std::vector<std::string_view>& cells, std::string domain);
  // Whether a line of this layer and choice can belong to the token of the lines before.
  bool goes_on(std::int64_t layer, std::int64_t choice) const {
    const auto at = row_.layers.find(int(layer));
    return choice > 0 || at == row_.layers.end();
  }

  TokenRows rows_;
  Layout layout_;
  TokenRow row_;
  bool open_ = false;
};

// A token begins where its place changes, or its choices begin again.
void Rows::begin(const NumberLine& line, const std::vector<std::string_view>& cells,
                 std::string domain) {
  TokenRow next;
  next.sequence = line.whole(cells[0]);
  next.position = line.whole(cells[1]);
  next.token_id = cells[2].empty() ? -1 : line.whole(cells[2]);
  const int flags = flags_of_phase(cells[3]);
  if (flags < 0)
    line.refuse(concat("has the phase ", in_quotes(cells[3])));
  next.flags = std::uint8_t(flags);
  next.domain = std::move(domain);
  if (layout_.modality)
    next.modality = cells[layout_.cells - 1];
  next.where = line.where();
  const bool same = open_ && next.sequence == row_.sequence && next.position == row_.position &&
                    goes_on(line.whole(cells[4]), line.whole(cells[5]));
  if (same) {
    if (next.token_id != row_.token_id || next.flags != row_.flags || next.domain != row_.domain ||
        next.modality != row_.modality)
      line.refuse("says another thing of its token than the lines before");
    return;
  }
  if (open_)
    rows_.add(std::move(row_));
  row_ = std::move(next);
  open_ = true;
}

void Rows::take(const NumberLine& line) {
  auto cells = line.cells(',');
  if (cells.size() <= layout_.cells)
    line.refuse(concat("has ", cells.size(), " columns, not ", layout_.cells + 1));
  const char* last = cells[layout_.cells].data();
  const std::string_view text = line.text();
  begin(line, cells, domain_of(line, text.substr(std::size_t(last - text.data()))));
  const std::int64_t layer = line.whole(cells[4]);
  const std::int64_t choice = line.whole(cells[5]);
  const std::int64_t expert = line.whole(cells[6]);
  if (layer < 0 || layer > 1 << 20 || expert < -1 || expert > 65'535)
    line.refuse(concat("has layer ", layer, " and expert ", expert));
  TokenRow::Slots& slots = row_.layers[int(layer)];
  if (choice != std::int64_t(slots.ids.size())) {
    line.refuse(concat("has choice ", choice, " of layer ", layer, ", where choice ",
                       slots.ids.size(), " should follow"));
  }
  slots.ids.push_back(int(expert));
  if (layout_.weight)
    slots.weights.push_back(float(line.real(cells[7])));
  if (layout_.dropped)
    slots.dropped.push_back(line.whole(cells[layout_.weight ? 8 : 7]) != 0);
}

class TokenCsv final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return in.first().first_line().starts_with(columns);
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.wide_weights = true;
    for (const ImportFile& f : in.files())
      read_file(f, sink);
  }

 private:
  static void read_file(const ImportFile&, ImportSink&);
};

void TokenCsv::read_file(const ImportFile& f, ImportSink& sink) {
  std::unique_ptr<Rows> rows;
  each_line(f, [&](NumberLine& line) {
    if (rows) {
      rows->take(line);
      return;
    }
    if (!line.text().starts_with(columns))
      line.refuse(concat("does not begin with the columns ", columns));
    rows = std::make_unique<Rows>(sink, layout_of(line));
  });
  if (rows)
    rows->finish();
}

}  // namespace

std::unique_ptr<Importer> make_token_csv_importer() {
  return std::make_unique<TokenCsv>();
}

}  // namespace moe
