// Bytes in, the same bytes out; and Hugging Face's `tokenizers`, where python has it, reads the
// same ids from our file.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "tests/datasets/fixture.h"
#include "tests/skip.h"

using namespace moe;

TEST_CASE("every tokenizer gives text back, byte for byte") {
  std::string bytes;
  for (int b = 0; b < 256; ++b)
    bytes += char(b);
  for (const auto& entry : tokenizers().entries()) {
    for (const std::string& spec : split(entry.examples, ' ')) {
      CAPTURE(spec);
      const auto tokenizer = make_tokenizer(spec);
      for (const std::string& text :
           {std::string(), std::string("é"),
            std::string("床前明月光\r\n<|endoftext|> 🙂\t "), bytes}) {
        const auto ids = tokenizer->encode(text);
        CHECK(tokenizer->decode(ids) == text);
        for (const int id : ids)
          CHECK((id >= 0 && id < tokenizer->vocabulary() && id != tokenizer->boundary()));
      }
      CHECK(int(tokenizer->pieces().size()) == tokenizer->vocabulary());
    }
  }
}

TEST_CASE("bytes: an id is a byte, 256 the boundary, 320 rows") {
  const auto tokenizer = make_tokenizer("bytes");
  CHECK(tokenizer->encode("é") == std::vector<int>{0xC3, 0xA9});
  CHECK(tokenizer->boundary() == 256);
  CHECK(tokenizer->vocabulary() == 320);
  CHECK(tokenizer->decode({'a', 256, 'b', 300}) == "ab");
  CHECK(refusal([&] { tokenizer->decode({320}); }).substr(0, 34) ==
        "3: token id 320 is outside the voc");
  const auto pieces = tokenizer->pieces();
  CHECK(pieces['a'] == "a");
  CHECK(pieces[' '] == " ");
  CHECK(pieces['\n'] == "<0x0A>");
  CHECK(pieces[0xE5] == "<0xE5>");
  CHECK(pieces[256] == "<|endoftext|>");
  CHECK(refusal([] { make_tokenizer("byte"); }) == "2: no tokenizer named 'byte'");
  CHECK(refusal([] { make_tokenizer("bytes:vocab=3"); }) == "2: bytes has no option 'vocab'");
}

TEST_CASE("Hugging Face reads tokenizer.json with the same ids") {
  const char* given = std::getenv("MOE_PYTHON");
  const std::string python = given ? given : "python3";
  if (std::system((python + " -c 'import tokenizers' 2>/dev/null").c_str()) != 0)
    return test::skip(python + " has no module tokenizers (MOE_PYTHON names another python)");
  Folder folder;
  const auto tokenizer = make_tokenizer("bytes");
  write("tokenizer.json", tokenizer->tokenizer_json());
  write("tokenizer_config.json", tokenizer->tokenizer_config_json());
  write("check.py", R"(
import tokenizers
t = tokenizers.Tokenizer.from_file("tokenizer.json")
texts = ["", "é", "To be, or not to be\n\n  that 's", "床前明月光🙂\r\n"]
for text in texts + ["".join(map(chr, range(0x500)))]:
    ids = t.encode(text).ids
    assert ids == list(text.encode()), (text, ids)
    assert t.decode(ids) == text
assert t.encode("a<|endoftext|>b").ids == [97, 256, 98]
assert t.get_vocab_size() == 320, t.get_vocab_size()
assert t.id_to_token(256) == "<|endoftext|>" and t.id_to_token(319) == "<|pad319|>"
try:
    import transformers
except ImportError:
    raise SystemExit(0)
t = transformers.AutoTokenizer.from_pretrained(".")
assert len(t) == 320 and t.eos_token_id == 256, (len(t), t.eos_token_id)
text = "don 't , é 床 ."
assert t(text)["input_ids"] == list(text.encode()) and t.decode(list(text.encode())) == text
)");
  CHECK(std::system((python + " check.py").c_str()) == 0);
}
