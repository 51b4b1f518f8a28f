// Training curves: runs side by side over steps, seeds of one spec as a band, and every logged
// number in long form for other programs.
#pragma once
#include "analysis/curves/training_log.h"
#include "analysis/table.h"

namespace moe {

// A table a figure: a row a stretch of steps, a column a run, or where runs differ in their seeds
// alone one column for them with its mean and, as its interval, the lowest and the highest.
Report training_curves(const std::vector<TrainingLog>&);

// "run,seed,step,figure,domain,layer,value" for pandas and R, and the same as a JSON array of
// objects; a value that is none is not written, an infinite one is "inf".
std::string long_csv(const std::vector<TrainingLog>&);
std::string long_json(const std::vector<TrainingLog>&);

// The bytes of a TensorBoard event file of one run: a scalar a figure and step, named
// "loss", "valid_loss/DOMAIN", "load_cv/layer 3". The log holds no times, so all are 0 and curves
// are drawn over steps. Records as in TFRecord: length, masked CRC-32C of it, data, masked CRC-32C.
std::string event_file(const TrainingLog&);

}  // namespace moe
