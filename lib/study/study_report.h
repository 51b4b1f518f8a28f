// An outcome as a report for the renderers, and in long form for pandas and R.
#pragma once
#include <filesystem>
#include <string>

#include "analysis/table.h"
#include "lib/study/outcome.h"

namespace moe {

// The question, the verdicts as findings, the picture that answers it, a table a measure with
// intervals, curves as bands over the seeds, and what was run. `again`: the command that runs it.
Report study_report(const Study&, const Outcome&, const std::filesystem::path& folder,
                    const std::string& again);

// study.csv: "study,arm,measure,unit,repetition,value", a line a number; infinite is "inf", what is
// missing is not written.
std::string study_csv(const Study&, const Outcome&);
// The same columns as datasets of a file for h5py, pandas and R.
void write_study_h5(const std::filesystem::path&, const Study&, const Outcome&);
// Everything as JSON: for other programs, and for comparing studies.
std::string study_json(const Study&, const Outcome&);

}  // namespace moe
