// Lines of JSON parsed several at once: a batch is read, parsed on all threads, and its results are
// taken one after the other in the order of the file, so that what is said and refused does not
// depend on the number of threads.
#pragma once
#include <exception>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/files/mapped_lines.h"

namespace moe {

struct JsonText {
  std::string_view text;
  std::string where;        // "'a.jsonl' line 3"
  bool unfinished = false;  // the last line, without its end
};

// What became of one text: a value, or what parsing it threw.
template <class Parsed>
struct ParsedText {
  Parsed value;
  std::exception_ptr failure;
};

// The next lines that are not blank; empty at the end of the file. At most 32 lines, or those with
// which 4 MiB are passed; a line at a time where the file is compressed. Valid until the next call.
std::vector<JsonText> next_batch(MappedLines&);

// Results in the order of `texts`. parse(JsonText) must touch nothing that another call touches.
template <class Parsed, class Parse>
std::vector<ParsedText<Parsed>> parse_all(const std::vector<JsonText>& texts, Parse parse) {
  std::vector<ParsedText<Parsed>> out(texts.size());
  parallel_for(Index(texts.size()), 1, [&](Index at, Index) {
    ParsedText<Parsed>& one = out[std::size_t(at)];
    try {
      one.value = parse(texts[std::size_t(at)]);
    } catch (const Error&) {
      one.failure = std::current_exception();
    }
  });
  return out;
}

}  // namespace moe
