// Fonts: .hex, .psf of both versions, names of characters, and files that are none of them.
#include <catch2/catch.hpp>

#include "datasets/fonts.h"
#include "tests/datasets/fixture.h"
#include "tests/skip.h"

using namespace moe;

namespace {

std::string u32(std::uint32_t v) {
  std::string out;
  for (int i = 0; i < 4; ++i)
    out += char(v >> (8 * i));
  return out;
}

// Two characters of 3 x 9 pixels: the first is "é" and, as a sequence, "e" with an accent.
std::string psf2() {
  std::string out =
      "\x72\xb5\x4a\x86" + u32(0) + u32(32) + u32(1) + u32(2) + u32(6) + u32(3) + u32(9);
  out += std::string("\x80\x80\x00\x00\x00\x00", 6) + std::string("\x01\x00\xff\x80\x01\x00", 6);
  return out + "\xc3\xa9\xfe" + "e\xcc\x81\xff" + "Zz\xff";
}

std::string psf1() {
  std::string out = std::string("\x36\x04\x02\x02", 4);
  for (int n = 0; n < 256; ++n)
    out += std::string(1, char(n)) + std::string(1, char(255 - n));
  for (int n = 0; n < 256; ++n)
    out += std::string(1, char(n)) + std::string("\x01\xff\xff", 3);  // U+0100 + n
  return out;
}

std::string refused(const std::string& name, const std::string& bytes) {
  write(name, bytes);
  return refusal([&] { read_font(name, 16); });
}

}  // namespace

TEST_CASE("fonts of bits are read from .hex and from .psf of both versions") {
  Folder folder;
  write("x.hex",
        "# a comment\n0041:0000000018242442427E424242420000\n4E00:" + std::string(32, '0') +
            "7FFE" + std::string(28, '0') + "\r\n0020:" + std::string(32, '0') + "\n");
  const auto hex = read_font("x.hex", 16);
  REQUIRE(hex.size() == 2);  // a blank has no ink
  CHECK(hex[0].code == U'A');
  CHECK(hex[0].width == 8);
  CHECK(hex[0].at(4, 3));
  CHECK_FALSE(hex[0].at(4, 2));
  CHECK(hex[1].width == 16);
  const Glyph bar = trimmed(hex[1]);
  CHECK(bar.height == 1);
  CHECK(bar.width == 14);
  write("x.psf", psf2());
  const auto two = read_font("x.psf", 16);
  REQUIRE(two.size() == 3);
  CHECK(two[0].code == U'é');
  CHECK(two[0].width == 9);
  CHECK(two[0].at(0, 0));
  CHECK(two[0].at(0, 8));
  CHECK(two[1].code == U'Z');
  CHECK(two[2].code == U'z');
  CHECK(two[1].at(1, 8));
  write("y.psf", psf1());
  const auto one = read_font("y.psf", 16);
  REQUIRE(one.size() == 256);
  CHECK(one[7].code == char32_t(0x107));
  CHECK(one[7].at(0, 7));
  CHECK_FALSE(one[7].at(0, 0));
}

TEST_CASE("fonts that are none, or cut off, are refused with what is wrong") {
  Folder folder;
  const std::string begin = " is no font that can be read: ";
  CHECK(refused("x.fnt", "abc").find(begin + "it begins not as a .psf") != std::string::npos);
  CHECK(refused("x.ttf", "abc").find("no font of outlines") != std::string::npos);
  CHECK(refused("x.hex", "41 zz\n") == "3: 'x.hex'" + begin + "line 1 is not CODE:DIGITS");
  CHECK(refused("x.hex", "41:00\n") ==
        "3: 'x.hex'" + begin + "line 1 has 2 digits in place of 32 or 64");
  CHECK(refused("x.hex", "\n") == "3: 'x.hex'" + begin + "it has no character with any ink");
  const std::string whole = psf2();
  for (std::size_t n = 4; n < whole.size(); ++n) {
    INFO(n);
    CHECK(refused("x.psf", whole.substr(0, n)).starts_with("3: 'x.psf'" + begin));
  }
  for (std::size_t at = 4; at < whole.size(); ++at) {
    for (const int bit : {0, 5, 7}) {
      std::string bytes = whole;
      bytes[at] = char(bytes[at] ^ (1 << bit));
      const std::string told = refused("x.psf", bytes);
      CHECK((told.empty() || told.starts_with("3: 'x.psf'")));
    }
  }
}

TEST_CASE("names of characters are those of UnicodeData.txt and of Perl") {
  Folder folder;
  write("u.txt", "0041;LATIN CAPITAL LETTER A;Lu;0;L\n0000;<control>;Cc\n");
  CHECK(read_character_names("u.txt") ==
        std::map<char32_t, std::string>{{U'A', "latin capital letter a"}});
  write("n.pl", "return <<'END';\n00041\nLATIN CAPITAL LETTER A\n\n01F6CF\nBED\n\nEND\n");
  CHECK(read_character_names("n.pl") ==
        std::map<char32_t, std::string>{{U'A', "latin capital letter a"}, {0x1F6CF, "bed"}});
  write("e.txt", "nothing\n");
  CHECK(refusal([] { read_character_names("e.txt"); }) ==
        "3: 'e.txt' holds no names of characters");
}

TEST_CASE("glyphs keep a face and, where there are names, characters apart") {
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus faces({"glyphs:font=fonts,codes=41-7a"}, *tokenizer, 1);
  CHECK(faces.info().domains == std::vector<std::string>{"glyphs"});
  CHECK(faces.info().questions == std::vector<std::string>{"character, unseen face"});
  const Corpus named({"glyphs:font=fonts,names=fonts/names.txt,codes=41-7a"}, *tokenizer, 1);
  CHECK(named.info().domains == std::vector<std::string>{"letter"});
  int kinds[2] = {0, 0};
  for (Index n = 0; const auto b = valid_batch(named, 0, n, 1, 64); ++n)
    ++kinds[b->question.at(0)];
  CHECK(kinds[0] > 0);
  CHECK(kinds[1] > 0);
  CHECK(refusal_of("glyphs:font=fonts/a.hex").find("is one face, and without names=") !=
        std::string::npos);
  CHECK(refusal_of("glyphs:font=none") == "3: 'none' does not exist");
  CHECK(refusal_of("glyphs:font=corpus").starts_with("3: folder 'corpus' holds no .hex, .psf"));
  CHECK(refusal_of("glyphs:font=fonts,codes=4e00-9fff") ==
        "3: none of the characters that codes= names can be trained on");
  CHECK(refusal_of("glyphs:font=fonts,codes=xyz").starts_with("2: glyphs: codes=xyz has 'xyz'"));
}

TEST_CASE("fonts of outlines are drawn with an em of as many pixels as asked for") {
  const std::filesystem::path path = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";
  if (!std::filesystem::exists(path))
    return test::skip("no DejaVuSans.ttf (package fonts-dejavu-core)");
  const auto of = [&](int pixels, char32_t code) {
    for (const Glyph& g : read_font(path, pixels)) {
      if (g.code == code)
        return trimmed(g);
    }
    return Glyph{};
  };
  // capitals of this face are 0.73 em high, its bar three quarters of them and more
  const Glyph capital = of(32, U'H');
  CHECK(capital.height >= 22);
  CHECK(capital.height <= 25);
  CHECK(of(64, U'H').height >= 2 * capital.height - 1);
  const int middle = capital.width / 2;
  CHECK_FALSE(capital.at(0, middle));  // between the stems
  CHECK(capital.at(0, 1));
  int ink = 0;
  for (int y = 0; y < capital.height; ++y)
    ink += capital.at(y, middle);
  CHECK(ink >= 2);  // the bar
  CHECK(ink <= 5);
  CHECK(of(16, U' ').height == 0);  // a blank has no ink
  CHECK(of(16, U'ж').height > 0);
  Folder folder;
  write("broken.ttf", "not a font");
  CHECK(refusal([] { read_font("broken.ttf", 16); }).find("broken.ttf") != std::string::npos);
}
