// Output files appear whole under their name, and never in the place of something else.
#include <sys/stat.h>

#include "lib/files/file.h"
#include "tests/files/scratch.h"

using namespace moe;
using moe::test::refusal;
using moe::test::Scratch;

TEST_CASE("a pipe is not replaced by an output file, forced or not") {
  const Scratch folder;
  const std::string pipe = (folder / "pipe").native();
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  for (const bool force : {false, true}) {
    const std::string sentence = refusal([&] { refuse_existing(pipe, force); });
    INFO(sentence);
    CHECK(sentence.find("pipe' is not a regular file") != sentence.npos);
  }
  CHECK_FALSE(refusal([&] { write_file(pipe, "text"); }).empty());
  CHECK(std::filesystem::is_fifo(pipe));
}

TEST_CASE("a file is replaced only where that is asked for, a folder never") {
  const Scratch folder;
  folder.put("old", "before");
  const std::string old = (folder / "old").native();
  CHECK(refusal([&] { refuse_existing(old, false); }).find("exists") != std::string::npos);
  CHECK(refusal([&] { refuse_existing(old, true); }).empty());
  write_file(old, "after");
  CHECK(read_file(old, 100) == "after");
  const std::string parent = std::filesystem::path(old).parent_path().native();
  CHECK(refusal([&] { refuse_existing(parent, true); }).find("is a folder") != std::string::npos);
}
