// One hash over everything in a trace that /commits and corpus_sha256 do not cover: the attributes
// of the file, and the datasets that are no rows of tokens. A changed bit there changes a report,
// and nothing else would tell.
#pragma once
#include <hdf5.h>

#include <cstdint>
#include <string>

namespace moe {

// XXH3-64, as docs/trace-format.md defines it ("constants_xxh3"). Throws Error(input) where a
// dataset says that it has more than 1 GiB.
std::uint64_t constants_xxh3(hid_t file);
std::string constants_text(hid_t file);  // 16 hexadecimal digits

}  // namespace moe
