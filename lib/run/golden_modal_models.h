// A published multimodal model beside what its class gave (golden/modal/hf): its language part, fed
// with the rows that the class made of pictures and sounds, and the encoders that make them.
#pragma once
#include "lib/model/decoder.h"
#include "lib/run/golden_models.h"
#include "lib/trace/golden.h"

namespace moe {

bool is_modal_case(const GoldenFile& expected);
// Fills the result's differences.
void compare_modal(Decoder<float>&, const GoldenFile& expected, GoldenModelResult&);
// One sentence on what differs by more than is allowed, or nothing. Sets what is allowed of logits.
std::string judge_modal(GoldenModelResult&);
// The same of encoders and projectors of the folder, whose rows are what compare_modal() is given.
std::string judge_encoders(const std::filesystem::path& folder, const GoldenFile& expected,
                           Backend<float>&, GoldenModelResult&);

}  // namespace moe
