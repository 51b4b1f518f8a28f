// Rotations by positions in two and three dimensions: each is one rotation an axis, with frequency
// 0 for the pairs of the others, on the backend's own operation.
#include <algorithm>

#include "lib/backend/backend.h"
#include "lib/golden/golden_modal.h"
#include "lib/golden/golden_numbers.h"
#include "lib/signal/patches.h"
#include "lib/signal/positions.h"

namespace moe {
namespace {

struct Turn {
  std::vector<int> position;      // (T)
  std::vector<double> frequency;  // (pairs)
};

// input/x and input/grad_y, turned one axis after the other.
void run_turns(const GoldenFile& file, std::span<const Turn> turns, bool neighbours,
               Comparison& out) {
  const auto dims = file.reals("input/x").dims;
  if (dims.size() != 3)
    throw Error(Exit::input, "input/x is not (rows, heads, numbers of a head)");
  const auto backend = make_reference<double>();
  const auto turned = [&](const char* name, bool back) {
    const Matrix<double> m = golden::numbers<double>(file, name, dims[0], dims[1] * dims[2]);
    Array<double> x(*backend, m.view());
    for (const Turn& t : turns) {
      Matrix<int> position(1, dims[0]);
      std::ranges::copy(t.position, position.data());
      const Array<int> at(*backend, std::as_const(position).view());
      backend->rope(x.view(),
                    {.head_dim = int(dims[2]), .interleaved = neighbours, .frequency = t.frequency},
                    std::as_const(at).view(), back);
    }
    return x.to_host();
  };
  out.reals("y", turned("input/x", false).flat());
  out.reals("grad/x", turned("input/grad_y", true).flat());
}

// (T,pairs): the sum over axes of position times frequency
void compare_angles(std::span<const Turn> turns, Comparison& out) {
  std::vector<double> angles;
  for (std::size_t t = 0; t < turns[0].position.size(); ++t) {
    for (std::size_t j = 0; j < turns[0].frequency.size(); ++j) {
      double sum = 0;
      for (const Turn& turn : turns)
        sum += turn.position[t] * turn.frequency[j];
      angles.push_back(sum);
    }
  }
  out.reals("angles", angles);
}

std::vector<RowRun> runs_of(const GoldenFile& file) {
  const auto runs = file.integers("input/runs");
  if (runs.dims.size() != 2 || runs.dims[1] != 4)
    throw Error(Exit::input, "input/runs is not a kind and three numbers a run");
  std::vector<RowRun> out;
  for (std::size_t i = 0; i < runs.values.size(); i += 4) {
    const auto number = [&](std::size_t k) {
      return int(runs.values[i + k]);
    };
    const bool picture = number(0) != 0;
    out.push_back({picture, picture ? 0 : number(1), number(1), number(2), number(3)});
  }
  return out;
}

PairRule rule_of(const std::string& name) {
  if (name == "sections")
    return PairRule::sections;
  if (name == "interleaved")
    return PairRule::interleaved;
  if (name == "ernie")
    return PairRule::ernie;
  throw Unsupported{concat("the rule '", name, "' is not there")};
}

}  // namespace

void run_golden_row_positions(const GoldenFile& file, Comparison& out) {
  const PairRule rule = rule_of(file.text("rule"));
  const RowPositions rows = row_positions(runs_of(file), int(file.integer("merge")));
  const auto said = file.integer_list("sections");
  if (said.size() != 3)
    throw Error(Exit::input, "sections are not three numbers");
  if (rows.next != file.integer("next_position"))
    throw Error(Exit::input, concat("the next position is ", rows.next, " here"));
  const std::array<int, 3> sections{int(said[0]), int(said[1]), int(said[2])};
  const int head = int(file.integer("head_dim"));
  const auto frequency = rotary_frequencies(head, file.real("theta"));
  const auto axes = pair_axes(rule, sections, head / 2);
  std::vector<Turn> turns;
  for (int axis = 0; axis < 3; ++axis) {
    const auto p = rows.position.row(axis);
    turns.push_back({{p.begin(), p.end()}, frequencies_of(frequency, axes, axis)});
  }
  const auto flat = rows.position.flat();
  out.integers("position_ids", std::vector<std::int64_t>(flat.begin(), flat.end()));
  out.integers("modality",
               std::vector<std::int64_t>(rows.of_picture.begin(), rows.of_picture.end()));
  compare_angles(turns, out);
  run_turns(file, turns, rule == PairRule::ernie, out);
}

void run_golden_picture_positions(const GoldenFile& file, Comparison& out) {
  const std::string rule = file.text("rule");
  if (rule != "axial" && rule != "llama4")
    throw Unsupported{concat("the rule '", rule, "' is not there")};
  const bool columns_first = rule == "llama4";  // which also counts from 1
  const int merge = file.text("order") == "merge" ? 2 : 1;
  std::vector<double> row, column;
  std::vector<int> axis_position[2];
  for (const PatchPlace& p :
       patch_places(int(file.integer("rows")), int(file.integer("columns")), merge)) {
    row.push_back(p.row);
    column.push_back(p.column);
    axis_position[0].push_back(columns_first ? p.column + 1 : p.row);
    axis_position[1].push_back(columns_first ? p.row + 1 : p.column);
  }
  const auto dims = file.reals("input/x").dims;
  const auto quarter = rotary_frequencies(int(dims.back()) / 2, file.real("theta"));
  std::vector<double> frequency = quarter;
  frequency.insert(frequency.end(), quarter.begin(), quarter.end());
  std::vector<int> axes(frequency.size(), 0);
  std::fill(axes.begin() + std::ptrdiff_t(quarter.size()), axes.end(), 1);
  std::vector<Turn> turns;
  for (const int axis : {0, 1})
    turns.push_back({axis_position[axis], frequencies_of(frequency, axes, axis)});
  out.reals("row", row);
  out.reals("column", column);
  compare_angles(turns, out);
  run_turns(file, turns, columns_first, out);
}

}  // namespace moe
