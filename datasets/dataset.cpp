// The list of datasets, from datasets.def: a new one is a file here and a line there.
#include "datasets/dataset.h"

namespace moe {

#define DATASET(name, about, examples) MakeDataset make_##name##_dataset;
#include "datasets/datasets.def"
#undef DATASET

const Registry<MakeDataset>& datasets() {
  static const Registry<MakeDataset> all("dataset", {
#define DATASET(name, about, examples) {#name, about, examples, make_##name##_dataset},
#include "datasets/datasets.def"
#undef DATASET
                                                    });
  return all;
}

}  // namespace moe
