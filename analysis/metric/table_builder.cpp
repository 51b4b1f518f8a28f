#include "analysis/metric/table_builder.h"

namespace moe {

ColumnBuilder& ColumnBuilder::unit(std::string text) {
  column().unit = std::move(text);
  return *this;
}
ColumnBuilder& ColumnBuilder::meaning(std::string text) {
  column().meaning = std::move(text);
  return *this;
}
ColumnBuilder& ColumnBuilder::digits(int after_the_point) {
  column().digits = after_the_point;
  return *this;
}
ColumnBuilder& ColumnBuilder::light() {
  column().light = true;
  return *this;
}

ColumnBuilder& ColumnBuilder::around_chance() {
  column().around_chance = true;
  return *this;
}

ColumnBuilder& ColumnBuilder::of(std::string_view id) {
  column().metric = id;
  return *this;
}
ColumnBuilder& ColumnBuilder::of(std::string_view id, const Values& all) {
  return of(id).rows(all.at(id));
}
ColumnBuilder& ColumnBuilder::rows(const Values::Rows& both) {
  return values(both.value).chance(both.chance);
}

ColumnBuilder& ColumnBuilder::values(Cells cells) {
  column().cells = std::move(cells);
  return *this;
}
ColumnBuilder& ColumnBuilder::chance(std::vector<double> rows) {
  column().chance = std::move(rows);
  return *this;
}
ColumnBuilder& ColumnBuilder::chance(const ChanceRows& rows) {
  column().chance = rows.value;
  column().chance_spread = rows.spread;
  return *this;
}
ColumnBuilder& ColumnBuilder::chance(double every_row) {
  const auto size = [](const auto& cells) {
    return cells.size();
  };
  column().chance.assign(std::visit(size, column().cells), every_row);
  return *this;
}
ColumnBuilder& ColumnBuilder::interval(std::vector<double> low, std::vector<double> high) {
  column().low = std::move(low);
  column().high = std::move(high);
  return *this;
}
ColumnBuilder& ColumnBuilder::judged_by(Evidence rows) {
  column().evidence = std::move(rows);
  return *this;
}

TableBuilder::TableBuilder(std::string id, std::string title, std::string_view section) {
  table_.id = std::move(id);
  table_.title = std::move(title);
  table_.section = section;
}

TableBuilder& TableBuilder::reading(std::string text) {
  table_.reading = std::move(text);
  return *this;
}
TableBuilder& TableBuilder::chart(Chart kind) {
  table_.chart = kind;
  return *this;
}
TableBuilder& TableBuilder::detail() {
  table_.detail = true;
  return *this;
}
TableBuilder& TableBuilder::warn(std::string sentence) {
  table_.warnings.push_back(std::move(sentence));
  return *this;
}

ColumnBuilder TableBuilder::column(std::string name) {
  table_.columns.push_back({});
  table_.columns.back().name = std::move(name);
  return {table_, table_.columns.size() - 1};
}
TableBuilder& TableBuilder::key(std::string name, std::string meaning, Cells cells) {
  column(std::move(name)).meaning(std::move(meaning)).values(std::move(cells));
  return *this;
}
TableBuilder& TableBuilder::layers(std::vector<std::int64_t> absolute_numbers) {
  return key("layer", "absolute layer number", std::move(absolute_numbers));
}

}  // namespace moe
