#include "analysis/compare/side_charts.h"

#include <algorithm>

#include "analysis/metric/layout.h"

namespace moe {
namespace {

constexpr std::size_t open_charts = 4;
constexpr std::string_view router_figure = "router_entropy_norm";

const Table* table_of(const Report& r, std::string_view id) {
  for (const Table& t : r.tables) {
    if (t.id == id)
      return &t;
  }
  return nullptr;
}

std::vector<std::string> rows_of(const Column& c) {
  if (const auto* words = std::get_if<std::vector<std::string>>(&c.cells))
    return *words;
  std::vector<std::string> out;
  if (const auto* numbers = std::get_if<std::vector<std::int64_t>>(&c.cells)) {
    for (const std::int64_t n : *numbers)
      out.push_back(concat(n));
  }
  return out;
}

const std::vector<double>* numbers_of(const Column& c) {
  return std::get_if<std::vector<double>>(&c.cells);
}

bool is_empty(const SideColumn& s) {
  const auto* cells = numbers_of(s.column);
  return !cells || cells->empty();
}

// Every row of one of them, once.
std::vector<std::string> all_rows(const std::vector<const SideColumn*>& all) {
  std::vector<std::string> out;
  for (const SideColumn* s : all) {
    for (const std::string& row : s->row) {
      if (std::ranges::find(out, row) == out.end())
        out.push_back(row);
    }
  }
  return out;
}

// Values behind the rows' names; where there is none: no value.
std::vector<double> joined(const SideColumn& s, const std::vector<double>& values,
                           const std::vector<std::string>& rows) {
  std::vector<double> out(rows.size(), no_value);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto at = std::ranges::find(s.row, rows[i]) - s.row.begin();
    if (std::size_t(at) < values.size())
      out[i] = values[std::size_t(at)];
  }
  return out;
}

Column series(const SideColumn& s, const std::string& name, const std::vector<std::string>& rows) {
  Column out = s.column;
  out.name = name;
  out.evidence = {};
  out.cells = joined(s, *numbers_of(s.column), rows);
  for (auto* v : {&out.low, &out.high, &out.chance, &out.chance_spread}) {
    if (v->size() > 1 || s.row.size() == 1)
      *v = joined(s, *v, rows);
  }
  return out;
}

bool all_whole(const std::vector<std::string>& rows) {
  return std::ranges::all_of(rows, [](const std::string& row) {
    return !row.empty() && std::ranges::all_of(row, [](char c) { return c >= '0' && c <= '9'; });
  });
}

struct Chosen {
  std::vector<const SideColumn*> column;
  std::vector<std::string> name;
};

Table chart_of(const Chosen& of, const std::string& id, const std::string& title,
               const std::string& key, const char* section) {
  const std::vector<std::string> rows = all_rows(of.column);
  Table out{.id = id, .title = title, .section = section};
  const bool by_layer = all_whole(rows) && key == "layer";
  out.chart = by_layer && rows.size() > 1 ? Chart::lines : Chart::bars;
  if (by_layer) {
    std::vector<std::int64_t> numbers;
    for (const std::string& row : rows)
      numbers.push_back(std::stoll(row));
    out.columns.push_back({.name = key, .cells = numbers});
  } else {
    out.columns.push_back({.name = key, .cells = rows});
  }
  for (std::size_t i = 0; i < of.column.size(); ++i)
    out.columns.push_back(series(*of.column[i], of.name[i], rows));
  return out;
}

Chosen chosen(const std::vector<const SideColumn*>& all, const std::vector<std::string>& name) {
  Chosen out;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (is_empty(*all[i]))
      continue;
    out.column.push_back(all[i]);
    out.name.push_back(name[i]);
  }
  return out;
}

void add_losses(const SideFigures& f, const char* section, std::vector<Table>& out) {
  std::vector<const SideColumn*> all;
  for (const SideColumn& s : f.loss)
    all.push_back(&s);
  const Chosen of = chosen(all, f.name);
  if (of.column.empty())
    return;
  Table t = chart_of(of, "side_loss", "Loss by domain", "domain", section);
  t.reading =
      "Mean loss of the next token, with 95 % intervals by sequences. The chance value is each "
      "trace's mean over all tokens.";
  if (!f.one_tokenizer) {
    t.warnings.emplace_back(
        "the traces are of different tokenizers: their tokens are other pieces of the text, and "
        "losses a token cannot be compared");
  }
  out.push_back(std::move(t));
}

}  // namespace

SideColumn side_losses(const Report& r) {
  const Table* t = table_of(r, "loss_domains");
  return t ? SideColumn{rows_of(t->columns[0]), t->columns[1]} : SideColumn{};
}

SideColumn side_column(const Report& r, const Headline& h) {
  for (const bool detail : {false, true}) {
    for (const Table& t : r.tables) {
      if (t.detail != detail || t.columns.empty() || !t.columns[0].name.starts_with("layer"))
        continue;
      for (const Column& c : t.columns) {
        if (c.metric == h.id && c.name.ends_with(h.column) && numbers_of(c))
          return {rows_of(t.columns[0]), c};
      }
    }
  }
  return {};
}

std::vector<Table> side_charts(const SideFigures& f, const char* section) {
  std::vector<Table> out;
  add_losses(f, section, out);
  std::vector<std::size_t> order;
  for (std::size_t h = 0; h < headlines().size(); ++h) {
    if (headlines()[h].id == router_figure)
      order.insert(order.begin(), h);
    else
      order.push_back(h);
  }
  for (const std::size_t h : order) {
    std::vector<const SideColumn*> all;
    for (const auto& of_trace : f.figure)
      all.push_back(&of_trace[h]);
    const Chosen of = chosen(all, f.name);
    if (of.column.empty())
      continue;
    const Headline& head = headlines()[h];
    Table t =
        chart_of(of, concat("side_", head.id), concat("By layer: ", head.name), "layer", section);
    t.reading = "Layer by layer, with 95 % intervals by sequences where they are known.";
    t.detail = out.size() >= open_charts;
    out.push_back(std::move(t));
  }
  return out;
}

}  // namespace moe
