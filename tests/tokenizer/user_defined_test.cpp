// What a user-defined piece of a sentencepiece Unigram model counts, as sentencepiece 0.2.3 was
// seen to cut texts of such models.
#include <catch2/catch.hpp>

#include "lib/tokenizer/open.h"
#include "tests/files/scratch.h"
#include "tests/sentencepiece_bytes.h"

using namespace moe;

namespace {

// Whether "UDy" is cut in front of the y, where the piece "UDy" is better than "y" by `better`.
bool cut(const std::string& user_defined, float stored, float better) {
  using namespace moe::test;
  const Scratch folder;
  folder.put("tokenizer.model",
             scored_piece("<unk>", 0, 2) + scored_piece(user_defined, stored, 4) +
                 scored_piece(user_defined + "y", -100 + better, 1) + scored_piece("y", -100, 1) +
                 scored_piece("q", -9, 1) + field(2, varint(3, 1)) +
                 field(3, varint(3, 0) + varint(4, 0) + varint(5, 1)));
  const auto tokenizer = open_tokenizer(folder / "tokenizer.model");
  return tokenizer->encode(user_defined + "y").size() == 2;
}

}  // namespace

TEST_CASE("a user-defined piece counts a tenth for each byte behind its first") {
  for (const float stored : {0.0f, -7.0f}) {
    INFO(stored);
    CHECK(cut("x", stored, -0.05f));
    CHECK_FALSE(cut("x", stored, 0.05f));
    CHECK(cut("xxx", stored, 0.15f));
    CHECK_FALSE(cut("xxx", stored, 0.25f));
    CHECK(cut("\xC3\xA9", stored, 0.05f));
    CHECK_FALSE(cut("\xC3\xA9", stored, 0.15f));
  }
}
