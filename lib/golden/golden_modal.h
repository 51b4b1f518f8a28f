// Case files of parts of multimodal models (format moe-golden-modal): layers whose experts depend
// on the modality of a row, losses by modality, pictures and sounds as rows.
#pragma once
#include "lib/golden/comparison.h"
#include "lib/golden/golden_case.h"

namespace moe {

// The kinds masked_layer and modality_expert_choice as whole layers. Throws Unsupported, or
// Error(input) where the file is not what it should be.
GoldenCase read_modal_layer(const GoldenFile&);
bool is_modal_layer(const std::string& kind);

// Positions and rotations of rows in time, height and width; of the patches of a picture.
void run_golden_row_positions(const GoldenFile&, Comparison&);
void run_golden_picture_positions(const GoldenFile&, Comparison&);

// Attention that is causal, and sees both ways inside a picture: values and gradients.
void run_golden_spans(const GoldenFile&, Comparison&);

// The other kinds, in double on the host. Throws Unsupported for those that are not there.
void run_golden_modal(const GoldenFile&, const std::string& kind, Comparison&);

}  // namespace moe
