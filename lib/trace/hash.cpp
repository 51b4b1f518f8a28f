// XXH3 from libxxhash's header.
#define XXH_INLINE_ALL
#include "lib/trace/hash.h"

#include <xxhash.h>

#include <new>

namespace moe {
Xxh3::Xxh3() : state_(XXH3_createState()) {
  if (!state_)
    throw std::bad_alloc();
  XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_));
}
Xxh3::~Xxh3() {
  XXH3_freeState(static_cast<XXH3_state_t*>(state_));
}
void Xxh3::update(std::span<const std::uint8_t> data) {
  if (!data.empty())
    XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), data.data(), data.size());
}
std::uint64_t Xxh3::value() const {
  return XXH3_64bits_digest(static_cast<XXH3_state_t*>(state_));
}

}  // namespace moe
