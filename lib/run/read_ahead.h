// Asks for pages of mapped files on a thread beside those that compute, and gives them back.
#pragma once
#include <memory>

#include "lib/layer/expert_cache.h"

namespace moe {

std::unique_ptr<ReadAhead> make_read_ahead();

}  // namespace moe
