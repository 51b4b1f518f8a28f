// A JSON line a token, as moe export --to jsonl writes it: {"sequence", "position", "token_id",
// "domain", "modality", "phase", "experts": {"LAYER": [ids]}, "weights": {...}, "dropped": {...}};
// -1 = no expert. Only sequence and experts have to be there.
#include <charconv>

#include "lib/core/text.h"
#include "lib/files/json_cursor.h"
#include "lib/files/mapped_lines.h"
#include "lib/import/inputs.h"
#include "lib/import/token_rows.h"

namespace moe {
namespace {

int layer_number(const JsonCursor& json, const std::string& key) {
  int n = -1;
  const char* end = key.data() + key.size();
  const auto [stop, error] = std::from_chars(key.data(), end, n);
  if (error != std::errc() || stop != end || n < 0 || n > 1 << 20)
    json.refuse(concat("names layer ", in_quotes(key)));
  return n;
}

// {"0": [..], "1": [..]}: take(slots of the layer)
template <class Take>
void by_layer(JsonCursor& json, TokenRow& row, Take take) {
  json.members([&](const std::string& key) { take(row.layers[layer_number(json, key)]); });
}

void read_slots(JsonCursor& json, const std::string& key, TokenRow& row) {
  if (key == "experts") {
    by_layer(json, row, [&](TokenRow::Slots& s) { json.wholes("experts", {"ids"}, s.ids); });
  } else if (key == "weights") {
    by_layer(json, row, [&](TokenRow::Slots& s) { json.reals("weights", {"weights"}, s.weights); });
  } else {
    by_layer(json, row, [&](TokenRow::Slots& s) {
      std::vector<std::int32_t> marks;
      json.wholes("dropped", {"marks"}, marks);
      for (const std::int32_t m : marks)
        s.dropped.push_back(m != 0);
    });
  }
}

TokenRow parse(std::string_view text, const std::string& where) {
  TokenRow row;
  row.where = where;
  row.sequence = -1;
  bool placed = false;
  JsonCursor json(text, where);
  json.members([&](const std::string& key) {
    if (key == "sequence") {
      row.sequence = json.whole();
    } else if (key == "position") {
      row.position = json.whole();
      placed = true;
    } else if (key == "token_id") {
      row.token_id = json.whole();
    } else if (key == "domain") {
      row.domain = json.text();
    } else if (key == "modality") {
      row.modality = json.text();
    } else if (key == "phase") {
      const std::string phase = json.text();
      const int flags = flags_of_phase(phase);
      if (flags < 0)
        json.refuse(concat("has the phase ", in_quotes(phase)));
      row.flags = std::uint8_t(flags);
    } else if (key == "experts" || key == "weights" || key == "dropped") {
      read_slots(json, key, row);
    } else {
      json.skip();
    }
  });
  json.end();
  if (row.sequence < 0 || !placed)
    json.refuse("has no sequence or no position");
  return row;
}

class TokenLines final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    const ImportFile& f = in.first();
    const std::string_view line = f.first_line();
    return f.kind == FileKind::json && line.find("\"sequence\"") != line.npos &&
           line.find("\"experts\"") != line.npos;
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.wide_weights = true;
    for (const ImportFile& f : in.files()) {
      TokenRows rows(sink);
      MappedLines lines(f.path);
      std::string_view text;
      while (lines.next(text)) {
        if (text.find_first_not_of(" \t") != text.npos)
          rows.add(parse(text, lines.where()));
      }
      rows.flush();
    }
  }
};

}  // namespace

std::unique_ptr<Importer> make_token_lines_importer() {
  return std::make_unique<TokenLines>();
}

}  // namespace moe
