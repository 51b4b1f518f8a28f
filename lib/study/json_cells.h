// Numbers out of the JSON that the program's verbs write.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lib/study/measure.h"

namespace moe {

double reduced(const std::vector<double>& values, Reduce);  // NaN where there is none

// A number of an object; NaN where there is none of that name.
double number_of(const std::filesystem::path& file, const std::string& key);

// Which cells of a moe-report: of `table` (empty: the first that has the column) the column of that
// name, or with that metric id, in the row whose first cell reads `row` (empty: all rows reduced).
struct CellPlace {
  std::string table, column, metric, row;
  Reduce rows = Reduce::mean;
};
double cell_of(const std::filesystem::path& file, const CellPlace&);

// Of the last `last` logged steps of a metrics.jsonl the mean of a figure; where it is one by
// layer, or by layer and expert, those reduced first. Throws Error(usage) where no line has it.
double logged(const std::filesystem::path& file, const std::string& figure, Reduce layers,
              Reduce experts, int last);

// Whether the steps that a metrics.jsonl logs have layers of experts; true where it logs none.
bool logs_experts(const std::filesystem::path& file);

// The gradient noise scale over the last `last` logged steps (0 = all), in tokens: the model's, or
// of each expert, those reduced. Throws Error(usage) where no line has it.
double noise_of(const std::filesystem::path& file, bool by_expert, Reduce layers, Reduce experts,
                int last);

}  // namespace moe
