// The four normal forms of Unicode 9.0, as changes of a text.
#pragma once
#include <string_view>
#include <vector>

#include "lib/tokenizer/aligned.h"

namespace moe {

enum class NormalForm { nfc, nfd, nfkc, nfkd };

// Whether a glance shows that the form leaves this text alone; false where it might not.
bool is_normal(std::string_view text, NormalForm);
std::vector<Change> normal_changes(std::string_view text, NormalForm);

}  // namespace moe
