// A table of a report, put together column by column, every part by its name:
//
//   TableBuilder t("ranks", "Layer by layer", section::deployment);
//   t.reading("Imbalance is what a step waits for ...").detail();
//   t.layers(shape.number);
//   t.column("imbalance").unit("x mean").meaning("...").of("ep_rank_imbalance", values);
//   t.into(report);
#pragma once
#include "analysis/metric/values.h"

namespace moe {

// Sections of a report, and their order: its story.
namespace section {
constexpr const char* balance = "is it balanced?";
constexpr const char* router = "how sure is the router?";
constexpr const char* loss = "where is the loss?";
constexpr const char* specialisation = "who specialises in what?";
constexpr const char* vocabulary = specialisation;
constexpr const char* modalities = "which modality goes where?";
constexpr const char* paths = "what follows what?";
constexpr const char* coactivation = "what is redundant?";
constexpr const char* redundancy = coactivation;
constexpr const char* deployment = "what would it cost to serve?";
constexpr const char* order[] = {balance,    router, loss,         specialisation,
                                 modalities, paths,  coactivation, deployment};
}  // namespace section

// One column of a table that is being built; holds it by its place, so later columns move nothing.
class ColumnBuilder {
 public:
  ColumnBuilder(Table& table, std::size_t place) : table_(table), place_(place) {}

  ColumnBuilder& unit(std::string text);
  ColumnBuilder& meaning(std::string text);
  ColumnBuilder& digits(int after_the_point);
  ColumnBuilder& light();  // the cells are green, grey, yellow, red
  // a map of it is coloured by the ratio to the chance value
  ColumnBuilder& around_chance();
  // the definition whose value the cells are; with Values also its rows
  ColumnBuilder& of(std::string_view id);
  ColumnBuilder& of(std::string_view id, const Values&);
  ColumnBuilder& rows(const Values::Rows&);  // what was measured, and the chance values
  ColumnBuilder& values(Cells cells);
  ColumnBuilder& chance(std::vector<double> rows);
  ColumnBuilder& chance(const ChanceRows& rows);
  ColumnBuilder& chance(double every_row);  // after the values
  ColumnBuilder& interval(std::vector<double> low, std::vector<double> high);
  ColumnBuilder& judged_by(Evidence rows);

 private:
  Column& column() {
    return table_.columns[place_];
  }
  Table& table_;
  std::size_t place_;
};

class TableBuilder {
 public:
  TableBuilder(std::string id, std::string title, std::string_view section);

  TableBuilder& reading(std::string text);
  TableBuilder& chart(Chart kind);
  TableBuilder& detail();
  TableBuilder& warn(std::string sentence);

  ColumnBuilder column(std::string name);
  // a column that says what its rows are of: no unit, no definition
  TableBuilder& key(std::string name, std::string meaning, Cells cells);
  TableBuilder& layers(std::vector<std::int64_t> absolute_numbers);

  std::size_t columns() const {
    return table_.columns.size();
  }
  Table take() {
    return std::move(table_);
  }
  void into(Report& r) {
    r.tables.push_back(take());
  }

 private:
  Table table_;
};

}  // namespace moe
