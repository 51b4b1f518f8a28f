// The command lines of a study with every place filled: what has to be run, in which folder.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/study/study.h"

namespace moe {

using Words = std::vector<std::string>;  // of a command line, without the program's name

// One arm and one seed, or what all arms of a seed share.
struct Unit {
  std::string arm;  // empty: shared
  std::uint64_t seed = 0;
  std::filesystem::path folder;
  std::vector<Words> commands;
  // how many of them the study's file asks for; a trace behind them is made for its measures alone,
  // and not of a dense run
  int asked = 0;
  std::string name() const;  // for people: "softmax, seed 2"
};

// Places in command lines: {seed}, {dir} (the unit's folder), {run} = {dir}/run, {trace} =
// {dir}/trace.moetrace.h5, {shared} (the folder shared by the arms of a seed), {options} (the
// arm's), the variables of the study and the arm, and for a variable {data} that holds a dataset
// {data_valid}, the same on the split that training has not seen. What is left out is added: a
// `train` without
// --seed, -o or {options} gets them; where a metric of a report is measured and no command makes
// one, the run is traced over the validation split of its data and reported on. Throws
// Error(usage) for a name in braces that is none.

// Seed by seed, what is shared before the arms that use it: cut short at any point, most seeds are
// whole.
std::vector<Unit> units_of(const Study&, const std::filesystem::path& folder);

// Of one round of timing: the training commands of every arm alone, cut to the steps of [timing],
// in an order that turns with the round. Those of shared folders are not made again.
std::vector<Unit> timing_units(const Study&, const std::filesystem::path& folder, int round);

// The same unit on `steps` training steps, in another folder: for a plan from a short probe.
Unit probe_of(const Study&, const Unit&, const std::filesystem::path& folder, int steps);

bool is_training(const Words&);                                // `train`, a run from its start
std::string option_of(const Words&, const std::string& name);  // its value; empty = not given
void set_option(Words&, const std::string& name, const std::string& value);  // given or replaced
std::string folder_name(const std::string& arm);  // safe as the name of a folder

}  // namespace moe
