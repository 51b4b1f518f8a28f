#include <catch2/catch.hpp>

#include "lib/core/count.h"
#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"

using namespace moe;

TEST_CASE("a spec gives its options, with defaults, and remembers the whole choice") {
  Spec s("softmax:k=2,temperature=0.5,tokenizer={bpe:vocab=4096,x=1}");
  CHECK(s.name() == "softmax");
  CHECK(s.get("k", 1) == 2);
  CHECK(s.get("temperature", 1.0) == 0.5);
  CHECK(s.get("norm", true));
  CHECK(s.get("tokenizer", "bytes") == "bpe:vocab=4096,x=1");
  s.done();
  CHECK(s.resolved() == "softmax:k=2,temperature=0.5,norm=1,tokenizer={bpe:vocab=4096,x=1}");
  Spec again(s.resolved());
  CHECK(again.get("tokenizer", "") == "bpe:vocab=4096,x=1");
}

TEST_CASE("a spec refuses what it does not know, by name") {
  Spec s("softmax:kk=3,norm=1");
  s.get("k", 2);
  s.get("norm", true);
  CHECK_THROWS_WITH(s.done(), "softmax has no option 'kk'");
  CHECK_THROWS_WITH(Spec("softmax:k").name(), "'softmax:k': expected key=value, got 'k'");
  CHECK_THROWS_WITH(Spec("a:k=1,k=2").name(), "'a:k=1,k=2': k is given twice");
  CHECK_THROWS_WITH(Spec("a:x={b").name(), "'a:x={b': braces do not match");
  Spec n("a:k=two,t=nan,least=0");
  CHECK_THROWS_WITH(n.get("k", 1), "a: k=two is not a whole number");
  CHECK_THROWS_WITH(n.get("t", 1.0), "a: t=nan is not a number");
  CHECK_THROWS_WITH(n.get("least", 1, 1), "a: least=0 must be at least 1");
}

TEST_CASE("counts are whole, in 1024s where that is written, and never in two senses") {
  for (const auto& [text, value] : std::vector<std::pair<std::string, std::int64_t>>{
           {"0", 0},
           {"-3", -3},
           {"+7", 7},
           {"32Ki", 32768},
           {"32ki", 32768},
           {"1.5Mi", 1572864},
           {"2Gi", 2147483648},
           {"9223372036854775807", 9223372036854775807}}) {
    CAPTURE(text);
    CHECK(read_count(text).wrong.empty());
    CHECK(read_count(text).value == value);
  }
  CHECK(read_count("32k").wrong ==
        "is 32000 to some and 32768 to others: write 32000, or 32Ki for 32768");
  CHECK(read_count("1.5M").wrong ==
        "is 1500000 to some and 1572864 to others: write 1500000, or 1.5Mi for 1572864");
  CHECK(read_count("1.3k").wrong == "can be read in two ways: write 1300");
  for (const char* text : {"",           "+",
                           "-",          "+-3",
                           "k",          "Ki",
                           "x",          "1.5",
                           "1.3Ki",      "1e3",
                           "0x10",       "1 000",
                           " 1",         "1 ",
                           "3kb",        "3KiB",
                           "3Kii",       "nan",
                           "infGi",      "1e300Gi",
                           "99999999Gi", "99999999999999999999"}) {
    CAPTURE(text);
    CHECK(read_count(text).wrong == "is not a whole number");
  }
  Spec s("bpe:vocab=32Ki,k=32k,many=4294967296,few=-4294967296");
  CHECK(s.get("vocab", 0) == 32768);
  CHECK_THROWS_WITH(s.get("k", 0),
                    "bpe: k=32k is 32000 to some and 32768 to others: write 32000, or 32Ki for "
                    "32768");
  CHECK_THROWS_WITH(s.get("many", 0), "bpe: many=4294967296 is more than 2147483647");
  CHECK_THROWS_WITH(s.get("few", 0), "bpe: few=-4294967296 is less than -2147483648");
  CHECK(s.resolved() == "bpe:vocab=32768");
}

TEST_CASE("the nearest name is offered, a far one is not") {
  CHECK(nearest("sofmax", {"sigmoid", "softmax"}) == "softmax");
  CHECK(nearest("zebra", {"sigmoid", "softmax"}).empty());
}

TEST_CASE("sizes are read as people write them") {
  CHECK(parse_size("4096", "limit") == 4096);
  CHECK(parse_size("64k", "limit") == 64000);
  CHECK(parse_size("1.5GB", "limit") == 1500000000);
  CHECK(parse_size("512MiB", "limit") == 536870912);
  std::int64_t decimal = 1;
  std::int64_t binary = 1;
  for (const std::string unit : {"k", "m", "g", "t"}) {
    INFO(unit);
    decimal *= 1000;
    binary *= 1024;
    CHECK(parse_size("3" + unit, "limit") == 3 * decimal);
    CHECK(parse_size("3" + unit + "B", "limit") == 3 * decimal);
    CHECK(parse_size("3" + unit + "iB", "limit") == 3 * binary);
  }
  CHECK_THROWS_WITH(parse_size("4x", "limit"), "limit '4x' is not a size");
  CHECK_THROWS(parse_size("nan", "limit"));
}

TEST_CASE("lists inside specs") {
  using Words = std::vector<std::string>;
  CHECK(split_list("").empty());
  for (const char* list : {"1,3", "1;3", "1+3"})
    CHECK(split_list(list) == Words{"1", "3"});
  CHECK(split_list("0.5+1e+3+2E-1") == Words{"0.5", "1e+3", "2E-1"});
  CHECK(split_list("e+1") == Words{"e", "1"});
  CHECK(split_list("a:x={1,2}+b", ";+") == Words{"a:x={1,2}", "b"});
  CHECK(split_list("switch:coef=1,counts=top1;z", ";+") == Words{"switch:coef=1,counts=top1", "z"});
  CHECK(split_list("1++2") == Words{"1", "", "2"});
  CHECK(split_list("1+") == Words{"1", ""});
}

TEST_CASE("entries of lists that stand several times") {
  using Entry = std::pair<std::string, std::string>;
  CHECK(repeated_entry("ffn*3") == Entry{"ffn", "3"});
  CHECK(repeated_entry("ffnx3") == Entry{"ffn", "3"});
  CHECK(repeated_entry("128x2") == Entry{"128", "2"});
  CHECK(repeated_entry("short_conv:kernel=3x2") == Entry{"short_conv:kernel=3", "2"});
  for (const std::string once : {"ffn", "128", "max", "x3", "short_conv:kernel=3"})
    CHECK(repeated_entry(once) == Entry{once, "1"});
  CHECK(repeated_entry("ffn*") == Entry{"ffn", ""});
}
