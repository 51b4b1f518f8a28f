// The tokenizers that are chosen by a spec, without a file. Those of files are opened by
// lib/tokenizer/open.h and have the same interface.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/registry.h"
#include "lib/core/spec.h"
#include "lib/tokenizer/tokenizer.h"

namespace moe {

using MakeTokenizer = std::unique_ptr<Tokenizer>(Spec&);
const Registry<MakeTokenizer>& tokenizers();
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec);  // throws Error(usage)

}  // namespace moe
