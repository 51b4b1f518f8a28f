#include "apps/glossary.h"

namespace moe {
namespace {

constexpr Term all[] = {
#define TERM(words, chinese, meaning, command) {words, chinese, meaning, command},
#include "apps/glossary.def"
#undef TERM
};

}  // namespace

std::span<const Term> glossary() {
  return all;
}

}  // namespace moe
