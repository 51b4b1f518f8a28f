// Rows that an encoder of pictures or sounds made for a language model, with the text between them,
// in an HDF5 file (docs/given-rows.md): what `--data rows:` reads and golden models of several
// modalities hold.
#pragma once
#include "lib/core/batch.h"
#include "lib/trace/golden.h"

namespace moe {

// Every sequence of the file in one batch: ids, targets, modalities, Batch::given, added, position.
// A row without an id of the vocabulary (id below 0) has -1 and must be given. Throws Error(input)
// naming the dataset that is missing, or does not fit the others.
Batch read_given_rows(const GoldenFile&);
// Whether the file has such rows.
bool has_given_rows(const GoldenFile&);

// Sequences first .. first+count of a batch, as a batch.
Batch sequences_of(const Batch&, Index first, Index count);

}  // namespace moe
