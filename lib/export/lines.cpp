// Rows as text: csv has a line a choice, jsonl a line a token. Importers of the same columns read
// them back (lib/import/token_lines.cpp and token_csv.cpp).
#include <cmath>

#include "lib/core/text.h"
#include "lib/export/rows.h"
#include "lib/export/text.h"

namespace moe {
namespace {

constexpr std::size_t enough = std::size_t(1) << 20;  // bytes that go to the file at once

constexpr ExportCarries all_but_order{.weights = true,
                                      .dropped = true,
                                      .token_ids = true,
                                      .sequences = true,
                                      .domains = true,
                                      .positions = true,
                                      .phases = true,
                                      .modalities = true,
                                      .layer_numbers = true};

std::string json_quoted(std::string_view text) {
  static constexpr std::string_view digits = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20) {
      out += concat("\\u00", digits[code >> 4], digits[code & 15]);
      continue;
    }
    if (c == '"' || c == '\\')
      out += '\\';
    out += c;
  }
  return out + '"';
}

std::string csv_quoted(std::string_view text) {
  if (text.find_first_of(",\" ") == text.npos)
    return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"')
      out += '"';
    out += c;
  }
  return out + '"';
}

// What every line of a token says of it besides its choices.
struct TokenFacts {
  std::size_t sequence = 0;
  std::uint32_t position = 0, token_id = 0;
  Phase phase = Phase::eval;
  std::uint16_t domain = no_domain;
  std::string modality = {};  // "" = not known
};

// Calls take(rows, row, facts) for every kept token, in order.
template <class Take>
void each_token(ExportRows& rows, Take take) {
  SequenceNumber number;
  const ExportSurvey& s = rows.survey();
  rows.each(rows.has_weights(), s.dropped, [&](const TraceRows& r) {
    for (std::size_t t = 0; t < r.tokens(); ++t) {
      TokenFacts f;
      f.sequence = number.of(r, t);
      f.position = r.position.empty() ? 0 : r.position[t];
      f.token_id = r.token_id[t];
      f.phase = rows.phase(r, t);
      f.domain = s.domains[f.sequence];
      f.modality = rows.modality(r, t);
      take(r, Index(t), f);
    }
  });
}

class Csv final : public Exporter {
 public:
  ExportCarries carries() const override {
    return all_but_order;
  }
  void write(ExportRows&, OutputFile&) const override;
};

// The lines of one token: a slot of a layer each, between what all of them say.
class CsvToken {
 public:
  CsvToken(ExportText& out, const ExportRows& rows)
      : out_(out), rows_(rows), weights_(rows.has_weights()), dropped_(rows.survey().dropped) {}
  void head() const {
    out_ << "sequence,position,token_id,phase,layer,choice,expert" << (weights_ ? ",weight" : "")
         << (dropped_ ? ",dropped" : "") << (rows_.fields().modality ? ",modality" : "")
         << ",domain\n";
  }
  void write(const TraceRows& r, Index t, const TokenFacts& f) const {
    const std::string id = f.token_id == withheld_token ? "" : std::to_string(f.token_id);
    const std::string before =
        concat(f.sequence, ",", f.position, ",", id, ",", phase_name(f.phase), ",");
    const std::string modality = rows_.fields().modality ? concat(",", f.modality) : std::string();
    const std::string behind = concat(modality, ",", csv_quoted(rows_.label(f.domain)), "\n");
    for (std::size_t l = 0; l < r.layer.size(); ++l) {
      for (Index k = 0; k < rows_.survey().choices[l]; ++k) {
        out_ << before << rows_.header().layers[l].index << ',' << k;
        slot(r.layer[l], t, k);
        out_ << behind;
      }
    }
  }

 private:
  void slot(const LayerRows& l, Index t, Index k) const {
    const int id = l.expert(t, k);
    out_ << ',' << id;
    if (weights_)
      out_ << ',' << (id < 0 ? 0.0f : l.weight(t, k));
    if (dropped_)
      out_ << ',' << (!l.dropped.empty() && l.dropped(t, k) ? 1 : 0);
  }

  ExportText& out_;
  const ExportRows& rows_;
  bool weights_, dropped_;
};

void Csv::write(ExportRows& rows, OutputFile& file) const {
  for (const std::string& label : rows.header().domains) {
    if (label.find_first_of("\r\n") != label.npos)
      rows.refuse(concat("has the domain ", in_quotes(label), ", which csv cannot hold in a line"),
                  "moe export TRACE --to jsonl");
  }
  for (const std::string& name : rows.header().modalities) {
    if (name.find_first_of(",\"\r\n") != name.npos)
      rows.refuse(concat("has the modality ", in_quotes(name), ", which csv cannot hold plainly"),
                  "moe export TRACE --to jsonl");
  }
  ExportText out(file);
  const CsvToken token(out, rows);
  token.head();
  each_token(rows, [&](const TraceRows& r, Index t, const TokenFacts& f) {
    token.write(r, t, f);
    out.flush(enough);
  });
  out.flush();
}

class Jsonl final : public Exporter {
 public:
  ExportCarries carries() const override {
    return all_but_order;
  }
  void write(ExportRows&, OutputFile&) const override;
};

// {"0":[3,1],"1":[2,0]}: of each layer what cell(layer rows, slot) gives.
template <class Cell>
void layers_as_json(ExportText& out, const ExportRows& rows, const TraceRows& r, Cell cell) {
  const auto& layers = rows.header().layers;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    out << (l == 0 ? "{\"" : ",\"") << layers[l].index << "\":[";
    for (Index k = 0; k < rows.survey().choices[l]; ++k) {
      if (k > 0)
        out << ',';
      out << cell(r.layer[l], k);
    }
    out << ']';
  }
  out << '}';
}

void Jsonl::write(ExportRows& rows, OutputFile& file) const {
  std::vector<std::string> labels;
  for (const std::string& label : rows.header().domains)
    labels.push_back(json_quoted(label));
  ExportText out(file);
  each_token(rows, [&](const TraceRows& r, Index t, const TokenFacts& f) {
    out << "{\"sequence\":" << f.sequence << ",\"position\":" << f.position;
    if (f.token_id != withheld_token)
      out << ",\"token_id\":" << f.token_id;
    if (f.domain < labels.size())
      out << ",\"domain\":" << labels[f.domain];
    if (!f.modality.empty())
      out << ",\"modality\":" << json_quoted(f.modality);
    out << ",\"phase\":\"" << phase_name(f.phase) << "\",\"experts\":";
    layers_as_json(out, rows, r, [&](const LayerRows& l, Index k) { return l.expert(t, k); });
    if (rows.has_weights()) {
      out << ",\"weights\":";
      layers_as_json(out, rows, r, [&](const LayerRows& l, Index k) {
        return l.expert(t, k) < 0 ? 0.0f : l.weight(t, k);
      });
    }
    if (rows.survey().dropped) {
      out << ",\"dropped\":";
      layers_as_json(out, rows, r, [&](const LayerRows& l, Index k) {
        return !l.dropped.empty() && l.dropped(t, k) ? 1 : 0;
      });
    }
    out << "}\n";
    out.flush(enough);
  });
  out.flush();
}

}  // namespace

std::unique_ptr<Exporter> make_csv_exporter() {
  return std::make_unique<Csv>();
}

std::unique_ptr<Exporter> make_jsonl_exporter() {
  return std::make_unique<Jsonl>();
}

}  // namespace moe
