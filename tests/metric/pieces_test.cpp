// What token ids look like in reports: the blank in front of a word is there and can be seen, for
// every way in which vocabularies spell it; and the tokens of a text one after another are the
// text.
#include "analysis/metric/pieces.h"

#include <catch2/catch.hpp>

#include "lib/tokenizer/open.h"
#include "tests/skip.h"

using namespace moe;

namespace {

TraceHeader vocabulary(std::vector<std::string> pieces) {
  TraceHeader h;
  h.pieces = std::move(pieces);
  return h;
}

std::string text_of(const TraceHeader& h, const std::vector<int>& ids) {
  const Pieces pieces(h);
  std::string out;
  for (const int id : ids)
    out += pieces.bytes(std::uint32_t(id));
  return out;
}

// Of all ids, in their order.
std::string shown(const TraceHeader& h) {
  const Pieces pieces(h);
  std::string out;
  for (std::uint32_t id = 0; id < h.pieces.size(); ++id)
    out += pieces.readable(id) + "|";
  return out;
}

}  // namespace

TEST_CASE("the blank before a word is shown, whatever the vocabulary writes for it") {
  CHECK(shown(vocabulary({"a", "Ġthe", "Ċ", "<|end of text|>"})) == "a|␣the|⏎|<|end␣of␣text|>|");
  CHECK(shown(vocabulary({"a", "▁the", "<0x0A>", "▁"})) == "a|␣the|⏎|␣|");
  CHECK(shown(vocabulary({"a", " the", "\n", " "})) == "a|␣the|⏎|␣|");
  CHECK(shown(vocabulary({"the", "##ing", "##s"})) == "␣the|ing|s|");
  CHECK(shown(vocabulary({"the</w>", "ing", "s</w>"})) == "the␣|ing|s␣|");
}

TEST_CASE("letters that are marks elsewhere do not decide how a vocabulary is read") {
  CHECK(shown(vocabulary({"▁the", "▁of", "Ġ", "##x"})) == "␣the|␣of|Ġ|##x|");
  CHECK(shown(vocabulary({"Ġthe", "Ġof", "▁", "##x"})) == "␣the|␣of|▁|##x|");
  CHECK(shown(vocabulary({" the", " of", "▁", "Ġ", "###"})) == "␣the|␣of|▁|Ġ|###|");
}

TEST_CASE("halves of characters join into whole ones, a zero byte is kept") {
  const TraceHeader h = vocabulary({" a", "<0xE5><0xBA>", "<0x8A>", "<0x00>", "<0xZZ>"});
  CHECK(text_of(h, {0, 1, 2, 3, 4}) == std::string(" a床\0<0xZZ>", 12));
  CHECK(shown(h) == "␣a|<0xE5><0xBA>|<0x8A>|<0x00>|<0xZZ>|");
  CHECK(Pieces(h).bytes(9) == "<9>");
}

TEST_CASE("the pieces of a text are the text, for every kind of tokenizer") {
  const auto folder = test::shared("golden/tokenizers");
  if (!std::filesystem::exists(folder))
    return test::skip("no recorded tokenizers at " + folder.string());
  const std::string plain = "the king of the land";
  const std::string any = "The naïve king  said:\n\t床前明月光 🙂 – x1\r\n";
  int kinds = 0;
  for (const auto& kind : std::filesystem::directory_iterator(folder)) {
    const auto file = tokenizer_file(kind.path());
    if (!kind.is_directory() || !std::filesystem::exists(file))
      continue;
    INFO(kind.path().filename().string());
    const auto tokenizer = open_tokenizer(kind.path());
    TraceHeader h = vocabulary(tokenizer->pieces());
    h.tokenizer_id = tokenizer->id();
    // some put a blank in front of a text, or behind it
    const std::string joined = text_of(h, tokenizer->encode(plain));
    CHECK((joined == plain || joined == " " + plain || joined == plain + " "));
    // of bytes nothing is lost, unless a normalizer changes the text
    const std::vector<int> ids = tokenizer->encode(any);
    if (tokenizer->decode(ids) == any && h.pieces.size() > 256)
      CHECK((text_of(h, ids) == any || text_of(h, ids) == " " + any));
    ++kinds;
  }
  CHECK(kinds > 15);
}
